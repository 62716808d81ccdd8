/* otp_gateway 0.3.0 -> 0.4.0: rows belong to servers and roles, whatever these are called; rights that nobody meant to give. */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- Whose a row is. A name is free again after a rename or a drop; what a row points to here is nobody else's. The OID holds in
-- the cluster that wrote it: a restored dump finds its servers and roles by name, once.
CREATE TABLE otp_gateway.identity (
    id bigint PRIMARY KEY,
    kind text NOT NULL,
    object oid,
    home bigint NOT NULL,
    name text NOT NULL,
    vendor text
);
CREATE INDEX identity_object_idx ON otp_gateway.identity (object);
COMMENT ON TABLE otp_gateway.identity IS
'the foreign servers and roles that the record speaks of, each under a number of its own; written by the worker';
COMMENT ON COLUMN otp_gateway.identity.id IS 'drawn by lot, so that rows of two databases can be brought together';
COMMENT ON COLUMN otp_gateway.identity.kind IS 'server or role';
COMMENT ON COLUMN otp_gateway.identity.object IS 'its OID; null: it was dropped, and no other takes its place';
COMMENT ON COLUMN otp_gateway.identity.home IS 'the system identifier of the cluster in which the OID holds; elsewhere the name is looked up, once';
COMMENT ON COLUMN otp_gateway.identity.name IS 'what it is called, or was last';
COMMENT ON COLUMN otp_gateway.identity.vendor IS 'of a server: the dialect, or route; its foreign data wrapper is otp_<vendor>';
ALTER TABLE otp_gateway.identity ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('otp_gateway.identity', '');

-- Not for the worker, which fires no trigger that is not ENABLE ALWAYS: it knows the OID.
CREATE FUNCTION otp_gateway.recognise() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.home := (SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c);
    IF NEW.object IS NOT NULL THEN
        NEW.object := CASE NEW.kind
            WHEN 'server' THEN (
                SELECT s.oid FROM pg_catalog.pg_foreign_server AS s
                JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
                WHERE s.srvname::pg_catalog.text OPERATOR(pg_catalog.=) NEW.name
                    AND w.fdwname::pg_catalog.text OPERATOR(pg_catalog.=) ('otp_' OPERATOR(pg_catalog.||) NEW.vendor)
            )
            WHEN 'role' THEN (
                SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname::pg_catalog.text OPERATOR(pg_catalog.=) NEW.name
            )
        END;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION otp_gateway.recognise() IS
'trigger of otp_gateway.identity: finds what a restored dump speaks of by its name; what was dropped before stays nobody''s';
CREATE TRIGGER recognise BEFORE INSERT ON otp_gateway.identity FOR EACH ROW EXECUTE FUNCTION otp_gateway.recognise();

ALTER TABLE otp_gateway.verification_record
    ADD COLUMN provider_id bigint, ADD COLUMN role_id bigint, ADD COLUMN route_id bigint;
COMMENT ON COLUMN otp_gateway.verification_record.provider IS 'what the foreign server was called then: provider_id says which it is';
COMMENT ON COLUMN otp_gateway.verification_record.created_by IS 'what the role was called then: role_id says which it is';
COMMENT ON COLUMN otp_gateway.verification_record.route IS 'what the route was called then: route_id says which it is';
COMMENT ON COLUMN otp_gateway.verification_record.provider_id IS 'of otp_gateway.identity: the foreign server that it goes through; for one that is queued for a route, the route';
COMMENT ON COLUMN otp_gateway.verification_record.role_id IS 'of otp_gateway.identity: the role that began it';
COMMENT ON COLUMN otp_gateway.verification_record.route_id IS 'of otp_gateway.identity: the route that it was asked of';
ALTER TABLE otp_gateway.attempt_record ADD COLUMN provider_id bigint, ADD COLUMN role_id bigint, ADD COLUMN account bytea;
COMMENT ON COLUMN otp_gateway.attempt_record.provider IS 'what the foreign server was called then: provider_id says which it is';
COMMENT ON COLUMN otp_gateway.attempt_record.provider_id IS 'of otp_gateway.identity: the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.attempt_record.role_id IS 'of otp_gateway.identity: the role that asked for it';
COMMENT ON COLUMN otp_gateway.attempt_record.account IS
'HMAC of the account at the vendor: a code that was guessed through one of its providers counts at all of them';
ALTER TABLE otp_gateway.reference ADD COLUMN provider_id bigint;
COMMENT ON COLUMN otp_gateway.reference.provider_id IS 'of otp_gateway.identity';
ALTER TABLE otp_gateway.attempt_record ALTER COLUMN account SET STATISTICS 0;

