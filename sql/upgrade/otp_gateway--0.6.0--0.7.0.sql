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

CREATE FUNCTION otp_gateway_internal.stat_provider_rows() RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_provider_rows';
COMMENT ON FUNCTION otp_gateway_internal.stat_provider_rows() IS
'for the view otp_gateway.stat_provider: an array with an object for each row';

CREATE VIEW otp_gateway.stat_provider AS
SELECT
    p.provider, p.vendor, p.in_flight, p.max_in_flight, p.queued, p.parked,
    pg_catalog.to_timestamp(p.oldest_queued_at) AS oldest_queued_at, p.breaker,
    pg_catalog.to_timestamp(p.breaker_open_until) AS breaker_open_until,
    pg_catalog.to_timestamp(p.failing_since) AS failing_since, p.consecutive_failures,
    pg_catalog.to_timestamp(p.last_success_at) AS last_success_at,
    pg_catalog.to_timestamp(p.last_failure_at) AS last_failure_at, p.last_failure_outcome, p.last_vendor_code,
    p.last_vendor_message, p.limit_used, pg_catalog.to_timestamp(p.certificate_ends_at) AS certificate_ends_at,
    p.verifications, p.converted, pg_catalog.to_timestamp(p.stats_reset) AS stats_reset
FROM pg_catalog.jsonb_to_recordset(otp_gateway_internal.stat_provider_rows()) AS p (
    provider pg_catalog.text, vendor pg_catalog.text, in_flight pg_catalog.int4, max_in_flight pg_catalog.int4,
    queued pg_catalog.int4, parked pg_catalog.int4, oldest_queued_at pg_catalog.float8, breaker pg_catalog.text,
    breaker_open_until pg_catalog.float8, failing_since pg_catalog.float8, consecutive_failures pg_catalog.int8,
    last_success_at pg_catalog.float8, last_failure_at pg_catalog.float8, last_failure_outcome pg_catalog.text,
    last_vendor_code pg_catalog.text, last_vendor_message pg_catalog.text, limit_used pg_catalog.float4,
    certificate_ends_at pg_catalog.float8, verifications pg_catalog.int8, converted pg_catalog.int8,
    stats_reset pg_catalog.float8
);
COMMENT ON VIEW otp_gateway.stat_provider IS
'how it is with each provider and route of this database now: what is under way and queued, as its worker says, and how '
'the latest calls went. For members of pg_read_all_stats all, for others the providers and routes that they own';
COMMENT ON COLUMN otp_gateway.stat_provider.provider IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.stat_provider.vendor IS 'the dialect, or route; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.stat_provider.in_flight IS
'calls under way, those included that wait for one of max_in_flight places; null for a route';
COMMENT ON COLUMN otp_gateway.stat_provider.max_in_flight IS 'the server option; null for a route';
COMMENT ON COLUMN otp_gateway.stat_provider.queued IS 'queued sends that may go as soon as there is room';
COMMENT ON COLUMN otp_gateway.stat_provider.parked IS
'queued sends that wait for another try, for the breaker or for the end of a pause';
COMMENT ON COLUMN otp_gateway.stat_provider.oldest_queued_at IS
'when the oldest of those that may go was enqueued';
COMMENT ON COLUMN otp_gateway.stat_provider.breaker IS
'closed; open: nothing is sent; half_open: the next send is a probe. Of several accounts the worst. null for a route, '
'and while somebody has the record locked';
COMMENT ON COLUMN otp_gateway.stat_provider.breaker_open_until IS 'when the next single send is let through';
COMMENT ON COLUMN otp_gateway.stat_provider.failing_since IS
'when the first of the failures in a row ended: unreachable, unknown, provider_error, auth_failed; null: the last call '
'went well';
COMMENT ON COLUMN otp_gateway.stat_provider.consecutive_failures IS 'how many failures in a row there were';
COMMENT ON COLUMN otp_gateway.stat_provider.last_success_at IS
'when the last call ended that shows that the vendor works: a wrong code is one';
COMMENT ON COLUMN otp_gateway.stat_provider.last_failure_at IS 'when the last failure ended';
COMMENT ON COLUMN otp_gateway.stat_provider.last_failure_outcome IS 'how that one ended';
COMMENT ON COLUMN otp_gateway.stat_provider.last_vendor_code IS 'the code in the vendor''s own answer to it';
COMMENT ON COLUMN otp_gateway.stat_provider.last_vendor_message IS
'the beginning of the vendor''s own words, or the gateway''s where it must say why; redacted';
COMMENT ON COLUMN otp_gateway.stat_provider.limit_used IS
'how much of provider_limit is used, of its tightest window, 1 being all; null: there is none, or nothing has been '
'sent since the worker began';
COMMENT ON COLUMN otp_gateway.stat_provider.certificate_ends_at IS
'until when the certificate of the host is valid that answered last, as its TLS handshake said; null: it was not seen, '
'or there is none';
COMMENT ON COLUMN otp_gateway.stat_provider.verifications IS
'how many verifications it sent a code for (sent, unknown) since stats_reset; what is sent again counts once';
COMMENT ON COLUMN otp_gateway.stat_provider.converted IS
'how many of its codes were typed in since stats_reset; without those sent elsewhere, as in otp_gateway.stat_hourly';
COMMENT ON COLUMN otp_gateway.stat_provider.stats_reset IS
'since when it is counted; null: nothing was';

