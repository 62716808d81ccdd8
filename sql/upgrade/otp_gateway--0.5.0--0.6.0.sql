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
