-- When the pod of a lease ends, or has ended; null where it has never run. What cannot be read has none.
ALTER TABLE leases ADD COLUMN ends_at INTEGER;
UPDATE leases SET ends_at = CAST(body ->> 'expires_at' AS INTEGER) WHERE json_valid(body);
CREATE INDEX leases_by_end ON leases (ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX leases_by_age ON leases (created_at, id);
