-- Which mint a keyset is of: secrets are derived from the keyset alone. `rival`: a second mint has
-- listed it before it was known whose it is, and neither may use it.
CREATE TABLE purse_keysets (
    keyset TEXT PRIMARY KEY,
    mint   TEXT NOT NULL,
    rival  TEXT
) STRICT;

-- Keysets in use are their users': of what was done first, else of most money.
INSERT INTO purse_keysets (keyset, mint)
SELECT body ->> 'keyset', mint FROM purse_operations
WHERE state <> 'failed' AND body ->> 'keyset' IS NOT NULL
ORDER BY state <> 'done', at, id
ON CONFLICT (keyset) DO NOTHING;

INSERT INTO purse_keysets (keyset, mint)
SELECT proof ->> 'id', mint FROM purse_proofs
WHERE proof ->> 'id' IS NOT NULL
GROUP BY proof ->> 'id', mint ORDER BY sum(amount) DESC
ON CONFLICT (keyset) DO NOTHING;
