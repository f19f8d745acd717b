-- $1: the message, $2: now, $3: this replica. A live replica holds an advisory lock
-- (1885436263, its id), see postgres.rs.
INSERT INTO seen (id, at, worker, done) VALUES ($1, $2, $3, 0)
ON CONFLICT (id) DO UPDATE SET worker = excluded.worker
WHERE seen.done = 0 AND NOT (
    seen.worker <> excluded.worker AND seen.worker IN (
        SELECT CAST(objid AS BIGINT) FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 1885436263 AND objsubid = 2 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
)
