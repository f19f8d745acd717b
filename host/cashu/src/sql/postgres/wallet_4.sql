-- What operations that are done have had signed. The rest is `wallet_4_rest.sql`.
WITH signed AS (
    SELECT body::jsonb ->> 'keyset' AS keyset, at, (body::jsonb ->> 'start')::bigint AS first,
        (body::jsonb ->> 'start')::bigint + jsonb_array_length(body::jsonb -> 'amounts') AS next
    FROM purse_operations
    WHERE state = 'done' AND body::jsonb ->> 'keyset' IS NOT NULL
),