-- Until now rows knew names alone: what bears the name today is theirs.
INSERT INTO otp_gateway.identity (id, kind, object, home, name, vendor)
SELECT
    ('x' OPERATOR(pg_catalog.||) pg_catalog.left(pg_catalog.replace(pg_catalog.gen_random_uuid()::pg_catalog.text, '-', ''), 15))
    ::pg_catalog.bit(60)::pg_catalog.int8,
    'server', s.oid, home.system_identifier, n.name, coalesce(pg_catalog.substr(w.fdwname::pg_catalog.text, 5), n.vendor)
FROM (
    SELECT u.name, pg_catalog.max(u.vendor) AS vendor FROM (
        SELECT v.provider AS name, CASE WHEN v.vendor OPERATOR(pg_catalog.<>) 'route' THEN v.vendor END AS vendor
        FROM otp_gateway.verification_record AS v
        UNION ALL SELECT v.route, 'route' FROM otp_gateway.verification_record AS v WHERE v.route IS NOT NULL
        UNION ALL SELECT a.provider, NULL FROM otp_gateway.attempt_record AS a WHERE a.provider IS NOT NULL
        UNION ALL SELECT r.provider, NULL FROM otp_gateway.reference AS r
    ) AS u GROUP BY u.name
) AS n
CROSS JOIN pg_catalog.pg_control_system() AS home
LEFT JOIN (
    pg_catalog.pg_foreign_server AS s
    JOIN pg_catalog.pg_foreign_data_wrapper AS w
        ON w.oid OPERATOR(pg_catalog.=) s.srvfdw AND w.fdwname OPERATOR(pg_catalog.~) '^otp_'
) ON s.srvname::pg_catalog.text OPERATOR(pg_catalog.=) n.name;
INSERT INTO otp_gateway.identity (id, kind, object, home, name)
SELECT
    ('x' OPERATOR(pg_catalog.||) pg_catalog.left(pg_catalog.replace(pg_catalog.gen_random_uuid()::pg_catalog.text, '-', ''), 15))
    ::pg_catalog.bit(60)::pg_catalog.int8,
    'role', r.oid, home.system_identifier, n.name
FROM (SELECT DISTINCT v.created_by::pg_catalog.text AS name FROM otp_gateway.verification_record AS v) AS n
CROSS JOIN pg_catalog.pg_control_system() AS home
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname::pg_catalog.text OPERATOR(pg_catalog.=) n.name;
UPDATE otp_gateway.verification_record AS v SET
    provider_id = (
        SELECT i.id FROM otp_gateway.identity AS i
        WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.name OPERATOR(pg_catalog.=) v.provider
    ),
    route_id = (
        SELECT i.id FROM otp_gateway.identity AS i
        WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.name OPERATOR(pg_catalog.=) v.route
    ),
    role_id = (
        SELECT i.id FROM otp_gateway.identity AS i
        WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND i.name OPERATOR(pg_catalog.=) v.created_by::pg_catalog.text
    );
UPDATE otp_gateway.attempt_record AS a SET
    provider_id = (
        SELECT i.id FROM otp_gateway.identity AS i
        WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.name OPERATOR(pg_catalog.=) a.provider
    ),
    role_id = (SELECT v.role_id FROM otp_gateway.verification_record AS v WHERE v.id OPERATOR(pg_catalog.=) a.verification_id);
UPDATE otp_gateway.reference AS r SET provider_id = (
    SELECT i.id FROM otp_gateway.identity AS i
    WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.name OPERATOR(pg_catalog.=) r.provider
);

-- A table that a publication takes along (FOR ALL TABLES) must tell its rows apart, or they cannot be deleted. A verification
-- may come back to a reference that it had before, and one row of it is enough.
DELETE FROM otp_gateway.reference AS r USING otp_gateway.reference AS same
WHERE r.verification_id OPERATOR(pg_catalog.=) same.verification_id AND r.provider OPERATOR(pg_catalog.=) same.provider
    AND r.reference OPERATOR(pg_catalog.=) same.reference AND r.ctid OPERATOR(pg_catalog.>) same.ctid;
ALTER TABLE otp_gateway.reference ALTER COLUMN provider_id SET NOT NULL, ADD PRIMARY KEY (verification_id, reference, provider_id);
DROP INDEX otp_gateway.reference_verification_id_idx;

