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
    SELECT CASE WHEN p.consecutive_failures > 0 THEN 'FAIL' ELSE '' END, rpad(left(p.provider, 9), 9),
        to_char(p.failing_since, 'HH24:MI:SS'),
        left(concat_ws('  ', concat(p.in_flight, '/', p.max_in_flight, ' in flight'),
            concat(p.queued, '+', p.parked, ' queued'), nullif(concat(nullif(p.consecutive_failures, 0), ' failed'), ' failed'),
            concat('95 % within ', round(l.p95_time), ' ms')), 55)
    FROM otp_gateway.stat_provider AS p
    LEFT JOIN otp_gateway.stat_latency AS l ON l.provider = p.provider AND l.operation = 'send'
    WHERE p.stats_reset IS NOT NULL ORDER BY p.consecutive_failures DESC, p.provider LIMIT 8
)
UNION ALL
SELECT '', '', '', NULL
UNION ALL
(
    SELECT coalesce(right(r.recipient_masked, 4), ''), left(r.operation, 8), right(r."time", 8),
        left(concat_ws('  ', rpad(left(r.provider, 16), 16), rpad(coalesce(r.outcome, ''), 15), r.words), 55)
    FROM otp_gateway.recent AS r LIMIT 10
)
\watch 2