CREATE FUNCTION otp_gateway_internal.stat_worker_rows() RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_worker_rows';
COMMENT ON FUNCTION otp_gateway_internal.stat_worker_rows() IS
'for the view otp_gateway.stat_worker: an array with an object for each row';

CREATE VIEW otp_gateway.stat_worker AS
SELECT
    w.datid, w.datname, w.pid, w.state, w.detail, w.library_version, w.schema_version,
    pg_catalog.to_timestamp(w.backend_start) AS backend_start,
    pg_catalog.to_timestamp(w.last_commit_at) AS last_commit_at, w.waiting,
    pg_catalog.to_timestamp(w.waiting_since) AS waiting_since, w.in_flight, w.unrecorded, w.starts, w.recovered,
    pg_catalog.to_timestamp(w.oldest_kept_at) AS oldest_kept_at,
    pg_catalog.to_timestamp(w.purge_due_at) AS purge_due_at, w.chore, w.chore_done,
    pg_catalog.to_timestamp(w.chore_since) AS chore_since, pg_catalog.to_timestamp(w.stats_reset) AS stats_reset
FROM pg_catalog.jsonb_to_recordset(otp_gateway_internal.stat_worker_rows()) AS w (
    datid pg_catalog.oid, datname pg_catalog.name, pid pg_catalog.int4, state pg_catalog.text, detail pg_catalog.text,
    library_version pg_catalog.text, schema_version pg_catalog.text, backend_start pg_catalog.float8,
    last_commit_at pg_catalog.float8, waiting pg_catalog.int4, waiting_since pg_catalog.float8,
    in_flight pg_catalog.int4, unrecorded pg_catalog.int4, starts pg_catalog.int8, recovered pg_catalog.int8,
    oldest_kept_at pg_catalog.float8, purge_due_at pg_catalog.float8, chore pg_catalog.text,
    chore_done pg_catalog.int8, chore_since pg_catalog.float8, stats_reset pg_catalog.float8
);
COMMENT ON VIEW otp_gateway.stat_worker IS
'a row for each database of the server that has a worker, or has had one since the server started; on a standby there '
'are none. For members of pg_read_all_stats all, for the owner of the database its own';
COMMENT ON COLUMN otp_gateway.stat_worker.datid IS 'the OID of the database';
COMMENT ON COLUMN otp_gateway.stat_worker.datname IS 'its name';
COMMENT ON COLUMN otp_gateway.stat_worker.pid IS 'of the worker, as in pg_stat_activity';
COMMENT ON COLUMN otp_gateway.stat_worker.state IS
'starting, running or leaving; none: none is needed now; no_place: there is no room for it; crashed: it has died, and is '
'started anew';
COMMENT ON COLUMN otp_gateway.stat_worker.detail IS 'why, of no_place and crashed';
COMMENT ON COLUMN otp_gateway.stat_worker.library_version IS 'of the library in memory';
COMMENT ON COLUMN otp_gateway.stat_worker.schema_version IS
'of the tables that the worker works with; null: there is no worker';
COMMENT ON COLUMN otp_gateway.stat_worker.backend_start IS 'when the worker came up';
COMMENT ON COLUMN otp_gateway.stat_worker.last_commit_at IS 'when it last ended a transaction well';
COMMENT ON COLUMN otp_gateway.stat_worker.waiting IS 'calls that it has not taken up yet';
COMMENT ON COLUMN otp_gateway.stat_worker.waiting_since IS 'since when the first of them waits';
COMMENT ON COLUMN otp_gateway.stat_worker.in_flight IS 'calls to vendors that are under way, or end just now';
COMMENT ON COLUMN otp_gateway.stat_worker.unrecorded IS
'calls that have ended, and whose end a lock or a full disk keeps from the record';
COMMENT ON COLUMN otp_gateway.stat_worker.starts IS 'how often a worker has begun since stats_reset';
COMMENT ON COLUMN otp_gateway.stat_worker.recovered IS
'attempts that became unknown since then because a worker before, or the server, left them in flight';
COMMENT ON COLUMN otp_gateway.stat_worker.oldest_kept_at IS
'when the oldest verification on record began, as far as it was looked at';
COMMENT ON COLUMN otp_gateway.stat_worker.purge_due_at IS 'when that one is to be deleted';
COMMENT ON COLUMN otp_gateway.stat_worker.chore IS
'what takes long and is done in parts between calls: recovery, reading the queue, reading seals, purge, forget, '
'resealing; null: none of it';
COMMENT ON COLUMN otp_gateway.stat_worker.chore_done IS 'how many rows it has looked at, deleted or changed so far';
COMMENT ON COLUMN otp_gateway.stat_worker.chore_since IS 'when it began with that';
COMMENT ON COLUMN otp_gateway.stat_worker.stats_reset IS 'since when starts and recovered are counted';

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
        h.counts[7] AS sends, h.counts[8] AS sent, h.counts[1] AS unknown,
        h.counts[7] OPERATOR(pg_catalog.-) h.counts[8] OPERATOR(pg_catalog.-) h.counts[1] AS failed,
        h.counts[2] AS blocked, h.counts[3] AS would_block,
        h.counts[8] OPERATOR(pg_catalog.+) h.counts[1] AS billable,
        h.counts[9] AS verifications, h.counts[6] AS converted,
        CASE WHEN h.counts[9] OPERATOR(pg_catalog.>) 0
            THEN (h.counts[6]::pg_catalog.float8 OPERATOR(pg_catalog./) h.counts[9]::pg_catalog.float8)::pg_catalog.float4
        END AS conversion,
        h.counts[5] AS verifies, h.counts[4] AS invalid_codes,
        h.counts[10]::pg_catalog.float8 OPERATOR(pg_catalog./) 1000 AS total_time,
        ARRAY(
            SELECT pg_catalog.sum(b.sends) OVER (ORDER BY b.place)
            FROM pg_catalog.unnest(h.counts[11:21]) WITH ORDINALITY AS b (sends, place) ORDER BY b.place
        )::pg_catalog.int8[] AS buckets
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
        'otp_gateway.stat_provider'::pg_catalog.regclass,
        'otp_gateway.stat_worker'::pg_catalog.regclass,
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
GRANT SELECT ON otp_gateway.stat_attempt, otp_gateway.stat_latency, otp_gateway.stat_provider,
    otp_gateway.stat_worker, otp_gateway.stat_hourly TO PUBLIC;
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
COMMENT ON FUNCTION otp_gateway.health() IS
'What is wrong, a row for each check: library, version, paused, key_file, worker, queue, retention, certificate (one '
'for each that ends soon), provider (one for each whose breaker has opened), unknown, refusals, conversion and '
'pumping (one for each provider where it is not ok); docs/operations.md has a card for each. Raises no error, asks '
'nobody, waits for no lock and takes milliseconds, however long the record is. level: 0 ok, 1 warning, 2 critical, 3 '
'unknown, could not be looked at. value: of worker and queue the seconds that the oldest waits, of retention those '
'that it is behind, of certificate those that the nearest is valid, of unknown and refusals their share of the '
'sends, of conversion the share of codes that is typed in, of pumping how many ranges are held back, or would be. '
'since: worker, when it came up, or is stuck; queue, when the oldest was enqueued; provider, since when nothing is '
'sent; unknown and refusals, when the first send began that was looked at; conversion and pumping, when it was '
'found; retention, when the oldest verification on record began. detail, value and since of most are for members of '
'pg_monitor.';
-- end of part E

