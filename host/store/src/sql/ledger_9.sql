-- The state in which it was last found what counts of an order in its customer's history. Replicas of an earlier version
-- write neither: of what they have written it is another state, or none.
ALTER TABLE orders ADD COLUMN counted_state TEXT;
UPDATE orders SET counted_state = state
    WHERE counted_sat IS NOT NULL OR state IN ('active', 'ended', 'refused', 'refunded');
CREATE INDEX orders_uncounted ON orders (customer)
    WHERE counted_state IS DISTINCT FROM state AND (state <> 'refused' OR counted_sat IS NOT NULL);
