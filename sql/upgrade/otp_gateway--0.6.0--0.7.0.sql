/* otp_gateway 0.6.0 -> 0.7.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

SELECT otp_gateway_internal.require_library('0.7.0');

-- part A
-- Of a range of numbers (a number without its last six digits) counts alone, and nothing beside a verification: its
-- masked number would then want two digits. Nobody's copy needs them: pg_dump leaves them out.
CREATE TABLE otp_gateway_internal.number_range (
    provider_id bigint NOT NULL,
    range text NOT NULL,
    counted_at timestamptz NOT NULL,
    sends integer[] NOT NULL,
    converted integer[] NOT NULL,
    PRIMARY KEY (provider_id, range)
) WITH (fillfactor = 50);
ALTER TABLE otp_gateway_internal.number_range ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.number_range IS
'what the view otp_gateway.ranges shows: how many codes went to numbers that begin alike, and how many were typed in; '
'written by the worker every few seconds, kept for a day';
COMMENT ON COLUMN otp_gateway_internal.number_range.provider_id IS
'of otp_gateway_internal.identity: the foreign server that they went through';
COMMENT ON COLUMN otp_gateway_internal.number_range.range IS 'how the numbers begin: all but their last six digits';
COMMENT ON COLUMN otp_gateway_internal.number_range.counted_at IS 'when a count changed last';
COMMENT ON COLUMN otp_gateway_internal.number_range.sends IS
'codes that went out, or may have, by the hours of the clock: that of counted_at first, then those before it';
COMMENT ON COLUMN otp_gateway_internal.number_range.converted IS 'how many of these were typed in';

CREATE TABLE otp_gateway_internal.low_conversion (
    provider_id bigint NOT NULL,
    range text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    sends integer NOT NULL,
    converted integer NOT NULL,
    usual double precision NOT NULL,
    percent integer NOT NULL,
    is_enforced boolean NOT NULL,
    blocked bigint NOT NULL,
    passed bigint NOT NULL,
    PRIMARY KEY (provider_id, range)
) WITH (fillfactor = 50);
ALTER TABLE otp_gateway_internal.low_conversion ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.low_conversion IS
'ranges that are held back, or would be, because their codes are not typed in; and providers whose codes are typed in '
'far less often than usual; written by the worker, which keeps the state';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.provider_id IS 'of otp_gateway_internal.identity';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.range IS
'as in otp_gateway_internal.number_range; empty: all that goes through the provider';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.until IS 'then it is over, unless it is written anew';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.sends IS 'the codes by which it was found';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.converted IS 'how many of these were typed in';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.usual IS
'of a range, how many sends of an hour are people''s; of a provider, the share that was typed in before';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.percent IS
'of a range, the share that it fell short of: min_conversion';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.is_enforced IS 'sends are held back; else they would be';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.blocked IS 'sends that were held back since, or would have been';
COMMENT ON COLUMN otp_gateway_internal.low_conversion.passed IS
'sends that were let through since to see whether their codes are typed in';

CREATE VIEW otp_gateway.ranges WITH (security_barrier) AS
SELECT
    i.name AS provider, n.range OPERATOR(pg_catalog.||) '******' AS range, day.sends, day.converted,
    CASE WHEN day.sends OPERATOR(pg_catalog.>) 0
        THEN (day.converted::pg_catalog.float8 OPERATOR(pg_catalog./) day.sends)::pg_catalog.float4 END AS conversion,
    l.since AS tripped_at, l.until, l.is_enforced AS enforced, l.blocked, l.passed, n.counted_at
FROM otp_gateway_internal.number_range AS n
JOIN otp_gateway_internal.identity AS i ON i.id OPERATOR(pg_catalog.=) n.provider_id AND i.object IS NOT NULL
LEFT JOIN otp_gateway_internal.low_conversion AS l ON l.provider_id OPERATOR(pg_catalog.=) n.provider_id
    AND l.range OPERATOR(pg_catalog.=) n.range AND l.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
CROSS JOIN LATERAL (
    -- By the hours of the clock wherever one is: there are time zones of half an hour.
    SELECT coalesce(pg_catalog.sum(h.sends), 0) AS sends, coalesce(pg_catalog.sum(h.converted), 0) AS converted
    FROM ROWS FROM (pg_catalog.unnest(n.sends), pg_catalog.unnest(n.converted)) WITH ORDINALITY
        AS h (sends, converted, hour)
    WHERE h.hour OPERATOR(pg_catalog.<=) (24 OPERATOR(pg_catalog.+) (
        pg_catalog.floor(EXTRACT(epoch FROM n.counted_at) OPERATOR(pg_catalog./) 3600) OPERATOR(pg_catalog.-)
        pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog./) 3600)
    )::pg_catalog.int8)
) AS day
WHERE (day.sends OPERATOR(pg_catalog.>=) 10 OR l.since IS NOT NULL)
    AND (n.provider_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM otp_gateway_internal.own_server AS o) OR EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_stats' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
    ));
COMMENT ON VIEW otp_gateway.ranges IS
'how many codes of the last day went to numbers that begin alike, and how many of them were typed in: of providers '
'that one owns; for members of pg_read_all_stats of all. A range of fewer than 10 sends is not shown. Which ranges '
'the option min_conversion holds back, or would';
COMMENT ON COLUMN otp_gateway.ranges.provider IS 'the foreign server that they went through';
COMMENT ON COLUMN otp_gateway.ranges.range IS 'how the numbers begin; their last six digits are hidden';
COMMENT ON COLUMN otp_gateway.ranges.sends IS 'codes that went out, or may have, in the last 24 hours of the clock';
COMMENT ON COLUMN otp_gateway.ranges.converted IS 'how many of these were typed in';
COMMENT ON COLUMN otp_gateway.ranges.conversion IS 'converted of sends: from 0 to 1';
COMMENT ON COLUMN otp_gateway.ranges.tripped_at IS
'since when sends to it are held back, or would be; null: they are not';
COMMENT ON COLUMN otp_gateway.ranges.until IS 'no longer than until then';
COMMENT ON COLUMN otp_gateway.ranges.enforced IS
'true: they are held back; false: they go, as no min_conversion is set, or enforce is observe';
COMMENT ON COLUMN otp_gateway.ranges.blocked IS 'sends that were held back since, or would have been';
COMMENT ON COLUMN otp_gateway.ranges.passed IS
'sends that were let through since, to see whether their codes are typed in';
COMMENT ON COLUMN otp_gateway.ranges.counted_at IS 'when a count changed last';

CREATE FUNCTION otp_gateway.release(provider text, range text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'release_range';
COMMENT ON FUNCTION otp_gateway.release(text, text) IS
'Opens a range of numbers again that min_conversion holds back, or would: false, if it does not. Its counts begin '
'anew, so that it is held back again if hardly any of the next 50 codes is typed in. range: as otp_gateway.ranges has '
'it, or without the asterisks. For the provider''s owner and superusers. In a transaction of the worker: a rollback '
'takes nothing back. Errors: 42704 no such provider; 42501 not its owner; 22023 no range.';

CREATE OR REPLACE FUNCTION otp_gateway_internal.words(operation text, outcome text, reason text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    -- Of 14 letters at most: a row of otp_gateway.recent has 100 columns.
    SELECT coalesce('{
        "sent": "code sent", "approved": "right code", "canceled": "code is void", "invalid_code": "wrong code",
        "expired": "code too old", "already_used": "used before", "already_registered": "is registered",
        "max_attempts_reached": "no checks left", "not_found": "flow not known", "rate_limited": "vendor''s limit",
        "invalid_request": "payload wrong", "auth_failed": "login refused", "refused": "vendor refused",
        "provider_error": "vendor failed", "unreachable": "no connection", "unknown": "cannot be told",
        "blocked": "flow is over", "sent by resend": "sent again", "in flight": "under way",
        "by allowed_prefixes": "wrong country", "by resend_after": "asked too soon", "by send_limit": "too many codes",
        "by provider_limit": "budget spent", "by min_conversion": "range is held", "by max_checks": "no checks left",
        "by check_limit": "too many tries", "by breaker": "not called now", "by paused": "sends paused",
        "expired before its turn": "never sent"
    }'::pg_catalog.jsonb OPERATOR(pg_catalog.->>) CASE
        WHEN $2 IS NULL THEN 'in flight'
        WHEN $2 OPERATOR(pg_catalog.=) 'expired' AND $1 OPERATOR(pg_catalog.=) 'send' THEN 'expired before its turn'
        WHEN $2 OPERATOR(pg_catalog.=) 'sent' AND $1 OPERATOR(pg_catalog.=) 'resend' THEN 'sent by resend'
        WHEN $2 OPERATOR(pg_catalog.=) 'blocked' AND $3 IS NOT NULL THEN pg_catalog.concat('by ', $3)
        ELSE $2
    END, $2);
END;

COMMENT ON FUNCTION otp_gateway.health() IS
'What is wrong, a row for each check: library, version, paused, key_file, worker, queue, retention, provider (one for '
'each whose breaker has opened), unknown, refusals, conversion and pumping (one for each provider where it is not '
'ok); docs/operations.md has a card for each. Raises no error, asks nobody, waits for no lock and takes milliseconds, '
'however long the record is. level: 0 ok, 1 warning, 2 critical, 3 unknown, could not be looked at. value: of worker '
'and queue the seconds that the oldest waits, of retention those that it is behind, of unknown and refusals their '
'share of the sends, of conversion the share of codes that is typed in, of pumping how many ranges are held back, or '
'would be. since: worker, when it came up, or is stuck; queue, when the oldest was enqueued; provider, since when '
'nothing is sent; unknown and refusals, when the first send began that was looked at; conversion and pumping, when it '
'was found; retention, when the oldest verification on record began. detail, value and since of most are for members '
'of pg_monitor.';

REVOKE ALL ON otp_gateway_internal.number_range, otp_gateway_internal.low_conversion FROM PUBLIC;
-- Of these: default privileges of whoever runs this may have given any role anything.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT c.oid::pg_catalog.regclass AS relation, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
        WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
                'otp_gateway.ranges'::pg_catalog.regclass, 'otp_gateway_internal.number_range'::pg_catalog.regclass,
                'otp_gateway_internal.low_conversion'::pg_catalog.regclass
            ]::pg_catalog.oid[])
            AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TABLE %s FROM %s CASCADE', given.relation, given.grantee);
    END LOOP;
END
$$;
GRANT SELECT ON otp_gateway.ranges TO PUBLIC;
-- end of part A

-- part E
-- end of part E

-- part F
-- end of part F

-- part G
-- end of part G

-- part M
-- end of part M
