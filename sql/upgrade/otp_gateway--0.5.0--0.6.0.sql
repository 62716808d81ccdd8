/* otp_gateway 0.5.0 -> 0.6.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- part A
-- What nobody calls or reads by name moves to a schema of its own, in which no role needs a right: the views read the
-- tables with their owner's rights; and they, triggers and wrappers know functions by OID. Rights, triggers, what is
-- dumped and what depends on what go with it. Whoever made the schema before could name what lies in it.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) 'otp_gateway_internal'
    ) THEN
        RAISE duplicate_schema USING
            MESSAGE = 'otp_gateway: there is a schema otp_gateway_internal already, and the extension makes its own',
            HINT = 'See who made it and what is in it; then ALTER SCHEMA otp_gateway_internal RENAME TO ..., or DROP '
                'it, and try again.';
    END IF;
END
$$;
CREATE SCHEMA otp_gateway_internal;
COMMENT ON SCHEMA otp_gateway_internal IS
'what the extension otp_gateway needs for itself: the tables of the record, their types and triggers, validators';
DO $$
DECLARE
    given record;
BEGIN
    -- Default privileges of whoever runs this may have given any role anything.
    FOR given IN
        SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
        WHERE n.nspname OPERATOR(pg_catalog.=) 'otp_gateway_internal' AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA otp_gateway_internal FROM %s CASCADE', given.grantee);
    END LOOP;
END
$$;
ALTER DOMAIN otp_gateway.status SET SCHEMA otp_gateway_internal;
ALTER DOMAIN otp_gateway.operation SET SCHEMA otp_gateway_internal;
ALTER DOMAIN otp_gateway.outcome SET SCHEMA otp_gateway_internal;
ALTER TABLE otp_gateway.verification_record SET SCHEMA otp_gateway_internal;
ALTER TABLE otp_gateway.attempt_record SET SCHEMA otp_gateway_internal;
ALTER TABLE otp_gateway.reference SET SCHEMA otp_gateway_internal;
ALTER TABLE otp_gateway.identity SET SCHEMA otp_gateway_internal;
ALTER TABLE otp_gateway.breaker SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.note_queued() SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.recognise() SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.effective_settings(oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.recipient_verifications(text, text) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.iserveu_validator(text[], oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.hyperverge_validator(text[], oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.paytm_validator(text[], oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.relid_validator(text[], oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.ideamart_validator(text[], oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.sandbox_validator(text[], oid) SET SCHEMA otp_gateway_internal;
ALTER FUNCTION otp_gateway.route_validator(text[], oid) SET SCHEMA otp_gateway_internal;
COMMENT ON COLUMN otp_gateway_internal.verification_record.provider_id IS
'of otp_gateway_internal.identity: the foreign server that it goes through; for one that is queued for a route, the '
'route';
COMMENT ON COLUMN otp_gateway_internal.verification_record.role_id IS
'of otp_gateway_internal.identity: the role that began it';
COMMENT ON COLUMN otp_gateway_internal.verification_record.route_id IS
'of otp_gateway_internal.identity: the route that it was asked of';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.recipient_key IS
'as in otp_gateway_internal.verification_record: whose limits it counts against; null for a test number''s, which '
'counts for nobody; empty where the recipient was forgotten, which still counts for provider_limit';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.provider_id IS
'of otp_gateway_internal.identity: the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.role_id IS
'of otp_gateway_internal.identity: the role that asked for it';
COMMENT ON COLUMN otp_gateway_internal.reference.provider_id IS 'of otp_gateway_internal.identity';
COMMENT ON FUNCTION otp_gateway_internal.note_queued() IS
'trigger of otp_gateway_internal.verification_record: stamps a queued row with its transaction, and has the commit '
'tell the worker';
COMMENT ON FUNCTION otp_gateway_internal.recognise() IS
'trigger of otp_gateway_internal.identity: finds what a restored dump speaks of by its name; what was dropped before '
'stays nobody''s';

-- By OID, too.
CREATE OR REPLACE FUNCTION otp_gateway.find(provider text, mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
BEGIN ATOMIC
    -- LIMIT is computed before anything is read: so the function is called, and its errors come, also where there is
    -- nothing to compare.
    WITH found AS MATERIALIZED (
        SELECT otp_gateway_internal.recipient_verifications(find.provider, find.mobile) AS ids
    )
    SELECT v.* FROM otp_gateway.verification AS v
    WHERE v.id OPERATOR(pg_catalog.=) ANY ((SELECT f.ids FROM found AS f)::pg_catalog.uuid[])
    ORDER BY v.id DESC
    LIMIT (SELECT pg_catalog.cardinality(f.ids) FROM found AS f);
END;
-- end of part A

-- part D
COMMENT ON COLUMN otp_gateway.provider.source IS
'server, defaults (that option''s members), vendor default, default, user mapping or state';

CREATE FUNCTION otp_gateway_internal.payload_fields() RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'payload_fields';
COMMENT ON FUNCTION otp_gateway_internal.payload_fields() IS
'for the view otp_gateway.payload_field: an array with an object for each row';

CREATE VIEW otp_gateway.payload_field AS
SELECT field.vendor, field.operation, field.field, field.vendor_name, field.required, field.rule, field.example
FROM ROWS FROM (
    pg_catalog.jsonb_to_recordset(otp_gateway_internal.payload_fields()) AS (
        vendor pg_catalog.text, operation pg_catalog.text, field pg_catalog.text, vendor_name pg_catalog.text,
        required pg_catalog.text, rule pg_catalog.text, example pg_catalog.jsonb
    )
) WITH ORDINALITY AS field (vendor, operation, field, vendor_name, required, rule, example, place)
ORDER BY field.place;
COMMENT ON VIEW otp_gateway.payload_field IS
'what a payload takes: the fields of each vendor''s operations, by the tables that payloads are checked by. What is '
'the same for every call of an account may stand in the server option defaults';
COMMENT ON COLUMN otp_gateway.payload_field.vendor IS 'its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.payload_field.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.payload_field.field IS 'the name in a payload, the same for all vendors';
COMMENT ON COLUMN otp_gateway.payload_field.vendor_name IS 'the vendor''s name for it, taken as well';
COMMENT ON COLUMN otp_gateway.payload_field.required IS
'yes; no; or kept: needed, and known from the send, so that only a flow begun elsewhere gives it; with what may stand '
'in its place, and for which variant of the call, where it is not for all';
COMMENT ON COLUMN otp_gateway.payload_field.rule IS 'what may stand in it, in words';
COMMENT ON COLUMN otp_gateway.payload_field.example IS 'a value that follows the rule, as a payload has it';

GRANT SELECT ON otp_gateway.payload_field TO PUBLIC;
CREATE FUNCTION otp_gateway_internal.check_findings(provider text) RETURNS jsonb
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'check_findings';
COMMENT ON FUNCTION otp_gateway_internal.check_findings(text) IS
'for otp_gateway.check: an array with an object for each finding';

CREATE TYPE otp_gateway.finding AS (provider text, item text, status text, detail text, hint text);
COMMENT ON TYPE otp_gateway.finding IS 'a row of otp_gateway.check';
COMMENT ON COLUMN otp_gateway.finding.provider IS 'the foreign server that was looked at; of a route each one';
COMMENT ON COLUMN otp_gateway.finding.item IS 'what was looked at';
COMMENT ON COLUMN otp_gateway.finding.status IS 'ok, warning or error: with an error, no send goes through';
COMMENT ON COLUMN otp_gateway.finding.detail IS 'what was found';
COMMENT ON COLUMN otp_gateway.finding.hint IS 'what to do; null where nothing is to be done';

CREATE FUNCTION otp_gateway.check(provider text) RETURNS SETOF otp_gateway.finding
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE COST 1000
BEGIN ATOMIC
    SELECT f.provider, f.item, coalesce(f.status, s.status), coalesce(s.detail, f.detail), coalesce(f.hint, s.hint)
    FROM ROWS FROM (
        pg_catalog.jsonb_to_recordset(otp_gateway_internal.check_findings($1)) AS (
            provider pg_catalog.text, item pg_catalog.text, status pg_catalog.text, detail pg_catalog.text,
            hint pg_catalog.text
        )
    ) WITH ORDINALITY AS f (provider, item, status, detail, hint, place)
    LEFT JOIN LATERAL (
        SELECT
            CASE WHEN p.value OPERATOR(pg_catalog.=) 'closed' THEN 'ok' ELSE 'warning' END AS status,
            p.value AS detail,
            CASE WHEN p.value OPERATOR(pg_catalog.<>) 'closed' THEN
                'It opened because sends failed several times in a row: otp_gateway.recent shows how.' END AS hint
        FROM otp_gateway.provider AS p
        WHERE p.provider OPERATOR(pg_catalog.=) f.provider AND p.setting OPERATOR(pg_catalog.=) f.item
    ) AS s ON f.status IS NULL
    ORDER BY f.place;
END;
COMMENT ON FUNCTION otp_gateway.check(text) IS
'What stands in the way of a send through a provider, or through each provider of a route, for the current role; one '
'row for each finding. Nothing is sent to the vendor, and nothing is put on record: a connection is made, by the '
'background worker, and given up; that takes twice the option connect_timeout at most. Errors: 42704 no such '
'provider.';

-- It shows what it showed, and does not look up the verification anew for each attempt.
CREATE OR REPLACE VIEW otp_gateway.attempt WITH (security_barrier) AS
WITH home AS (
    SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c
), acts_for AS (
    SELECT i.id FROM otp_gateway_internal.identity AS i
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'role'
        AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(r.oid, 'USAGE')
), owns AS (
    SELECT i.id FROM otp_gateway_internal.identity AS i
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'server'
        AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')
)
SELECT a.id, a.verification_id, shown.*
FROM otp_gateway_internal.attempt_record AS a
LEFT JOIN otp_gateway_internal.identity AS p ON p.id OPERATOR(pg_catalog.=) a.provider_id
LEFT JOIN otp_gateway_internal.verification_record AS v ON v.id OPERATOR(pg_catalog.=) a.verification_id AND (
    v.role_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT f.id FROM acts_for AS f))
    OR v.provider_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM owns AS o))
    OR v.route_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM owns AS o))
    OR EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
    )
)
CROSS JOIN LATERAL (
    SELECT
        a.operation::pg_catalog.text AS operation, a.outcome::pg_catalog.text AS outcome, a.http_status, a.vendor_code,
        a.vendor_message, a.response, a.started_at, a.finished_at, coalesce(p.name, a.provider) AS provider, a.reason
    OFFSET 0
) AS shown
WHERE v.id IS NOT NULL OR a.provider_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM owns AS o));

CREATE FUNCTION otp_gateway_internal.words(operation text, outcome text, reason text) RETURNS text
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
        "by provider_limit": "budget spent", "by max_checks": "no checks left", "by check_limit": "too many tries",
        "by breaker": "vendor is down"
    }'::pg_catalog.jsonb OPERATOR(pg_catalog.->>) CASE
        WHEN $2 IS NULL THEN 'in flight'
        WHEN $2 OPERATOR(pg_catalog.=) 'sent' AND $1 OPERATOR(pg_catalog.=) 'resend' THEN 'sent by resend'
        WHEN $2 OPERATOR(pg_catalog.=) 'blocked' AND $3 IS NOT NULL THEN pg_catalog.concat('by ', $3)
        ELSE $2
    END, $2);
END;
COMMENT ON FUNCTION otp_gateway_internal.words(text, text, text) IS
'for otp_gateway.recent and otp_gateway.history: what happened, in a few words';

CREATE VIEW otp_gateway.recent WITH (security_barrier) AS
-- Not made of the two other views: so the latest rows are read by the index, and no others.
WITH home AS (
    SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c
), acts_for AS (
    SELECT i.id FROM otp_gateway_internal.identity AS i
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'role'
        AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(r.oid, 'USAGE')
), owns AS (
    SELECT i.id FROM otp_gateway_internal.identity AS i
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'server'
        AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')
)
SELECT
    pg_catalog.to_char(a.started_at, 'MM-DD HH24:MI:SS') AS "time",
    coalesce((
        SELECT p.name FROM otp_gateway_internal.identity AS p WHERE p.id OPERATOR(pg_catalog.=) a.provider_id
    ), a.provider) AS provider,
    v.recipient_masked, a.operation::pg_catalog.text AS operation, a.outcome::pg_catalog.text AS outcome,
    otp_gateway_internal.words(a.operation, a.outcome, a.reason) AS words
FROM otp_gateway_internal.attempt_record AS a
LEFT JOIN otp_gateway_internal.verification_record AS v ON v.id OPERATOR(pg_catalog.=) a.verification_id AND (
    v.role_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT f.id FROM acts_for AS f))
    OR v.provider_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM owns AS o))
    OR v.route_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM owns AS o))
    OR EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
    )
)
WHERE v.id IS NOT NULL OR a.provider_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT o.id FROM owns AS o))
ORDER BY a.id DESC;
COMMENT ON VIEW otp_gateway.recent IS
'what otp_gateway.attempt shows, for a look: the newest first, a row of at most 100 columns';
COMMENT ON COLUMN otp_gateway.recent."time" IS
'as text: month, day and time of day in the session''s time zone, when it began; otp_gateway.attempt has started_at';
COMMENT ON COLUMN otp_gateway.recent.provider IS 'the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.recent.recipient_masked IS 'whom the code goes to, as it may be shown';
COMMENT ON COLUMN otp_gateway.recent.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.recent.outcome IS
'how it ended, in one vocabulary for all vendors; null while in flight';
COMMENT ON COLUMN otp_gateway.recent.words IS
'the same in a few words; where outcome is blocked, which rule it was';

GRANT SELECT ON otp_gateway.recent TO PUBLIC;

CREATE FUNCTION otp_gateway_internal.recipient_verifications_anywhere(mobile text) RETURNS uuid[]
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'recipient_verifications_anywhere';
COMMENT ON FUNCTION otp_gateway_internal.recipient_verifications_anywhere(text) IS
'for otp_gateway.find and otp_gateway.history: the same at all providers';

CREATE FUNCTION otp_gateway.find(mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
BEGIN ATOMIC
    -- LIMIT as in the other find.
    WITH found AS MATERIALIZED (
        SELECT otp_gateway_internal.recipient_verifications_anywhere(find.mobile) AS ids
    )
    SELECT v.* FROM otp_gateway.verification AS v
    WHERE v.id OPERATOR(pg_catalog.=) ANY ((SELECT f.ids FROM found AS f)::pg_catalog.uuid[])
    ORDER BY v.id DESC
    LIMIT (SELECT pg_catalog.cardinality(f.ids) FROM found AS f);
END;
COMMENT ON FUNCTION otp_gateway.find(text) IS
'The same at all providers and routes, also those that were dropped. Errors: 22023 no number that any vendor takes.';

CREATE TYPE otp_gateway.event AS (
    "time" timestamptz, provider text, operation text, outcome text, words text, verification_id uuid, vendor_message text
);
COMMENT ON TYPE otp_gateway.event IS 'a row of otp_gateway.history';
COMMENT ON COLUMN otp_gateway.event."time" IS 'when it began, by the clock';
COMMENT ON COLUMN otp_gateway.event.provider IS 'the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.event.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.event.outcome IS 'how it ended; null while queued or in flight';
COMMENT ON COLUMN otp_gateway.event.words IS 'the same in a few words; where outcome is blocked, which rule it was';
COMMENT ON COLUMN otp_gateway.event.verification_id IS 'of otp_gateway.verification';
COMMENT ON COLUMN otp_gateway.event.vendor_message IS 'the vendor''s own words, or why there was no call; redacted';

CREATE FUNCTION otp_gateway.history(mobile text, since timestamptz, until timestamptz) RETURNS SETOF otp_gateway.event
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
BEGIN ATOMIC
    -- LIMIT as in find: more attempts than it says there cannot be.
    WITH found AS MATERIALIZED (
        SELECT otp_gateway_internal.recipient_verifications_anywhere(history.mobile) AS ids
    ), happened AS (
        SELECT
            a.started_at AS began, a.id, a.provider, a.operation, a.outcome,
            otp_gateway_internal.words(a.operation, a.outcome, a.reason) AS words, a.verification_id, a.vendor_message
        FROM otp_gateway.attempt AS a
        WHERE a.verification_id OPERATOR(pg_catalog.=) ANY ((SELECT f.ids FROM found AS f)::pg_catalog.uuid[])
        UNION ALL
        SELECT v.created_at, v.id, v.provider, 'send', NULL, 'waits its turn', v.id, NULL
        FROM otp_gateway.verification AS v
        WHERE v.id OPERATOR(pg_catalog.=) ANY ((SELECT f.ids FROM found AS f)::pg_catalog.uuid[])
            AND v.status OPERATOR(pg_catalog.=) 'queued'
    )
    SELECT h.began, h.provider, h.operation, h.outcome, h.words, h.verification_id, h.vendor_message
    FROM happened AS h
    WHERE h.began OPERATOR(pg_catalog.>=) history.since AND h.began OPERATOR(pg_catalog.<) history.until
    ORDER BY h.began, h.id
    LIMIT (SELECT pg_catalog.cardinality(f.ids) FROM found AS f)::pg_catalog.int8 OPERATOR(pg_catalog.*) 1000000;
END;
COMMENT ON FUNCTION otp_gateway.history(text, timestamptz, timestamptz) IS
'What happened to a number (for REL-ID: to a user id) at all providers, the earliest first: the attempts of the '
'verifications that otp_gateway.find(mobile) shows, and their sends that wait in the queue. since, until: from when, and '
'until before when, ''today'', ''now'' and ''infinity'' too. Errors: 22023 no number that any vendor takes.';
-- end of part D

-- part E
COMMENT ON FUNCTION otp_gateway.send_after_commit() IS
'Row trigger, BEFORE or AFTER INSERT OR UPDATE: enqueues a send for the row. Arguments: the provider; a JSON object '
'that maps payload fields to columns, {"mobile": "phone"}, where a value that begins with = is a constant, '
'{"template_id": "=login"}; for a BEFORE trigger, optionally the uuid column that takes the verification id. What is '
'sent is for the row as COMMIT leaves it. An UPDATE sends only if a mapped column changed, or if that uuid column is set '
'to otp_gateway.send_again(it); set to NULL, or to an older id, by itself it keeps its value, as an ORM writes what it '
'has read before. A NULL in a required field sends nothing; a row that is inserted with a verification id keeps it, and '
'nothing is sent.';
-- end of part E

-- part F
-- end of part F

-- part G
-- end of part G

-- part H
-- end of part H
