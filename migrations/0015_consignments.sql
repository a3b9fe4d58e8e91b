-- What wallets of RGB exchange through this gateway: consignments, what their recipients said to them, and media.

-- Recipients that stand in invoices of this gateway. Only its own engine acknowledges for them.
CREATE TABLE consignment_recipients (
    recipient_id TEXT PRIMARY KEY,
    wallet_id TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE consignments (
    recipient_id TEXT PRIMARY KEY,
    txid TEXT NOT NULL,
    vout BIGINT,
    -- The SHA-256 of the file, and how long it is.
    hash TEXT NOT NULL,
    size BIGINT NOT NULL,
    -- 1 or 0; empty until the recipient has said.
    ack BIGINT,
    -- 1: the recipient is in the table above. It is kept, and does not count against what strangers may store.
    kept BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- The file, in base64. Last: what reads the columns before it does not read it.
    content TEXT NOT NULL
);
CREATE INDEX consignments_of_strangers ON consignments (created_at) WHERE kept = 0;

CREATE TABLE consignment_media (
    attachment_id TEXT PRIMARY KEY,
    hash TEXT NOT NULL,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX consignment_media_by_time ON consignment_media (created_at);

-- How many bytes strangers have stored. Every change of what is stored takes this row first, one after the other.
CREATE TABLE consignment_usage (
    name TEXT PRIMARY KEY,
    bytes BIGINT NOT NULL
);
INSERT INTO consignment_usage (name, bytes) VALUES ('strangers', 0);
