-- Reasons for which no money of one wallet goes out. A table of its own: the version before would take a row of `halts` for a halt of
-- everybody.
CREATE TABLE scoped_halts (
    id TEXT PRIMARY KEY,
    -- `wallet`, and which one.
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    cleared_at BIGINT
);
CREATE UNIQUE INDEX scoped_halts_in_force ON scoped_halts (scope, subject, reason) WHERE cleared_at IS NULL;

-- What was earned by forwarding within an hour (counted since 1970), and how much of that is told: one movement for an hour, not one for
-- each payment of a stranger.
CREATE TABLE node_forwards (
    hour BIGINT PRIMARY KEY,
    fee BIGINT NOT NULL,
    told BIGINT NOT NULL
);

-- Receipts that came to nothing, for the look that forgets those of no invoice.
CREATE INDEX node_receipts_failed ON node_receipts (updated_at) WHERE state = 'failed';
