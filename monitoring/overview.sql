-- otp_gateway on one screen of 80 columns and 24 lines, anew every 2 seconds: what is wrong and what to do, how each
-- provider is, and how the latest calls ended. As a member of pg_monitor:
--     psql -d app -f monitoring/overview.sql
-- Ctrl-C ends it.
\set QUIET on
\pset format unaligned
\pset tuples_only on
\pset pager off
WITH
-- In the order of health(): what comes later may come of what comes first.
checks AS MATERIALIZED (
    SELECT *, min(ordinality) OVER (PARTITION BY name) AS place FROM otp_gateway.health() WITH ORDINALITY
),
ranked AS (
    SELECT *, row_number() OVER (ORDER BY level = 2 DESC, level DESC, place, since DESC) AS rank FROM checks WHERE level > 0
),
-- The words of a check, and below them those of its hint, where it is the first with that: broken where a line ends.
trouble AS (
    SELECT 1000 * rank + number AS place, concat(rpad(CASE number WHEN 1 THEN head ELSE '' END, 25), words) AS line
    FROM (
        SELECT rank, detail, CASE row_number() OVER (PARTITION BY name, hint ORDER BY rank) WHEN 1 THEN hint END AS hint,
            concat_ws(' ', (ARRAY['WARN', 'CRIT', '  ? '])[level], rpad(name, 10), to_char(since, 'HH24:MI:SS')) AS head
        FROM ranked
    ) AS c
    CROSS JOIN LATERAL (
        SELECT row_number() OVER () AS number, words FROM (
            (SELECT broken[1] AS words FROM regexp_matches(detail, '(.{1,55})(?:\s+|$)', 'g') AS broken LIMIT 3)
            UNION ALL
            (SELECT concat(CASE n WHEN 1 THEN 'Do: ' ELSE '    ' END, broken[1])
                FROM regexp_matches(hint, '(.{1,51})(?:\s+|$)', 'g') WITH ORDINALITY AS h (broken, n) LIMIT 3)
        ) AS texts
    ) AS b
),
providers AS (
    SELECT *, row_number() OVER (
        ORDER BY breaker IS NOT DISTINCT FROM 'open' DESC, queued + parked DESC, last_failure_at DESC NULLS LAST, provider
    ) AS rank FROM otp_gateway.stat_provider
),
lines (part, place, line) AS (
    SELECT 1, 0, concat(
        -- The cursor to the upper left, and the screen emptied.
        E'\033[H\033[J', rpad(concat('otp_gateway ', v.library, ', database ', current_database()), 56), '  ',
        to_char(now(), 'YYYY-MM-DD HH24:MI:SSOF')
    ) FROM otp_gateway.version() AS v
    UNION ALL
    (SELECT 2, place, line FROM trouble ORDER BY place LIMIT 8)
    UNION ALL
    SELECT 3, 0, CASE
        WHEN (SELECT count(*) FROM trouble) > 8 THEN ' ...  and more: SELECT * FROM otp_gateway.health() WHERE level > 0'
        WHEN bool_or(level > 0) THEN concat('  ok  the ', count(*) FILTER (WHERE level = 0), ' other checks')
        ELSE concat('  ok  all ', count(*), ' checks')
    END FROM checks
    UNION ALL
    VALUES (4, 0, ''), (4, 1, 'PROVIDER        QUEUED OLDEST PARKED IN FLIGHT LIMIT  BREAKER, LAST FAILURE')
    UNION ALL
    (
        SELECT 5, 3 * rank + part, CASE part
            WHEN 0 THEN concat(
                rpad(provider, 15), lpad(queued::text, 7),
                lpad(coalesce(extract(epoch FROM now() - oldest_queued_at)::integer || 's', ''), 7), lpad(parked::text, 7),
                lpad(coalesce(in_flight || '/' || max_in_flight, ''), 10),
                lpad(coalesce(round(100 * limit_used) || '%', '-'), 6), CASE breaker WHEN 'open' THEN '  OPEN ' ELSE '       ' END,
                to_char(last_failure_at, 'HH24:MI '), left(last_failure_outcome, 15)
            )
            ELSE concat('  ', words)
        END
        FROM providers
        CROSS JOIN LATERAL (
            SELECT 0 AS part, NULL AS words
            UNION ALL
            (SELECT n, broken[1] FROM regexp_matches(concat(
                consecutive_failures, ' failures in a row since ', to_char(failing_since, 'HH24:MI:SS'), ': ',
                concat_ws(' ', last_vendor_code, last_vendor_message)
            ), '(.{1,78})(?:\s+|$)', 'g') WITH ORDINALITY AS w (broken, n) WHERE failing_since IS NOT NULL LIMIT 2)
        ) AS parts
        ORDER BY 2 LIMIT 6
    )
    UNION ALL
    VALUES (6, 0, ''), (6, 1, 'LATEST    PROVIDER            CALL    OUTCOME          RULE            ATTEMPTS')
    UNION ALL
    (
        SELECT 7, row_number() OVER (ORDER BY last_at DESC), concat(
            to_char(last_at, 'HH24:MI:SS'), '  ', rpad(coalesce(provider, 'others'), 18), '  ', rpad(operation, 8),
            rpad(outcome, 16), ' ', rpad(coalesce(reason, ''), 15), lpad(attempts::text, 9)
        )
        FROM otp_gateway.stat_attempt ORDER BY 2 LIMIT 16
    )
)
SELECT line FROM lines ORDER BY part, place LIMIT 23
\watch 2
