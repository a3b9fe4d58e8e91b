-- How many commits the node has made. Where the database is a server that may be replaced by an older copy of itself, each commit counts, and
-- the machine of the node remembers the number.
CREATE TABLE node_commits (
    name TEXT PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO node_commits (name, number) VALUES ('node', 0);

-- Every version of what the node has sent for a request, once there is more than one. node_sends names the last.
CREATE TABLE node_send_versions (
    txid TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The same for the withdrawals: withdrawals names the one that stands for it, these are looked for in blocks as well.
CREATE TABLE withdrawal_versions (
    txid TEXT PRIMARY KEY,
    request_id TEXT NOT NULL
);
CREATE INDEX withdrawal_versions_by_request ON withdrawal_versions (request_id);
