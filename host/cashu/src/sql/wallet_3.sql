-- Failed operations that changed no balance: as many as there is need of are kept, the newest.
CREATE INDEX purse_operations_failed ON purse_operations (at, id)
    WHERE state = 'failed' AND delta = 0;
