-- What the pod of a port's lease needs of the cluster; empty for leases of before.
ALTER TABLE ports ADD COLUMN demand TEXT NOT NULL DEFAULT '';
