ALTER TABLE orders ADD COLUMN earned INTEGER NOT NULL DEFAULT 0;
UPDATE orders SET earned = coalesce(CAST(body ->> 'redeemed' AS INTEGER), 0)
    - coalesce(CAST(body ->> 'refunded' AS INTEGER), 0) - coalesce(CAST(body ->> 'refund_fee' AS INTEGER), 0)
    + coalesce(CAST(body -> 'refund_end' ->> 'taken_back' AS INTEGER), 0);
CREATE INDEX orders_unclaimed_by ON orders (customer) WHERE refund_token IS NOT NULL;
CREATE INDEX orders_state ON orders (state);
CREATE INDEX orders_earned ON orders (created_at, earned) WHERE earned <> 0;
