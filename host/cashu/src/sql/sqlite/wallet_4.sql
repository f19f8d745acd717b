-- What operations that are done have had signed. The rest is `wallet_4_rest.sql`.
WITH signed AS (
    SELECT body ->> 'keyset' AS keyset, at, body ->> 'start' AS first,
        (body ->> 'start') + json_array_length(body, '$.amounts') AS next
    FROM purse_operations
    WHERE state = 'done' AND body ->> 'keyset' IS NOT NULL
),
