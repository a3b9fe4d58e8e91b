-- Lightning: what the client consented to, and the list of payments.

-- Every consent that was asked for. A signed PSBT finds its request here; the signed message is the operator's proof.
CREATE TABLE authorizations (
    request_id TEXT PRIMARY KEY REFERENCES requests (id),
    unsigned_txid TEXT NOT NULL UNIQUE,
    wallet_id TEXT NOT NULL,
    psbt TEXT NOT NULL,
    message TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- The signed transaction of BIP-322, as hex.
    signed_tx TEXT,
    signed_at BIGINT
);

-- One line for each Lightning request, written with it: what lists are read from, and what finds a request by its hash.
CREATE TABLE payments (
    request_id TEXT PRIMARY KEY REFERENCES requests (id),
    wallet_id TEXT NOT NULL,
    payment_hash TEXT NOT NULL,
    inbound BIGINT NOT NULL CHECK (inbound IN (0, 1)),
    status TEXT NOT NULL CHECK (status IN ('waiting', 'pending', 'succeeded', 'failed', 'void')),
    amount_msat BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX payments_by_wallet ON payments (wallet_id, created_at, request_id) WHERE status IN ('pending', 'succeeded', 'failed');
-- An invoice of ours has one request.
CREATE UNIQUE INDEX payments_one_receive ON payments (payment_hash) WHERE inbound = 1;
-- Over all wallets, a hash is paid by at most one request at a time, and never again once it was paid.
CREATE UNIQUE INDEX payments_one_pay ON payments (payment_hash) WHERE inbound = 0 AND status IN ('waiting', 'pending', 'succeeded');
-- What waits for the node is looked up at each start.
CREATE INDEX requests_waiting_for_node ON requests (state) WHERE state IN ('claiming', 'paying');
