-- Which keys act for a wallet: asked for each wallet that waits to be searched for.
CREATE INDEX api_key_wallets_by_wallet ON api_key_wallets (wallet_id, key_id);
