-- Exports of what the engine for assets knows of a wallet: what its owner was asked to sign, and the signature. One signature is good
-- for one export; the signed message is the operator's proof.
CREATE TABLE asset_exports (
    id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    unsigned_txid TEXT NOT NULL UNIQUE,
    message TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- The signed transaction of BIP-322, as hex.
    signed_tx TEXT,
    signed_at BIGINT CHECK ((signed_at IS NULL) = (signed_tx IS NULL))
);
CREATE INDEX asset_exports_unsigned ON asset_exports (wallet_id, expires_at) WHERE signed_tx IS NULL;
