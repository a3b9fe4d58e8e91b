-- What the chain follower has seen, as far as it touches a wallet of ours. All of it can be told again by the chain.

CREATE TABLE chain_cursor (
    name TEXT PRIMARY KEY,
    height BIGINT NOT NULL,
    hash TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- The last blocks, to find where a reorganisation began.
CREATE TABLE chain_blocks (
    height BIGINT PRIMARY KEY,
    hash TEXT NOT NULL,
    mined_at BIGINT NOT NULL
);

CREATE TABLE txs (
    txid TEXT PRIMARY KEY,
    -- Empty for a coin found by a scan whose block the node no longer stores.
    raw TEXT,
    -- offered: signed by a client, and not in our node's mempool.
    status TEXT NOT NULL CHECK (status IN ('offered', 'mempool', 'mined', 'evicted', 'replaced')),
    height BIGINT CHECK ((height IS NOT NULL) = (status = 'mined')),
    mined_at BIGINT,
    replaced_by TEXT,
    coinbase BIGINT NOT NULL CHECK (coinbase IN (0, 1)),
    first_seen_at BIGINT NOT NULL
);
CREATE INDEX txs_by_height ON txs (height) WHERE height IS NOT NULL;
CREATE INDEX txs_unmined ON txs (status) WHERE status IN ('offered', 'mempool');

-- Outputs to our scripts.
CREATE TABLE coins (
    outpoint TEXT PRIMARY KEY,
    txid TEXT NOT NULL REFERENCES txs (txid),
    wallet_id TEXT NOT NULL,
    account TEXT NOT NULL,
    idx BIGINT NOT NULL,
    script TEXT NOT NULL,
    amount_sat BIGINT NOT NULL,
    -- 1 when its transaction was issued by us for this wallet: its change may be spent before it confirms.
    own BIGINT NOT NULL CHECK (own IN (0, 1)),
    coinbase BIGINT NOT NULL CHECK (coinbase IN (0, 1)),
    -- A copy of its transaction's status and height.
    status TEXT NOT NULL,
    height BIGINT,
    -- The transaction that spends it now, if any, and its height once that is mined.
    spent_by TEXT,
    spent_height BIGINT
);
CREATE INDEX coins_by_tx ON coins (txid);
CREATE INDEX coins_unspent ON coins (wallet_id, outpoint) WHERE spent_height IS NULL AND status IN ('offered', 'mempool', 'mined');

-- Every transaction that ever spent one of our coins; more than one for a coin is a conflict.
CREATE TABLE spends (
    outpoint TEXT NOT NULL,
    txid TEXT NOT NULL REFERENCES txs (txid),
    PRIMARY KEY (outpoint, txid)
);
CREATE INDEX spends_by_tx ON spends (txid);

-- Which wallets a transaction concerns, for their lists.
CREATE TABLE wallet_txs (
    wallet_id TEXT NOT NULL,
    txid TEXT NOT NULL REFERENCES txs (txid),
    first_seen_at BIGINT NOT NULL,
    PRIMARY KEY (wallet_id, txid)
);
CREATE INDEX wallet_txs_by_time ON wallet_txs (wallet_id, first_seen_at, txid);

CREATE TABLE deposits (
    outpoint TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE REFERENCES requests (id),
    wallet_id TEXT NOT NULL,
    txid TEXT NOT NULL,
    amount_sat BIGINT NOT NULL
);
CREATE INDEX deposits_by_tx ON deposits (txid);
