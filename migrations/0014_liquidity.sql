-- Channels that the gateway opens by itself. A row is written before the node is asked, and says how it ended.
CREATE TABLE liquidity_openings (
    id TEXT PRIMARY KEY,
    peer TEXT NOT NULL,
    amount BIGINT NOT NULL,
    -- What its transaction was reckoned to cost, which counts against the budget of the day.
    fee BIGINT NOT NULL,
    -- The channels that we had opened with this peer before, as JSON: another one of this amount is this one.
    had TEXT NOT NULL,
    state TEXT NOT NULL,
    channel TEXT,
    reason TEXT,
    -- 1 until it is known how it ended, then empty: one at a time.
    under_way BIGINT UNIQUE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX liquidity_openings_by_time ON liquidity_openings (created_at, id);

-- What was last decided, and whether there was enough to receive: an event is written when either changes.
CREATE TABLE liquidity_words (
    subject TEXT PRIMARY KEY,
    word TEXT NOT NULL,
    detail TEXT NOT NULL,
    since BIGINT NOT NULL
);
