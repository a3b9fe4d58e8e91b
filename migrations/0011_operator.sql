-- What an operator asked for over HTTP, by the idempotency key that came with it. The answer is empty while it is not known.
CREATE TABLE operator_calls (
    id TEXT PRIMARY KEY,
    body_hash TEXT NOT NULL,
    answer TEXT,
    created_at BIGINT NOT NULL
);

-- Addresses of the node's own wallet that were handed out to the operator: what is paid to one is the operator's money.
CREATE TABLE reserve_addresses (
    script TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
