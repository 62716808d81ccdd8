/* otp_gateway 0.6.0 -> 0.7.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

SELECT otp_gateway_internal.require_library('0.7.0');

-- part A
-- end of part A

-- part E
ALTER TABLE otp_gateway_internal.verification_record ADD COLUMN country integer;
COMMENT ON COLUMN otp_gateway_internal.verification_record.country IS
'the calling code of the recipient''s country; null: it is no phone number, or began under 0.6.0';

-- What has been counted: since the server started, in shared memory, by the worker alone, read without asking it; and
-- by hours, in a table. The functions see to it that each role sees its part.
CREATE FUNCTION otp_gateway_internal.stat_attempt_rows() RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_attempt_rows';
COMMENT ON FUNCTION otp_gateway_internal.stat_attempt_rows() IS
'for the view otp_gateway.stat_attempt: an array with an object for each row';

CREATE VIEW otp_gateway.stat_attempt AS
SELECT
    a.provider, a.operation, a.outcome, a.reason, a.attempts, a.total_time,
    pg_catalog.to_timestamp(a.last_at) AS last_at, pg_catalog.to_timestamp(a.stats_reset) AS stats_reset
FROM pg_catalog.jsonb_to_recordset(otp_gateway_internal.stat_attempt_rows()) AS a (
    provider pg_catalog.text, operation pg_catalog.text, outcome pg_catalog.text, reason pg_catalog.text,
    attempts pg_catalog.int8, total_time pg_catalog.float8, last_at pg_catalog.float8, stats_reset pg_catalog.float8
);
COMMENT ON VIEW otp_gateway.stat_attempt IS
'how many attempts ended how, since stats_reset: a row for each provider, operation, outcome and reason that there '
'was. For members of pg_read_all_stats all, for others those of the providers that they own. Where shared memory has '
'no place for a provider (256 in all databases together), its attempts are in one row whose provider is null';
COMMENT ON COLUMN otp_gateway.stat_attempt.provider IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.stat_attempt.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.stat_attempt.outcome IS
'how they ended, in one vocabulary for all vendors; those in flight are not counted yet';
COMMENT ON COLUMN otp_gateway.stat_attempt.reason IS
'the rule that refused them (outcome blocked), or, where the provider''s rules are only observed, would have';
COMMENT ON COLUMN otp_gateway.stat_attempt.attempts IS 'how many';
COMMENT ON COLUMN otp_gateway.stat_attempt.total_time IS
'how long their calls took, in milliseconds, from the record of the intent to the record of the outcome; what was '
'refused without a call, or was found in flight at a start, adds nothing';
COMMENT ON COLUMN otp_gateway.stat_attempt.last_at IS 'when the last of them ended';
COMMENT ON COLUMN otp_gateway.stat_attempt.stats_reset IS
'since when it is counted: the start of the server, or otp_gateway.stat_reset';

CREATE FUNCTION otp_gateway_internal.stat_latency_rows() RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_latency_rows';
COMMENT ON FUNCTION otp_gateway_internal.stat_latency_rows() IS
'for the view otp_gateway.stat_latency: an array with an object for each row';

CREATE VIEW otp_gateway.stat_latency AS
SELECT
    l.provider, l.operation, l.attempts, l.total_time, l.mean_time, l.p50_time, l.p95_time, l.p99_time, l.bounds,
    l.buckets, pg_catalog.to_timestamp(l.stats_reset) AS stats_reset
FROM pg_catalog.jsonb_to_recordset(otp_gateway_internal.stat_latency_rows()) AS l (
    provider pg_catalog.text, operation pg_catalog.text, attempts pg_catalog.int8, total_time pg_catalog.float8,
    mean_time pg_catalog.float8, p50_time pg_catalog.float8, p95_time pg_catalog.float8, p99_time pg_catalog.float8,
    bounds pg_catalog.float8[], buckets pg_catalog.int8[], stats_reset pg_catalog.float8
);
COMMENT ON VIEW otp_gateway.stat_latency IS
'how long calls took, since stats_reset: a row for each provider and operation that there was, for whom '
'otp_gateway.stat_attempt has rows. What was refused without a call, or was found in flight at a start, is not in it';
COMMENT ON COLUMN otp_gateway.stat_latency.provider IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.stat_latency.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.stat_latency.attempts IS 'how many calls';
COMMENT ON COLUMN otp_gateway.stat_latency.total_time IS 'how long all of them took, in milliseconds';
COMMENT ON COLUMN otp_gateway.stat_latency.mean_time IS 'total_time / attempts';
COMMENT ON COLUMN otp_gateway.stat_latency.p50_time IS
'below which half of them took, in milliseconds: estimated from buckets, within the nearest bounds';
COMMENT ON COLUMN otp_gateway.stat_latency.p95_time IS 'the same of 95 of 100';
COMMENT ON COLUMN otp_gateway.stat_latency.p99_time IS 'the same of 99 of 100';
COMMENT ON COLUMN otp_gateway.stat_latency.bounds IS 'milliseconds, ascending';
COMMENT ON COLUMN otp_gateway.stat_latency.buckets IS
'how many took as long as the bound of the same place, or less; the others took longer than the last';
COMMENT ON COLUMN otp_gateway.stat_latency.stats_reset IS 'since when it is counted';

-- No key: a restored dump may bring rows beside those that are there, and a version of a row that many others follow, in
-- the time of a long transaction, is not looked at for each of them.
CREATE TABLE otp_gateway_internal.hourly_record (
    hour timestamptz NOT NULL,
    provider_id bigint NOT NULL,
    role_id bigint NOT NULL,
    route_id bigint NOT NULL,
    country integer NOT NULL,
    counts bigint[] NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX hourly_record_hour_idx ON otp_gateway_internal.hourly_record (hour, provider_id);
ALTER TABLE otp_gateway_internal.hourly_record REPLICA IDENTITY FULL;
ALTER TABLE otp_gateway_internal.hourly_record ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.hourly_record IS
'what the view otp_gateway.stat_hourly shows: of the flows that began in one hour, what became of them; written by the '
'worker in the transaction that puts an attempt''s end on record, kept for 400 days';
COMMENT ON COLUMN otp_gateway_internal.hourly_record.hour IS 'when it began';
COMMENT ON COLUMN otp_gateway_internal.hourly_record.provider_id IS
'of otp_gateway_internal.identity: the foreign server that the attempts went to, or would have';
COMMENT ON COLUMN otp_gateway_internal.hourly_record.role_id IS
'of otp_gateway_internal.identity: the role that began the flows';
COMMENT ON COLUMN otp_gateway_internal.hourly_record.route_id IS
'of otp_gateway_internal.identity: the route that they were asked of; 0: none';
COMMENT ON COLUMN otp_gateway_internal.hourly_record.country IS
'the calling code of the recipients'' country; 0: none is known';
COMMENT ON COLUMN otp_gateway_internal.hourly_record.counts IS
'in the order of src/store/hours.rs; one that a later version adds comes last';
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.hourly_record', '');

CREATE VIEW otp_gateway.stat_hourly WITH (security_barrier) AS
SELECT
    h.hour, p.name AS provider, t.name AS route, c.name::pg_catalog.name AS created_by, shown.*
FROM otp_gateway_internal.hourly_record AS h
LEFT JOIN otp_gateway_internal.identity AS p ON p.id OPERATOR(pg_catalog.=) h.provider_id
LEFT JOIN otp_gateway_internal.identity AS t ON t.id OPERATOR(pg_catalog.=) h.route_id
LEFT JOIN otp_gateway_internal.identity AS c ON c.id OPERATOR(pg_catalog.=) h.role_id
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN h.country OPERATOR(pg_catalog.>) 0 THEN pg_catalog.concat('+', h.country) END AS country,
        h.counts[1] AS sends, h.counts[2] AS sent, h.counts[3] AS unknown,
        h.counts[1] OPERATOR(pg_catalog.-) h.counts[2] OPERATOR(pg_catalog.-) h.counts[3] AS failed,
        h.counts[4] AS blocked, h.counts[5] AS would_block,
        h.counts[2] OPERATOR(pg_catalog.+) h.counts[3] AS billable,
        h.counts[6] AS verifications, h.counts[7] AS converted,
        CASE WHEN h.counts[6] OPERATOR(pg_catalog.>) 0
            THEN (h.counts[7]::pg_catalog.float8 OPERATOR(pg_catalog./) h.counts[6]::pg_catalog.float8)::pg_catalog.float4
        END AS conversion,
        h.counts[8] AS verifies, h.counts[9] AS invalid_codes,
        h.counts[10]::pg_catalog.float8 OPERATOR(pg_catalog./) 1000 AS total_time, h.counts[11:21] AS buckets
) AS shown
WHERE EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_stats' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
    )
    OR h.role_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.id FROM otp_gateway_internal.own_role AS r))
    OR h.provider_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM otp_gateway_internal.own_server AS o))
    OR h.route_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM otp_gateway_internal.own_server AS o));
COMMENT ON VIEW otp_gateway.stat_hourly IS
'of the flows that began in one hour, what became of them: a row for each hour, provider, route, role and country, as '
'soon as an attempt''s end is on record, kept for 400 days, however long the record itself is. WHERE hour >= ... reads '
'it by an index. Test numbers are not counted. For members of pg_read_all_stats all, for others those of the providers '
'that they own and of the roles whose rights they have';
COMMENT ON COLUMN otp_gateway.stat_hourly.hour IS
'when the hour began in which the verifications began, whenever their attempts were';
COMMENT ON COLUMN otp_gateway.stat_hourly.provider IS
'the foreign server that the attempts went to, or would have, as it is called now, or was when it was dropped';
COMMENT ON COLUMN otp_gateway.stat_hourly.route IS 'the route that they were asked of';
COMMENT ON COLUMN otp_gateway.stat_hourly.created_by IS
'the role that began the verifications, as it is called now, or was when it was dropped';
COMMENT ON COLUMN otp_gateway.stat_hourly.country IS
'the calling code of the recipients'' country, as +94; null: no phone number, or one of before 0.7.0';
COMMENT ON COLUMN otp_gateway.stat_hourly.sends IS 'sends and resends, but for those that a rule refused';
COMMENT ON COLUMN otp_gateway.stat_hourly.sent IS 'those of them that ended as sent';
COMMENT ON COLUMN otp_gateway.stat_hourly.unknown IS 'those of them that ended as unknown: they may have been sent';
COMMENT ON COLUMN otp_gateway.stat_hourly.failed IS 'those of them that ended as anything else';
COMMENT ON COLUMN otp_gateway.stat_hourly.blocked IS 'sends and resends that a rule refused';
COMMENT ON COLUMN otp_gateway.stat_hourly.would_block IS
'those of sends that a rule would have refused, were the provider''s rules not only observed';
COMMENT ON COLUMN otp_gateway.stat_hourly.billable IS 'sent + unknown: times your price, what it cost at most';
COMMENT ON COLUMN otp_gateway.stat_hourly.verifications IS
'verifications whose first code was sent, or may have been: without resends';
COMMENT ON COLUMN otp_gateway.stat_hourly.converted IS 'verifications that were sent from here and are approved';
COMMENT ON COLUMN otp_gateway.stat_hourly.conversion IS 'converted / verifications; null where there are none';
COMMENT ON COLUMN otp_gateway.stat_hourly.verifies IS 'codes that were checked, but for those that a rule refused';
COMMENT ON COLUMN otp_gateway.stat_hourly.invalid_codes IS 'those of them that ended as invalid_code';
COMMENT ON COLUMN otp_gateway.stat_hourly.total_time IS
'how long the calls of sends and resends took, in milliseconds, as far as that is known';
COMMENT ON COLUMN otp_gateway.stat_hourly.buckets IS
'how many of those calls took as long as the bound of the same place in otp_gateway.stat_latency, or less';

CREATE FUNCTION otp_gateway.stat_reset(provider text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_reset';
COMMENT ON FUNCTION otp_gateway.stat_reset(text) IS
'Has otp_gateway.stat_attempt, stat_latency, stat_provider and stat_worker count anew: of all providers, or of one. '
'stat_hourly stays as it is. For superusers, and whoever is granted EXECUTE. Errors: 42704 no such provider.';

-- Of what is new: default privileges of whoever runs this may have given any role anything.
DO $$
DECLARE
    new pg_catalog.oid[] := ARRAY[
        'otp_gateway_internal.hourly_record'::pg_catalog.regclass,
        'otp_gateway.stat_attempt'::pg_catalog.regclass,
        'otp_gateway.stat_latency'::pg_catalog.regclass,
        'otp_gateway.stat_hourly'::pg_catalog.regclass
    ];
    given record;
BEGIN
    FOR given IN
        SELECT c.oid::pg_catalog.regclass AS relation, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
        WHERE c.oid OPERATOR(pg_catalog.=) ANY (new) AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TABLE %s FROM %s CASCADE', given.relation, given.grantee);
    END LOOP;
END
$$;
GRANT SELECT ON otp_gateway.stat_attempt, otp_gateway.stat_latency, otp_gateway.stat_hourly TO PUBLIC;
DO $$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN
        SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
        FROM pg_catalog.pg_proc AS p
        CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
        WHERE p.oid OPERATOR(pg_catalog.=) 'otp_gateway.stat_reset(pg_catalog.text)'::pg_catalog.regprocedure
            AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION otp_gateway.stat_reset FROM %s CASCADE', grantee);
    END LOOP;
END
$$;
-- end of part E

-- part F
-- end of part F

-- part G
-- end of part G

-- part M
-- end of part M
