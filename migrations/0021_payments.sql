-- What an invoice asked for, beside what was received: the audit compares them. The version before leaves it empty, and then nothing is said.
ALTER TABLE payments ADD COLUMN asked_msat BIGINT;
UPDATE payments SET asked_msat = amount_msat WHERE inbound = 1 AND request_id IN
    (SELECT id FROM requests WHERE kind = 'lightning_receive' AND state = 'open');
