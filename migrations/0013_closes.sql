-- How many channels were closed for withdrawals on one day, in UTC days since 1970. One row, which whoever wants to close one writes first:
-- no two withdrawals close a channel at once.
CREATE TABLE close_budget (
    name TEXT PRIMARY KEY,
    day BIGINT NOT NULL,
    closes BIGINT NOT NULL
);
INSERT INTO close_budget (name, day, closes) VALUES ('cooperative', 0, 0);
