CREATE TABLE orders (
    id           TEXT PRIMARY KEY,
    message      TEXT NOT NULL UNIQUE,
    customer     TEXT NOT NULL,
    lease        TEXT,
    state        TEXT NOT NULL,
    delivered    BIGINT NOT NULL DEFAULT 0,
    created_at   BIGINT NOT NULL,
    worker       BIGINT NOT NULL,
    body         TEXT NOT NULL,
    token        TEXT,
    password     TEXT,
    refund_token TEXT
);
CREATE INDEX orders_unfinished ON orders (created_at)
    WHERE delivered = 0 OR state NOT IN ('active', 'ended', 'refused', 'refunded');
CREATE INDEX orders_unclaimed ON orders (created_at) WHERE refund_token IS NOT NULL;
CREATE INDEX orders_lease ON orders (lease);
CREATE INDEX orders_by_age ON orders (created_at, id);

-- A proof pays for one order, whatever the transport, message or pod.
CREATE TABLE proofs (
    y        TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders (id)
);
CREATE INDEX proofs_order ON proofs (order_id);

CREATE TABLE leases (
    id         TEXT PRIMARY KEY,
    pod        TEXT NOT NULL UNIQUE,
    customer   TEXT NOT NULL,
    state      TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    body       TEXT NOT NULL
);
CREATE INDEX leases_live ON leases (customer, created_at) WHERE state <> 'ended';

CREATE TABLE ports (
    port  BIGINT PRIMARY KEY,
    lease TEXT NOT NULL UNIQUE
);

-- Incoming messages: the replica that has claimed it, and whether it is completed.
CREATE TABLE seen (
    id     TEXT PRIMARY KEY,
    at     BIGINT NOT NULL,
    worker BIGINT NOT NULL,
    done   BIGINT NOT NULL
);
CREATE INDEX seen_at ON seen (at);

CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
