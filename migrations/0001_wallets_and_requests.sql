-- One text for SQLite and PostgreSQL: TEXT and BIGINT only, no functions of one engine.
-- Hashes and scripts are hex, outpoints are txid:vout, times are milliseconds since 1970, a missing time is "not yet".

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE wallets (
    id TEXT PRIMARY KEY,
    xpub_van TEXT NOT NULL,
    xpub_col TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Empty while the chain is searched for coins that were there before us.
    scanned_at BIGINT,
    released_at BIGINT
);
CREATE INDEX wallets_to_scan ON wallets (created_at) WHERE scanned_at IS NULL AND released_at IS NULL;

CREATE TABLE keychains (
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    account TEXT NOT NULL CHECK (account IN ('vanilla', 'colored')),
    -- Public key and chain code: the same key in another encoding is the same key.
    key_material TEXT NOT NULL,
    next_index BIGINT NOT NULL,
    -- Scripts below this index are in the table of scripts.
    derived_to BIGINT NOT NULL,
    released_at BIGINT,
    PRIMARY KEY (wallet_id, account)
);
CREATE UNIQUE INDEX keychains_in_use ON keychains (key_material) WHERE released_at IS NULL;
CREATE INDEX keychains_by_key ON keychains (key_material);

-- The index that routes every output of every block: a restart derives nothing again.
CREATE TABLE scripts (
    script TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    account TEXT NOT NULL CHECK (account IN ('vanilla', 'colored')),
    idx BIGINT NOT NULL,
    -- Empty until the index is issued, and then never changed.
    purpose TEXT CHECK (purpose IN ('receive', 'change')),
    request_id TEXT,
    issued_at BIGINT
);
CREATE UNIQUE INDEX scripts_by_place ON scripts (wallet_id, account, idx);

CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    is_open BIGINT NOT NULL CHECK (is_open IN (0, 1)),
    -- The machine, as JSON with a format number.
    data TEXT NOT NULL,
    reference TEXT,
    label TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX requests_by_wallet ON requests (wallet_id, kind, created_at, id);
CREATE INDEX requests_to_expire ON requests (expires_at) WHERE state IN ('open', 'awaiting_signature');
CREATE INDEX requests_open_addresses ON requests (wallet_id, created_at) WHERE kind = 'onchain_receive' AND state = 'open';
CREATE INDEX requests_not_deep ON requests (kind, state) WHERE state IN ('mined', 'seen');

-- Every transaction that was ever handed out for signing. A signed PSBT finds its request here.
CREATE TABLE request_txs (
    unsigned_txid TEXT PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES requests (id),
    wallet_id TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('original', 'bump', 'cancel')),
    psbt TEXT NOT NULL,
    fee_sat BIGINT NOT NULL,
    fee_rate_milli BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    signed_tx TEXT,
    signed_at BIGINT
);
CREATE INDEX request_txs_by_request ON request_txs (request_id, created_at);

-- A coin that an unfinished request has set aside. The key is what makes two begins never share one.
CREATE TABLE leases (
    outpoint TEXT PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES requests (id),
    wallet_id TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX leases_by_request ON leases (request_id);
CREATE INDEX leases_by_wallet ON leases (wallet_id);

-- What a caller's idempotency key stands for, for ever.
CREATE TABLE idempotency (
    id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    request_id TEXT NOT NULL,
    unsigned_txid TEXT,
    created_at BIGINT NOT NULL
);
