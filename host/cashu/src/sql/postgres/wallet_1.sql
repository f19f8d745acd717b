CREATE TABLE purse_mints (
    url      TEXT PRIMARY KEY,
    restored BIGINT NOT NULL
);

-- The next place in the seed that was never used.
CREATE TABLE purse_counters (
    keyset TEXT PRIMARY KEY,
    next   BIGINT NOT NULL
);

CREATE TABLE purse_operations (
    id      TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    mint    TEXT NOT NULL,
    state   TEXT NOT NULL,
    at      BIGINT NOT NULL,
    delta   BIGINT NOT NULL,
    body    TEXT NOT NULL
);
CREATE INDEX purse_operations_purpose ON purse_operations (purpose);
CREATE INDEX purse_operations_open ON purse_operations (mint) WHERE state = 'open';

-- `unspent`: ours to spend. `held`: an open operation's. `given`: in a token that was handed out.
CREATE TABLE purse_proofs (
    y      TEXT PRIMARY KEY,
    mint   TEXT NOT NULL,
    amount BIGINT NOT NULL,
    state  TEXT NOT NULL,
    holder TEXT,
    proof  TEXT NOT NULL
);
CREATE INDEX purse_proofs_state ON purse_proofs (mint, state, amount);
CREATE INDEX purse_proofs_holder ON purse_proofs (holder);
