CREATE TABLE events (
    id TEXT PRIMARY KEY,
    wallet_id TEXT,
    request_id TEXT,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX events_by_request ON events (request_id, id);

-- The order in which events became readable: no number is skipped, and no smaller one appears later.
CREATE TABLE event_order (
    seq BIGINT PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE REFERENCES events (id),
    wallet_id TEXT
);
CREATE INDEX event_order_by_wallet ON event_order (wallet_id, seq);

-- Committed events that still wait for their number. Always empty where one writer numbers them itself.
CREATE TABLE events_unnumbered (
    event_id TEXT PRIMARY KEY REFERENCES events (id),
    wallet_id TEXT
);

-- What has to be done outside, keyed by what it does.
CREATE TABLE effects (
    key TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    -- Whoever inserted or claimed it works on it until then.
    leased_until BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    done_at BIGINT
);
CREATE INDEX effects_due ON effects (leased_until) WHERE done_at IS NULL;

-- Who may act for the whole gateway in a role. Every write of an owner names its epoch; an older epoch writes nothing.
CREATE TABLE owners (
    role TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    holder TEXT NOT NULL,
    leased_until BIGINT NOT NULL
);

-- Reasons for which no money goes out until an operator says otherwise.
CREATE TABLE halts (
    id TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    cleared_at BIGINT
);
CREATE UNIQUE INDEX halts_in_force ON halts (reason) WHERE cleared_at IS NULL;
