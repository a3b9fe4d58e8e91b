-- An order to issue an asset, written before the engine is asked: what became of it is found by what the engine knows afterwards.
CREATE TABLE asset_issues (
    id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL REFERENCES wallets (id),
    -- The asset as its issuer describes it, as JSON.
    terms TEXT NOT NULL,
    -- The ids of the assets that the wallet had before, as JSON.
    known TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'issued', 'void')),
    asset_id TEXT CHECK ((asset_id IS NOT NULL) = (state = 'issued')),
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX asset_issues_begun ON asset_issues (wallet_id) WHERE state = 'begun';
