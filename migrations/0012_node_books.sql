-- What happened to the node's own money beside payments, as the built-in node tells it: in order, each once, never changed.
CREATE TABLE node_movements (
    number BIGINT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- What was posted for no wallet's request: for each movement of the node's money, and for each word of an operator about suspense.
CREATE TABLE book_entries (
    id TEXT PRIMARY KEY,
    -- The movement's number; empty for an operator's entry.
    number BIGINT UNIQUE,
    -- The posting in suspense that an operator's entry resolves. Once.
    resolves TEXT UNIQUE,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX postings_in_suspense ON postings (created_at, id) WHERE debit = 'operator:suspense' OR credit = 'operator:suspense';
CREATE INDEX postings_by_time ON postings (created_at);
