-- otp_gateway at a glance, again every 2 seconds: psql -f monitoring/overview.sql, as a member of pg_monitor.
-- 80 columns. The latest attempts are those that the role sees: the provider's owner and pg_read_all_data see all.
\set QUIET on
\pset footer off
\pset border 0
\pset null ''
SELECT CASE h.level WHEN 0 THEN '' WHEN 1 THEN 'WARN' WHEN 2 THEN 'CRIT' ELSE '?' END AS "    ",
    rpad(h.name, 9) AS "check", to_char(h.since, 'HH24:MI:SS') AS "since   ", left(h.detail, 55) AS detail
FROM otp_gateway.health() AS h
UNION ALL
SELECT '', '', '', NULL
UNION ALL
(
    SELECT coalesce(right(r.recipient_masked, 4), ''), left(r.operation, 8), right(r."time", 8),
        left(concat_ws('  ', rpad(left(r.provider, 16), 16), rpad(coalesce(r.outcome, ''), 15), r.words), 55)
    FROM otp_gateway.recent AS r LIMIT 10
)
\watch 2