-- part F
CREATE FUNCTION otp_gateway.channel(role text DEFAULT CURRENT_USER) RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'notification_channel';
COMMENT ON FUNCTION otp_gateway.channel(text) IS
'The channel on which, with otp_gateway.notify, each change of status of the verifications is announced that this role '
'began: LISTEN to it. Nobody can guess its name, and only who has the role''s rights is told it. Ask at each connect: a '
'new key in otp_gateway.key_file gives it another, and the one before is served while the old key is in the file. '
'Errors: 42704 no such role, 42501 not one whose rights the caller has.';
-- end of part F

-- part G
-- Pages that are there stay as they are: nothing is written anew, and nobody waits.
ALTER TABLE otp_gateway_internal.verification_record SET (fillfactor = 40, toast_tuple_target = 8160);
ALTER TABLE otp_gateway_internal.attempt_record SET (fillfactor = 33);

-- What servers and roles are called is in otp_gateway_internal.identity: each row need not say so once more.
ALTER TABLE otp_gateway_internal.verification_record ALTER COLUMN created_by DROP NOT NULL;
ALTER TABLE otp_gateway_internal.reference ALTER COLUMN provider DROP NOT NULL;
COMMENT ON COLUMN otp_gateway_internal.verification_record.created_by IS
'of one that began before 0.7.0, what the role was called then: role_id says which it is';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.provider IS
'of one that began before 0.7.0, what the foreign server was called then: provider_id says which it is';
COMMENT ON TABLE otp_gateway_internal.reference IS
'every reference by which a verification may be found; none of a vendor whose verifies are found by the recipient alone';
COMMENT ON COLUMN otp_gateway_internal.reference.provider IS
'of one from before 0.7.0, what the foreign server was called then: provider_id says which it is';

