-- Version 0.1.0 moved `next` for refused tokens too, so that forged ones could move it out of a
-- restore's reach, which ends after 2,500 counters without a signature. The next outputs are made
-- where that reach ends, by the operations that are done. Of what a restore has booked there are
-- none: what comes before the first operation is of it, and `next` stays if nothing came after it.
restored AS (
    SELECT counters.keyset, max(restore.at) AS at
    FROM purse_counters AS counters
    LEFT JOIN purse_keysets AS owner ON owner.keyset = counters.keyset
    JOIN purse_operations AS restore
        ON restore.purpose = 'restore' AND restore.mint = coalesce(owner.mint, restore.mint)
    GROUP BY counters.keyset
),
steps AS (
    SELECT keyset, first, max(next) OVER below AS reached
    FROM signed
    WINDOW below AS (
        PARTITION BY keyset ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
gaps AS (
    SELECT keyset, min(first) AS ended_by
    FROM steps
    WHERE first > reached + 2500
        OR (reached IS NULL AND first > 2500 AND keyset NOT IN (SELECT keyset FROM restored))
    GROUP BY keyset
),
reach AS (
    SELECT counters.keyset, coalesce(max(signed.next), 0) AS next
    FROM purse_counters AS counters
    LEFT JOIN gaps ON gaps.keyset = counters.keyset
    LEFT JOIN signed ON signed.keyset = counters.keyset
        AND (gaps.ended_by IS NULL OR signed.first < gaps.ended_by)
    GROUP BY counters.keyset
)
UPDATE purse_counters SET next = reach.next
FROM reach
WHERE reach.keyset = purse_counters.keyset AND reach.next < purse_counters.next
    AND NOT EXISTS (
        SELECT 1 FROM restored
        WHERE restored.keyset = purse_counters.keyset AND restored.at >= coalesce(
            (SELECT max(signed.at) FROM signed WHERE signed.keyset = purse_counters.keyset), 0
        )
    );
