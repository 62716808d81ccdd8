/* otp_gateway 0.4.0 -> 0.5.0: the right number, the right meaning. */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- What is text in another encoding is another text, or none, by the time that a vendor or a dump has it.
DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = pg_catalog.format(
                'otp_gateway: the encoding of this database is %s, and must be UTF8', pg_catalog.getdatabaseencoding()),
            HINT = 'Use a database of that encoding: CREATE DATABASE ... TEMPLATE template0 ENCODING ''UTF8''; pg_dump and psql convert what is moved there.';
    END IF;
END
$$;

CREATE FUNCTION otp_gateway.is_approved(verification_id uuid, mobile text, within interval DEFAULT '10 minutes') RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'is_approved';
COMMENT ON FUNCTION otp_gateway.is_approved(uuid, text, interval) IS
'Whether this verification, begun by a role whose rights the caller has, was approved, no longer ago than that, for this very number (for REL-ID: user id), in any spelling. Reads what is on record at the moment of the call, also under REPEATABLE READ and SERIALIZABLE, and after a rollback of the transaction that called otp_verify. False, and no error, for null, for an unknown id and somebody else''s, after otp_gateway.forget, and for a flow begun elsewhere: nobody here knows who got its code. Errors: 22023 within is null or negative.';

CREATE FUNCTION otp_gateway.send_again(verification_id uuid) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'send_again';
COMMENT ON FUNCTION otp_gateway.send_again(uuid) IS
'For a row whose code never left, or is over: UPDATE ... SET verification_id = otp_gateway.send_again(verification_id) has the trigger otp_gateway.send_after_commit send for the row as it is, after COMMIT and under the same limits, and put the new verification''s id into its column. While the verification is open (queued, sending, pending, unknown) its id is returned, and nothing changes: a double click sends one code, and otp_resend sends it again. By itself it sends nothing.';

COMMENT ON FUNCTION otp_gateway.send_after_commit() IS
'Row trigger, BEFORE or AFTER INSERT OR UPDATE: enqueues a send for the row. Arguments: the provider; a JSON object that maps payload fields to columns, {"mobile": "phone"}, where a value that begins with = is a constant, {"template_id": "=login"}; for a BEFORE trigger, optionally the uuid column that takes the verification id. What is sent is for the row as COMMIT leaves it. An UPDATE sends only if a mapped column changed, or if that uuid column is set to otp_gateway.send_again(it); set to NULL by itself it keeps its value. A NULL in a required field sends nothing; a row that is inserted with a verification id keeps it, and nothing is sent.';

-- When waiting helps is said whenever one asks, not only to whoever waits for the decision.
ALTER TABLE otp_gateway.attempt_record ADD COLUMN retry_at timestamptz;
COMMENT ON COLUMN otp_gateway.attempt_record.retry_at IS 'from then on another try may succeed, as the rule that refused or the vendor says';

-- Columns of the views are text, not domains of ours, which whoever imports or reflects them would have to have as well. A
-- column's type cannot be replaced: the views are made anew, and so is what returns their rows.
DO $$
DECLARE
    others text := (
        SELECT pg_catalog.string_agg(DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0), ', ')
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_class AS c ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid OPERATOR(pg_catalog.=) c.oid
            OR d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
            AND d.refobjid OPERATOR(pg_catalog.=) c.reltype
            OR d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.refobjid OPERATOR(pg_catalog.=) 'otp_gateway.find(text, text)'::pg_catalog.regprocedure
        LEFT JOIN pg_catalog.pg_rewrite AS w ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            AND w.oid OPERATOR(pg_catalog.=) d.objid
        WHERE c.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
                'otp_gateway.verification'::pg_catalog.regclass, 'otp_gateway.attempt'::pg_catalog.regclass
            ]::pg_catalog.oid[])
            AND d.deptype OPERATOR(pg_catalog.=) 'n'
            AND NOT coalesce(w.ev_class, d.objid) OPERATOR(pg_catalog.=) ANY (ARRAY[
                'otp_gateway.verification'::pg_catalog.regclass, 'otp_gateway.attempt'::pg_catalog.regclass,
                'otp_gateway.find(text, text)'::pg_catalog.regprocedure
            ]::pg_catalog.oid[])
    );
BEGIN
    IF others IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = pg_catalog.format(
                'otp_gateway: the columns of otp_gateway.verification and otp_gateway.attempt become text, and this stands on them: %s', others),
            HINT = 'Drop it, ALTER EXTENSION otp_gateway UPDATE, and make it anew.';
    END IF;
END
$$;
ALTER FUNCTION otp_gateway.find(text, text) RENAME TO find_before;
ALTER VIEW otp_gateway.attempt RENAME TO attempt_before;
ALTER VIEW otp_gateway.verification RENAME TO verification_before;

-- Who acts for whom is who has their rights, as with all else in Postgres: membership alone (INHERIT FALSE, or ADMIN, which who
-- makes a role has of it) gives none of them.
CREATE VIEW otp_gateway.verification WITH (security_barrier) AS
WITH home AS (
    SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c
), acts_for AS (
    SELECT i.id FROM otp_gateway.identity AS i
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(r.oid, 'USAGE')
), owns AS (
    SELECT i.id FROM otp_gateway.identity AS i
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')
), reads_all AS (
    SELECT FROM pg_catalog.pg_roles AS r
    WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
)
SELECT v.id, shown.*
FROM otp_gateway.verification_record AS v
LEFT JOIN otp_gateway.identity AS p ON p.id OPERATOR(pg_catalog.=) v.provider_id
LEFT JOIN otp_gateway.identity AS c ON c.id OPERATOR(pg_catalog.=) v.role_id
LEFT JOIN otp_gateway.identity AS t ON t.id OPERATOR(pg_catalog.=) v.route_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(p.name, v.provider) AS provider, v.vendor, v.status::pg_catalog.text AS status, v.recipient_masked, v.reference,
        coalesce(c.name::pg_catalog.name, v.created_by) AS created_by, v.created_at, v.expires_at, v.approved_at, v.send_count,
        v.check_count, v.max_checks, v.is_test, coalesce(t.name, v.route) AS route
    OFFSET 0
) AS shown
WHERE v.role_id OPERATOR(pg_catalog.=) ANY (SELECT a.id FROM acts_for AS a)
    OR v.provider_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR v.route_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR EXISTS (SELECT FROM reads_all);