DROP INDEX otp_gateway.verification_recipient_key_idx;
CREATE INDEX verification_recipient_key_idx ON otp_gateway.verification_record (recipient_key, role_id, provider_id);
-- Of one recipient there are few: what is asked of them beside that is looked at row by row.
DROP INDEX otp_gateway.attempt_recipient_idx;
CREATE INDEX attempt_recipient_idx ON otp_gateway.attempt_record (recipient_key, started_at)
    WHERE reason IS NULL AND recipient_key IS NOT NULL;
DROP INDEX otp_gateway.attempt_provider_idx;
CREATE INDEX attempt_provider_idx ON otp_gateway.attempt_record (provider_id, started_at)
    WHERE reason IS NULL AND operation::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['send', 'resend']);
DROP INDEX otp_gateway.reference_reference_idx;
CREATE INDEX reference_reference_idx ON otp_gateway.reference (reference, provider_id);

-- Who may act for whom, by what the rows point to. Somebody else's server of a name that has become free is another one.
CREATE OR REPLACE VIEW otp_gateway.verification WITH (security_barrier) AS
WITH home AS (
    SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c
), acts_for AS (
    SELECT i.id FROM otp_gateway.identity AS i
    JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(r.oid, 'MEMBER')
), owns AS (
    SELECT i.id FROM otp_gateway.identity AS i
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(s.srvowner, 'MEMBER')
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
        coalesce(p.name, v.provider) AS provider, v.vendor, v.status, v.recipient_masked, v.reference,
        coalesce(c.name::pg_catalog.name, v.created_by) AS created_by, v.created_at, v.expires_at, v.approved_at, v.send_count,
        v.check_count, v.max_checks, v.is_test, coalesce(t.name, v.route) AS route
    OFFSET 0
) AS shown
WHERE v.role_id OPERATOR(pg_catalog.=) ANY (SELECT a.id FROM acts_for AS a)
    OR v.provider_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR v.route_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR EXISTS (SELECT FROM reads_all);
COMMENT ON COLUMN otp_gateway.verification.provider IS 'the foreign server that it goes through, as it is called now, or was when it was dropped';
COMMENT ON COLUMN otp_gateway.verification.created_by IS 'the role that began it, as it is called now, or was when it was dropped';

CREATE OR REPLACE VIEW otp_gateway.attempt WITH (security_barrier) AS
WITH home AS (
    SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c
), owns AS (
    SELECT i.id FROM otp_gateway.identity AS i
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
    WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND i.home OPERATOR(pg_catalog.=) (SELECT h.system_identifier FROM home AS h)
        AND pg_catalog.pg_has_role(s.srvowner, 'MEMBER')
)
SELECT a.id, a.verification_id, shown.*
FROM otp_gateway.attempt_record AS a
LEFT JOIN otp_gateway.identity AS p ON p.id OPERATOR(pg_catalog.=) a.provider_id
CROSS JOIN LATERAL (
    SELECT
        a.operation, a.outcome, a.http_status, a.vendor_code, a.vendor_message, a.response, a.started_at, a.finished_at,
        coalesce(p.name, a.provider) AS provider, a.reason
    OFFSET 0
) AS shown
WHERE a.provider_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR EXISTS (SELECT FROM otp_gateway.verification AS v WHERE v.id OPERATOR(pg_catalog.=) a.verification_id);

-- A breaker is the account's: who has credentials of their own opens their own alone.
DELETE FROM otp_gateway.breaker;
ALTER TABLE otp_gateway.breaker DROP CONSTRAINT breaker_pkey, ADD COLUMN mapping oid NOT NULL, ADD PRIMARY KEY (server, mapping);
COMMENT ON COLUMN otp_gateway.breaker.mapping IS 'the user mapping whose credentials failed; 0: none is needed';
CREATE OR REPLACE VIEW otp_gateway.provider AS
SELECT
    server.srvname::pg_catalog.text AS provider,
    pg_catalog.substr(wrapper.fdwname::pg_catalog.text, 5) AS vendor,
    setting.setting,
    setting.value,
    setting.source
FROM pg_catalog.pg_foreign_server AS server
JOIN pg_catalog.pg_foreign_data_wrapper AS wrapper ON wrapper.oid OPERATOR(pg_catalog.=) server.srvfdw
LEFT JOIN otp_gateway.breaker ON breaker.server OPERATOR(pg_catalog.=) server.oid
    AND breaker.mapping OPERATOR(pg_catalog.=) coalesce((
        SELECT m.oid FROM pg_catalog.pg_user_mapping AS m
        LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) m.umuser
        WHERE m.umserver OPERATOR(pg_catalog.=) server.oid
            AND (m.umuser OPERATOR(pg_catalog.=) 0 OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
        ORDER BY m.umuser DESC LIMIT 1
    ), 0)
