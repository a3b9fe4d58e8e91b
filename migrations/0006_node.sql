-- The built-in Lightning node. What LDK keeps is in base64; what this gateway keeps beside it has columns of its own.
-- All of it is written by one process at a time, under the epoch of the role `node`.

CREATE TABLE node_state (
    space TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (space, name)
);

-- A channel's monitor is in node_state as it was at some update; here are the updates since.
CREATE TABLE node_updates (
    monitor TEXT NOT NULL,
    number BIGINT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (monitor, number)
);

-- Changes of the node's on-chain wallet, in order.
CREATE TABLE node_wallet (
    number BIGINT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Every payment that was ever given to the node: LDK forgets one within minutes of its end.
CREATE TABLE node_payments (
    id TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    state TEXT NOT NULL,
    destination TEXT NOT NULL,
    amount BIGINT NOT NULL,
    max_fee BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    preimage TEXT,
    fee BIGINT,
    failure TEXT
);

CREATE INDEX node_payments_open ON node_payments (created_at) WHERE state IN ('queued', 'pending');

-- Every payment that ever arrived whole. `part` is LDK's name for this arrival: a hash may be paid more than once.
CREATE TABLE node_receipts (
    hash TEXT NOT NULL,
    part TEXT NOT NULL,
    state TEXT NOT NULL,
    amount BIGINT NOT NULL,
    claim_before BIGINT,
    preimage TEXT,
    offer TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (hash, part)
);

CREATE INDEX node_receipts_open ON node_receipts (created_at) WHERE state IN ('held', 'claiming', 'failing');

-- Hashes whose invoice was let go of: what arrives for them is failed at once.
CREATE TABLE node_cancelled (
    hash TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE node_peers (
    id TEXT NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
