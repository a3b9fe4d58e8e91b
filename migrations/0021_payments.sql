-- What an invoice asked for, beside what was received: the audit compares them. The version before leaves it empty, and then nothing is said.
ALTER TABLE payments ADD COLUMN asked_msat BIGINT;
UPDATE payments SET asked_msat = amount_msat WHERE inbound = 1 AND request_id IN
    (SELECT id FROM requests WHERE kind = 'lightning_receive' AND state = 'open');

-- What was consented to is paid once. A begin that nobody has signed keeps nobody out: whoever consents first is first.
--
-- The version before goes on serving on this. It looks for another payment before it begins one, and refuses a second one as ever; where two
-- of its begins race, both begin, and this index refuses the second of their ends, before the node is asked: that call answers 503 and
-- leaves its request as it was. What has more rows than before fits the old index no longer: a way back needs none of it.
CREATE UNIQUE INDEX payments_one_paid ON payments (payment_hash) WHERE inbound = 0 AND status IN ('pending', 'succeeded');
DROP INDEX payments_one_pay;

-- Further versions of sends that nobody has signed: they count among what a wallet may have open.
CREATE INDEX request_txs_unsigned ON request_txs (wallet_id, expires_at) WHERE signed_tx IS NULL AND role <> 'original';
