-- Beside the hash of the bytes that came with a key, the hash of the JSON value that they are: the same value written otherwise is the same
-- call. Empty where a program wrote the row that compared bytes.
ALTER TABLE idempotency ADD COLUMN value_hash TEXT;
ALTER TABLE operator_calls ADD COLUMN value_hash TEXT;
ALTER TABLE asset_exports ADD COLUMN value_hash TEXT;
