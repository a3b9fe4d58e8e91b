-- What has changed is told by what was unfinished, and no longer by the engine's clock.
DROP INDEX asset_transfers_by_change;
CREATE INDEX asset_transfers_unfinished ON asset_transfers (wallet_id)
    WHERE status IN ('initiated', 'waiting_counterparty', 'waiting_confirmations');
