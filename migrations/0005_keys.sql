-- API keys. Only the hash of a key is kept.

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Comma-separated: read, receive, send, register, admin.
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

-- The wallets that a key may act for.
CREATE TABLE api_key_wallets (
    key_id TEXT NOT NULL REFERENCES api_keys (id),
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    PRIMARY KEY (key_id, wallet_id)
);
