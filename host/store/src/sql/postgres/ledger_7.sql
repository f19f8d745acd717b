-- What counts of an order in its customer's history: sat and seconds, less what was refunded; null if it does not.
-- One that is still to be decided has no seconds yet.
ALTER TABLE orders ADD COLUMN counted_sat BIGINT;
ALTER TABLE orders ADD COLUMN counted_seconds BIGINT;
UPDATE orders SET counted_sat = earned, counted_seconds = coalesce(
        CAST(substring(body from '"grant":\{"seconds":([0-9]{1,15})') AS BIGINT), 0)
    WHERE customer <> '' AND earned > 0 AND state IN ('paid', 'provisioning', 'active', 'ended', 'refunded');
CREATE INDEX orders_counted ON orders (customer, created_at, id, counted_sat, counted_seconds)
    WHERE counted_sat IS NOT NULL;