CREATE VIEW otp_gateway.attempt WITH (security_barrier) AS
WITH home AS (
    SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c
), owns AS (
    SELECT i.id FROM otp_gateway.identity AS i
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')
)
SELECT a.id, a.verification_id, shown.*
FROM otp_gateway.attempt_record AS a
LEFT JOIN otp_gateway.identity AS p ON p.id OPERATOR(pg_catalog.=) a.provider_id
CROSS JOIN LATERAL (
    SELECT
        a.operation::pg_catalog.text AS operation, a.outcome::pg_catalog.text AS outcome, a.http_status, a.vendor_code,
        a.vendor_message, a.response, a.started_at, a.finished_at, coalesce(p.name, a.provider) AS provider, a.reason
    OFFSET 0
) AS shown
WHERE a.provider_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR EXISTS (SELECT FROM otp_gateway.verification AS v WHERE v.id OPERATOR(pg_catalog.=) a.verification_id);

CREATE FUNCTION otp_gateway.find(provider text, mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- First, and not in the query: that would leave it out, and its errors with it, where there is nothing to compare.
    ids uuid[] := otp_gateway.recipient_verifications(provider, mobile);
BEGIN
    RETURN QUERY
    SELECT v.* FROM otp_gateway.verification AS v WHERE v.id OPERATOR(pg_catalog.=) ANY (ids) ORDER BY v.id DESC;
END
$$;

-- What was said of the old ones is said of the new ones, and who had which rights on those has them on these: default
-- privileges of whoever runs this may have given other ones.
DO $$
DECLARE
    command text;
BEGIN
    FOR command IN
        WITH made AS (
            SELECT pg_catalog.format('otp_gateway.%I', n.view)::pg_catalog.regclass AS new,
                pg_catalog.format('otp_gateway.%I', n.view OPERATOR(pg_catalog.||) '_before')::pg_catalog.regclass AS old
            FROM pg_catalog.unnest(ARRAY['verification', 'attempt']) AS n (view)
        ), rights AS (
            SELECT pg_catalog.format('TABLE %s', m.new) AS object, n.relowner AS owner, n.relacl AS given, o.relacl AS meant
            FROM made AS m
            JOIN pg_catalog.pg_class AS n ON n.oid OPERATOR(pg_catalog.=) m.new
            JOIN pg_catalog.pg_class AS o ON o.oid OPERATOR(pg_catalog.=) m.old
            UNION ALL
            SELECT 'FUNCTION otp_gateway.find(text, text)', n.proowner,
                coalesce(n.proacl, pg_catalog.acldefault('f', n.proowner)), coalesce(o.proacl, pg_catalog.acldefault('f', o.proowner))
            FROM pg_catalog.pg_proc AS n, pg_catalog.pg_proc AS o
            WHERE n.oid OPERATOR(pg_catalog.=) 'otp_gateway.find(text, text)'::pg_catalog.regprocedure
                AND o.oid OPERATOR(pg_catalog.=) 'otp_gateway.find_before(text, text)'::pg_catalog.regprocedure
        )
        SELECT pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', m.new, a.attname, pg_catalog.col_description(m.old, a.attnum))
        FROM made AS m JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) m.old
        UNION ALL
        SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
        FROM rights AS r CROSS JOIN LATERAL pg_catalog.aclexplode(r.given) AS a WHERE a.grantee OPERATOR(pg_catalog.<>) r.owner
        UNION ALL
        SELECT pg_catalog.format('GRANT %s ON %s TO %s%s', a.privilege_type, r.object,
            CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
            CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
        FROM rights AS r CROSS JOIN LATERAL pg_catalog.aclexplode(r.meant) AS a WHERE a.grantee OPERATOR(pg_catalog.<>) r.owner
    LOOP
        EXECUTE command;
    END LOOP;
END
$$;
DROP FUNCTION otp_gateway.find_before(text, text);
DROP VIEW otp_gateway.attempt_before;
DROP VIEW otp_gateway.verification_before;
COMMENT ON VIEW otp_gateway.verification IS
'one one-time-password flow for one recipient, from the send to its end: those that a role began whose rights one has; for the owner of a provider all of that provider, for members of pg_read_all_data all. A rollback of the caller undoes nothing here';
COMMENT ON VIEW otp_gateway.attempt IS
'one call to a vendor, or one refusal, of the verifications that otp_gateway.verification shows; for the owner of a provider all that went to it';
COMMENT ON FUNCTION otp_gateway.find(text, text) IS
'The verifications of a number (for REL-ID: of a user id) at a provider or route, the newest first, of those that the caller sees in otp_gateway.verification; in any spelling that otp_send takes. The number is not stored. Errors: 42704 no such provider; 22023 no number that it takes.';

CREATE OR REPLACE FUNCTION otp_gateway.wait(
    verification_id uuid, timeout interval DEFAULT '30s',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_wait';

