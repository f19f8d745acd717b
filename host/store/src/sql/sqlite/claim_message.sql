-- ?1: the message, ?2: now, ?3: this replica.
INSERT INTO seen (id, at, worker, done) VALUES (?1, ?2, ?3, 0)
ON CONFLICT (id) DO UPDATE SET worker = excluded.worker WHERE seen.done = 0
