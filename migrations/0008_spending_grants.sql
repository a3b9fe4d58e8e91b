-- Keys that may spend: what a wallet's owner granted, how much of it is used, and by which payments.

-- Every grant that was asked for. The key comes into force with the owner's signature; the signed message is the operator's proof.
CREATE TABLE spending_grants (
    key_id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    unsigned_txid TEXT NOT NULL UNIQUE,
    psbt TEXT NOT NULL,
    message TEXT NOT NULL,
    -- The key in the making: it gets its row among the keys when the grant is given.
    key_hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    -- What one payment may come to, fee ceiling included, in millisatoshi.
    per_payment BIGINT CHECK (per_payment > 0),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- The signed transaction of BIP-322, as hex.
    signed_tx TEXT,
    signed_at BIGINT CHECK ((signed_at IS NULL) = (signed_tx IS NULL))
);
CREATE INDEX spending_grants_by_wallet ON spending_grants (wallet_id, created_at, key_id);

CREATE TABLE spending_limits (
    key_id TEXT NOT NULL REFERENCES spending_grants (key_id),
    asset TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('hour', 'day', 'week', 'month')),
    amount BIGINT NOT NULL CHECK (amount > 0),
    PRIMARY KEY (key_id, asset, period)
);

-- What a key has used of a limit in one period. Holds count in full; what comes back comes back to the period that it was taken from.
CREATE TABLE spending_budgets (
    key_id TEXT NOT NULL,
    asset TEXT NOT NULL,
    period TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL CHECK (ends_at > starts_at),
    used BIGINT NOT NULL CHECK (used >= 0),
    PRIMARY KEY (key_id, asset, period, starts_at),
    FOREIGN KEY (key_id, asset, period) REFERENCES spending_limits (key_id, asset, period)
);

-- Requests that a key has paid for, and what each one counts now.
CREATE TABLE key_payments (
    request_id TEXT PRIMARY KEY REFERENCES requests (id),
    key_id TEXT NOT NULL REFERENCES api_keys (id),
    wallet_id TEXT NOT NULL,
    asset TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount >= 0),
    held_at BIGINT NOT NULL
);
CREATE INDEX key_payments_by_key ON key_payments (key_id, asset, held_at);
