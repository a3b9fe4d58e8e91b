-- How many commits the node has made. Where the database is a server that may be replaced by an older copy of itself, each commit counts, and
-- the machine of the node remembers the number.
CREATE TABLE node_commits (
    name TEXT PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO node_commits (name, number) VALUES ('node', 0);