CROSS JOIN LATERAL (
    SELECT s.setting, s.value, s.source, s.place
    FROM ROWS FROM (
        pg_catalog.jsonb_to_recordset(otp_gateway.effective_settings(server.oid))
        AS (setting pg_catalog.text, value pg_catalog.text, source pg_catalog.text)
    ) WITH ORDINALITY AS s (setting, value, source, place)
    UNION ALL
    SELECT
        'breaker',
        CASE
            WHEN breaker.open_until IS NULL THEN 'closed'
            WHEN breaker.open_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
            THEN pg_catalog.concat('open until ', breaker.open_until)
            ELSE 'half-open: the next send is a probe'
        END,
        'state',
        1000
    WHERE wrapper.fdwname OPERATOR(pg_catalog.~) '^otp_' AND wrapper.fdwname OPERATOR(pg_catalog.<>) 'otp_route'
        AND pg_catalog.jsonb_array_length(otp_gateway.effective_settings(server.oid)) OPERATOR(pg_catalog.>) 0
) AS setting
ORDER BY server.srvname, setting.place;
COMMENT ON COLUMN otp_gateway.provider.setting IS
'the server option; or credentials: the user mapping of the current role, else of PUBLIC; or breaker: whether sends with these credentials are let through; or error: the options cannot be read, and calls fail with the same words';

-- Default privileges of whoever installed this may have given any role anything.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT c.oid::pg_catalog.regclass AS relation, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_class AS c
        CROSS JOIN LATERAL (
            SELECT e.grantee FROM pg_catalog.aclexplode(c.relacl) AS e
            UNION SELECT e.grantee FROM pg_catalog.pg_attribute AS t
            CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) AS e WHERE t.attrelid OPERATOR(pg_catalog.=) c.oid
        ) AS a
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'otp_gateway'::pg_catalog.regnamespace
            AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::pg_catalog."char"[])
            AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TABLE %s FROM %s CASCADE', given.relation, given.grantee);
    END LOOP;
    FOR given IN
        SELECT p.oid::pg_catalog.regprocedure AS function, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_proc AS p
        CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
        WHERE p.pronamespace OPERATOR(pg_catalog.=) 'otp_gateway'::pg_catalog.regnamespace
            AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY['note_queued', 'recognise', 'rotate_key']::pg_catalog.name[])
            AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', given.function, given.grantee);
    END LOOP;
    FOR given IN
        SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
        WHERE n.nspname OPERATOR(pg_catalog.=) 'otp_gateway' AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA otp_gateway FROM %s CASCADE', given.grantee);
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA otp_gateway TO PUBLIC;
GRANT SELECT ON otp_gateway.verification, otp_gateway.attempt, otp_gateway.provider TO PUBLIC;

-- Where others make functions, theirs can be called in the place of ours.
DO $$
DECLARE
    others text := (
        SELECT pg_catalog.string_agg(o.name, ', ') FROM (
            SELECT 'PUBLIC' AS name FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
            WHERE n.oid OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
                AND a.grantee OPERATOR(pg_catalog.=) 0 AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
            UNION ALL (
                SELECT pg_catalog.quote_ident(r.rolname::pg_catalog.text) FROM pg_catalog.pg_roles AS r
                WHERE NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.!~) '^pg_'
                    AND pg_catalog.has_schema_privilege(r.oid, '@extschema@'::pg_catalog.regnamespace, 'CREATE')
                ORDER BY r.rolname LIMIT 5
            )
        ) AS o
    );
BEGIN
    IF others IS NOT NULL THEN
        RAISE WARNING 'otp_gateway: other roles may create functions in schema @extschema@, which calls of otp_send and otp_verify may then reach: %', others
            USING HINT = 'Install it into a schema of its own: CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp; or REVOKE CREATE ON SCHEMA @extschema@ from them.';
    END IF;
END
$$;

COMMENT ON FUNCTION otp_gateway.forget(text, text) IS
'For the person who asks to be forgotten: removes the masked number, the key, the references and the vendor''s answers from the record of a number at a provider or route, keeps the fact of each attempt, and returns how many verifications there were. An open one is canceled; limits of this number begin anew at the providers that the caller owns, and go on counting at others that a route led to. The owner of the database may name a provider that was dropped. In a transaction of the worker: a rollback brings nothing back. Errors: 42501 not the provider''s owner; 42704 no such provider; 22023 no number that it takes.';
