-- The Nostr key with which a lease's pod has written to its customer, as hex; null for most.
ALTER TABLE leases ADD COLUMN pod_key TEXT;
CREATE INDEX leases_by_pod_key ON leases (pod_key) WHERE pod_key IS NOT NULL;
