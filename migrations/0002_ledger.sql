-- Double entry. A posting is one debit, one credit, one amount; nothing here is ever updated or deleted but balances and open holds,
-- which are what the postings add up to.

CREATE TABLE postings (
    id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('post', 'hold', 'post_hold', 'void_hold')),
    debit TEXT NOT NULL,
    credit TEXT NOT NULL CHECK (credit <> debit),
    asset TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    hold_id TEXT CHECK ((hold_id IS NOT NULL) = (kind IN ('post_hold', 'void_hold'))),
    created_at BIGINT NOT NULL
);
-- A hold is closed once.
CREATE UNIQUE INDEX postings_one_close ON postings (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX postings_by_request ON postings (request_id);

CREATE TABLE holds (
    id TEXT PRIMARY KEY REFERENCES postings (id),
    request_id TEXT NOT NULL,
    debit TEXT NOT NULL,
    asset TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0)
);
CREATE INDEX holds_by_account ON holds (debit, asset);

CREATE TABLE balances (
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    -- 1 for the account of a wallet: what is there less what is held never goes below zero.
    guarded BIGINT NOT NULL CHECK (guarded IN (0, 1)),
    total BIGINT NOT NULL,
    held BIGINT NOT NULL CHECK (held >= 0),
    PRIMARY KEY (account, asset),
    CHECK (guarded = 0 OR total >= held)
);
