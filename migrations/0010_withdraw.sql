-- Off-chain money that leaves on-chain.

-- The node's own record of what it was told to send: the same id is the same send. Written in one commit with the wallet that
-- has spent the coins, before anything goes out.
CREATE TABLE node_sends (
    id TEXT PRIMARY KEY,
    txid TEXT NOT NULL,
    address TEXT NOT NULL,
    amount_sat BIGINT NOT NULL,
    fee_sat BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX node_sends_by_tx ON node_sends (txid);

-- Which transaction stands for a withdrawal: the follower looks for it in blocks.
CREATE TABLE withdrawals (
    txid TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE REFERENCES requests (id),
    wallet_id TEXT NOT NULL,
    -- The block that it is in, if any.
    height BIGINT
);
CREATE INDEX withdrawals_unmined ON withdrawals (request_id) WHERE height IS NULL;
CREATE INDEX withdrawals_by_height ON withdrawals (height) WHERE height IS NOT NULL;
