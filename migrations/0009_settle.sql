-- Between the rails: coins that come to the node for a wallet.

-- Addresses of the node's own wallet that are bound to a wallet of ours, for ever: what comes to one is that wallet's off-chain money.
CREATE TABLE node_addresses (
    script TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    wallet_id TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX node_addresses_by_wallet ON node_addresses (wallet_id, created_at);

-- Outputs to them.
CREATE TABLE credits (
    outpoint TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE REFERENCES requests (id),
    wallet_id TEXT NOT NULL,
    txid TEXT NOT NULL,
    script TEXT NOT NULL REFERENCES node_addresses (script),
    amount_sat BIGINT NOT NULL
);
CREATE INDEX credits_by_tx ON credits (txid);
CREATE INDEX credits_by_script ON credits (script);
