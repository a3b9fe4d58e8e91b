-- Payments of the node that went out in parts, until none of them is out any more: the payee may claim one and let another go.
-- The part without a name says that the payment is counted, and each other one what the payee took.
CREATE TABLE node_parts (
    payment TEXT NOT NULL,
    part TEXT NOT NULL,
    claimed BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (payment, part)
);
