-- $1: this replica. A live replica holds an advisory lock (1885436263, its id), see postgres.rs.
UPDATE orders SET worker = $1
WHERE (delivered = 0 OR state NOT IN ('active', 'ended', 'refused', 'refunded')) AND worker <> $1
    AND worker NOT IN (
        SELECT CAST(objid AS BIGINT) FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 1885436263 AND objsubid = 2 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
