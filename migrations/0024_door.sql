-- Which keys act for a wallet: asked for each wallet that waits to be searched for.
CREATE INDEX api_key_wallets_by_wallet ON api_key_wallets (wallet_id, key_id);

-- When the file of a consignment for one of our invoices was taken away, of which the hash and the word stay. Its content is empty then.
ALTER TABLE consignments ADD COLUMN dropped_at BIGINT;
-- What a wallet's invoices hold, and whose invoices have ended long ago.
CREATE INDEX consignment_recipients_by_wallet ON consignment_recipients (wallet_id, recipient_id);
CREATE INDEX consignments_to_drop ON consignments (created_at) WHERE kept = 1 AND ack IS NOT NULL AND dropped_at IS NULL;

-- Written again and again, to find out whether it can be.
INSERT INTO meta (name, value) VALUES ('last_write', '0');

-- Where an export was begun with a caller's key, the hash of what was asked with it. Its id follows from the key.
ALTER TABLE asset_exports ADD COLUMN body_hash TEXT;
