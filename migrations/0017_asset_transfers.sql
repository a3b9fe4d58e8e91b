-- What the engine for assets tells of transfers, so that they can be listed, and what the chain tells of them beside it.
CREATE TABLE asset_transfers (
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    -- Counts the transfers of a wallet.
    idx BIGINT NOT NULL,
    -- Transfers of one transaction share it.
    batch BIGINT NOT NULL,
    -- The request that it belongs to. An asset that was issued came by none.
    request_id TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('issuance', 'receive_blind', 'receive_witness', 'send', 'inflation', 'burn')),
    status TEXT NOT NULL
        CHECK (status IN ('initiated', 'waiting_counterparty', 'waiting_confirmations', 'settled', 'failed')),
    asset_id TEXT,
    -- What an invoice asks for, and what was moved, as JSON: base units.
    requested BIGINT,
    amounts TEXT NOT NULL,
    txid TEXT,
    recipient_id TEXT,
    receive_coin TEXT,
    change_coin TEXT,
    -- Where its payee is told of it, as JSON.
    endpoints TEXT NOT NULL,
    -- Seconds since 1970, as the engine counts.
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    -- The block that the transaction is in, as far as the gateway has seen it.
    height BIGINT,
    -- 1: it was in a block that is no longer part of the chain, and is in no other.
    reorged BIGINT NOT NULL,
    PRIMARY KEY (wallet_id, idx)
);
CREATE INDEX asset_transfers_by_asset ON asset_transfers (wallet_id, asset_id, idx);
CREATE INDEX asset_transfers_by_change ON asset_transfers (wallet_id, updated_at);
CREATE INDEX asset_transfers_by_recipient ON asset_transfers (recipient_id) WHERE recipient_id IS NOT NULL;
CREATE INDEX asset_transfers_waiting ON asset_transfers (wallet_id) WHERE status = 'waiting_confirmations';
CREATE INDEX asset_transfers_to_be_told ON asset_transfers (request_id)
    WHERE kind = 'send' AND status IN ('initiated', 'waiting_counterparty');
CREATE INDEX asset_transfers_in_no_block ON asset_transfers (txid)
    WHERE txid IS NOT NULL AND height IS NULL AND status IN ('waiting_confirmations', 'settled');
CREATE INDEX asset_transfers_by_height ON asset_transfers (height) WHERE height IS NOT NULL;
CREATE INDEX asset_transfers_reorged ON asset_transfers (wallet_id) WHERE reorged = 1;

-- A call of the engine that is not written down yet. What it made and nobody knows is given up when its row is found.
CREATE TABLE asset_intents (
    id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    created_at BIGINT NOT NULL
);
CREATE INDEX asset_intents_by_wallet ON asset_intents (wallet_id);

-- What was brought for invoices of this gateway and is not looked at yet.
CREATE INDEX consignments_to_look_at ON consignments (created_at) WHERE kept = 1 AND ack IS NULL;
-- Invoices for assets by the address that they were handed out with.
CREATE TABLE asset_invoices (
    address_request TEXT PRIMARY KEY,
    request_id TEXT NOT NULL
);
CREATE INDEX requests_waiting_for_payees ON requests (updated_at) WHERE state = 'waiting_ack';
CREATE INDEX requests_assets_arriving ON requests (wallet_id) WHERE kind = 'asset_receive' AND state IN ('arriving', 'seen');
