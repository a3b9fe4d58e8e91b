CREATE TRIGGER postings_no_update BEFORE UPDATE ON postings BEGIN SELECT RAISE(ABORT, 'postings is append-only'); END;
CREATE TRIGGER postings_no_delete BEFORE DELETE ON postings BEGIN SELECT RAISE(ABORT, 'postings is append-only'); END;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER event_order_no_update BEFORE UPDATE ON event_order BEGIN SELECT RAISE(ABORT, 'event_order is append-only'); END;
CREATE TRIGGER event_order_no_delete BEFORE DELETE ON event_order BEGIN SELECT RAISE(ABORT, 'event_order is append-only'); END;
