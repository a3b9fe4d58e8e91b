-- A key that takes the place of another one. While the old one is still in force, what is bound to it is bound to the new one, too.
CREATE TABLE api_key_successors (
    key_id TEXT NOT NULL REFERENCES api_keys (id),
    successor_id TEXT NOT NULL REFERENCES api_keys (id),
    -- When the old one ends. Empty: it stays, and the new one is only like it.
    ends_at BIGINT,
    PRIMARY KEY (key_id, successor_id)
);

-- The audits of late: what was found, as the audit tells it.
CREATE TABLE audit_runs (
    id TEXT PRIMARY KEY,
    -- Empty: it ran by itself.
    asked_by TEXT,
    started_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    drifts BIGINT NOT NULL,
    report TEXT NOT NULL
);
CREATE INDEX audit_runs_by_end ON audit_runs (ended_at);
