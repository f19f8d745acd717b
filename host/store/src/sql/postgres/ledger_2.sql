ALTER TABLE orders ADD COLUMN earned BIGINT NOT NULL DEFAULT 0;
UPDATE orders SET earned = coalesce(CAST(CAST(body AS json) ->> 'redeemed' AS BIGINT), 0)
    - coalesce(CAST(CAST(body AS json) ->> 'refunded' AS BIGINT), 0) - coalesce(CAST(CAST(body AS json) ->> 'refund_fee' AS BIGINT), 0)
    + coalesce(CAST(CAST(body AS json) -> 'refund_end' ->> 'taken_back' AS BIGINT), 0);
CREATE INDEX orders_unclaimed_by ON orders (customer) WHERE refund_token IS NOT NULL;
CREATE INDEX orders_state ON orders (state);
CREATE INDEX orders_earned ON orders (created_at, earned) WHERE earned <> 0;