-- A look-up by number reads its rows itself.
-- VOLATILE: the planner calls what is STABLE, to see how many rows there will be.
CREATE FUNCTION otp_gateway_internal.found_verifications(provider text, mobile text) RETURNS otp_gateway.verification[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'found_verifications';
COMMENT ON FUNCTION otp_gateway_internal.found_verifications(text, text) IS
'for otp_gateway.find: the verifications of a number that the caller may see, as otp_gateway.verification shows them';

CREATE OR REPLACE FUNCTION otp_gateway.find(provider text, mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    -- Not STRICT: so Postgres puts it into the query that calls it, and plans no query of its own.
    SELECT v.* FROM pg_catalog.unnest(otp_gateway_internal.found_verifications(find.provider, find.mobile)) AS v;
END;
CREATE FUNCTION otp_gateway_internal.found_verifications_anywhere(mobile text) RETURNS otp_gateway.verification[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'found_verifications_anywhere';
COMMENT ON FUNCTION otp_gateway_internal.found_verifications_anywhere(text) IS
'for otp_gateway.find: the same at all providers';

CREATE OR REPLACE FUNCTION otp_gateway.find(mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT v.* FROM pg_catalog.unnest(otp_gateway_internal.found_verifications_anywhere(find.mobile)) AS v;
END;

DROP FUNCTION otp_gateway_internal.recipient_verifications(text, text);
COMMENT ON FUNCTION otp_gateway_internal.recipient_verifications_anywhere(text) IS
'for otp_gateway.history: the ids of the verifications of a number that the caller may see, at all providers';
-- end of part G

-- part M
-- end of part M
