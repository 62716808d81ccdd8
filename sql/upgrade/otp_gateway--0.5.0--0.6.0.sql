/* otp_gateway 0.5.0 -> 0.6.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- Before the restart the library in memory is still the one of before, which knows nothing of the tables to come. It has
-- no such function; scripts to later versions call it at once.
DO $$
BEGIN
    CREATE FUNCTION otp_gateway.require_library(schema text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'require_library';
EXCEPTION WHEN undefined_function THEN
    RAISE object_not_in_prerequisite_state USING
        MESSAGE = 'otp_gateway: the server runs an older library than 0.6.0 needs',
        HINT = 'Restart the server first, so that it loads the library that is installed; then ALTER EXTENSION '
            'otp_gateway UPDATE.';
END
$$;
SELECT otp_gateway.require_library('0.6.0');

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
-- Which key this database needs: a copy of it that comes without the key file must not begin anew in silence. Both
-- tables may be in a publication, and no row of another database may be in the way of one's own.
CREATE TABLE otp_gateway_internal.sealing_key (
    id text NOT NULL
);
ALTER TABLE otp_gateway_internal.sealing_key REPLICA IDENTITY FULL;
ALTER TABLE otp_gateway_internal.sealing_key ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.sealing_key IS
'the key that otp_gateway.key_file has to hold for this database; written by the worker before it seals. DELETE FROM '
'otp_gateway_internal.sealing_key accepts that the key is lost for good';
COMMENT ON COLUMN otp_gateway_internal.sealing_key.id IS 'what the key is called: no part of it';

-- Where what is queued is sent from. pg_upgrade takes it along, pg_dump does not: the queue of a copy is nobody's to
-- send.
CREATE TABLE otp_gateway_internal.queue_home (
    database oid NOT NULL,
    cluster bigint NOT NULL
);
ALTER TABLE otp_gateway_internal.queue_home REPLICA IDENTITY FULL;
ALTER TABLE otp_gateway_internal.queue_home ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.queue_home IS
'the cluster that queued sends of this database are sealed for: the one that it was made in';
COMMENT ON COLUMN otp_gateway_internal.queue_home.database IS
'the OID of the database: that of a template is another one';
COMMENT ON COLUMN otp_gateway_internal.queue_home.cluster IS 'its system identifier then; pg_upgrade makes a new one';
INSERT INTO otp_gateway_internal.queue_home (database, cluster)
SELECT d.oid, c.system_identifier FROM pg_catalog.pg_database AS d, pg_catalog.pg_control_system() AS c
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.sealing_key', '');

ALTER FUNCTION otp_gateway.require_library(text) SET SCHEMA otp_gateway_internal;
COMMENT ON FUNCTION otp_gateway_internal.require_library(text) IS
'for upgrade scripts: fails where the library in memory is older than the schema that is to come';

CREATE FUNCTION otp_gateway_internal.library_version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'library_version';
COMMENT ON FUNCTION otp_gateway_internal.library_version() IS 'for otp_gateway.version: of what is in memory';

CREATE FUNCTION otp_gateway.version(OUT library text, OUT schema text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT otp_gateway_internal.library_version(), e.extversion
    FROM pg_catalog.pg_extension AS e WHERE e.extname OPERATOR(pg_catalog.=) 'otp_gateway';
END;
COMMENT ON FUNCTION otp_gateway.version() IS
'library: the version of the library that the server has in memory, since its last restart; schema: the version of this '
'database''s tables and functions, which ALTER EXTENSION otp_gateway UPDATE changes. A release that changes no schema '
'has a newer library alone.';

-- Postgres 18 gives NOT NULL a name, after what the table was called when it was made.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT c.oid::pg_catalog.regclass AS relation, k.conname,
            pg_catalog.format('%s_%s_not_null', c.relname, t.attname) AS name
        FROM pg_catalog.pg_constraint AS k
        JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
        JOIN pg_catalog.pg_attribute AS t ON t.attrelid OPERATOR(pg_catalog.=) c.oid
            AND t.attnum OPERATOR(pg_catalog.=) k.conkey[1]
        WHERE k.contype OPERATOR(pg_catalog.=) 'n'
            AND c.relnamespace OPERATOR(pg_catalog.=) 'otp_gateway_internal'::pg_catalog.regnamespace
    LOOP
        IF given.conname::pg_catalog.text OPERATOR(pg_catalog.<>) given.name THEN
            EXECUTE pg_catalog.format(
                'ALTER TABLE %s RENAME CONSTRAINT %I TO %I', given.relation, given.conname, given.name);
        END IF;
    END LOOP;
END
$$;

-- Where the library lies is the server's to say (dynamic_library_path), not that of whoever installed an earlier version.
DO $$
DECLARE
    of_ours oid;
BEGIN
    FOR of_ours IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) p.oid
            AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.deptype OPERATOR(pg_catalog.=) 'e'
        JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
            AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
        WHERE e.extname OPERATOR(pg_catalog.=) 'otp_gateway'
            AND p.probin OPERATOR(pg_catalog.=) '$libdir/otp_gateway'
    LOOP
        EXECUTE pg_catalog.replace(
            pg_catalog.pg_get_functiondef(of_ours), '$libdir/otp_gateway', 'MODULE_PATHNAME');
    END LOOP;
END
$$;

-- Default privileges of whoever runs this may have given any role anything.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT c.oid::pg_catalog.regclass AS relation, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
        WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
                'otp_gateway_internal.sealing_key'::pg_catalog.regclass,
                'otp_gateway_internal.queue_home'::pg_catalog.regclass
            ]::pg_catalog.oid[])
            AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TABLE %s FROM %s CASCADE', given.relation, given.grantee);
    END LOOP;
END
$$;
-- end of part H
