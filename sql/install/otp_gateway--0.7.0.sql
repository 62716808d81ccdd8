/* otp_gateway 0.7.0: the whole schema, for CREATE EXTENSION. ALTER EXTENSION otp_gateway UPDATE brings an older one to
   the same, by the scripts in sql/upgrade; tests/gateway/test_upgrade.py compares the two. */

-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION otp_gateway" to load this file. \quit

-- What is text in another encoding is another text, or none, by the time that a vendor or a dump has it.
DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = pg_catalog.format(
                'otp_gateway: the encoding of this database is %s, and must be UTF8', pg_catalog.getdatabaseencoding()),
            HINT = 'Use a database of that encoding: CREATE DATABASE ... TEMPLATE template0 ENCODING ''UTF8''; pg_dump '
                'and psql convert what is moved there.';
    END IF;
END
$$;

-- What is for people lives in this schema; the functions that applications call land in the schema that CREATE
-- EXTENSION was told.
CREATE SCHEMA otp_gateway;
COMMENT ON SCHEMA otp_gateway IS 'the record that the extension otp_gateway keeps of one-time-password flows';

-- What nobody calls or reads by name. A role needs no right on this schema: the views read the tables with their
-- owner's rights; and they, triggers and wrappers know functions by OID. Whoever made it before could name what lies in
-- it.
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

CREATE DOMAIN otp_gateway_internal.status AS text CHECK (VALUE IN (
    'queued', 'sending', 'pending', 'approved', 'canceled', 'expired', 'max_attempts_reached', 'failed', 'blocked',
    'unknown'
));
COMMENT ON DOMAIN otp_gateway_internal.status IS
'where a verification stands; approved, canceled, expired, max_attempts_reached, failed and blocked are terminal and '
'never reopen';

CREATE DOMAIN otp_gateway_internal.operation AS text CHECK (VALUE IN ('send', 'verify', 'resend', 'cancel'));
COMMENT ON DOMAIN otp_gateway_internal.operation IS 'what an attempt asks of a vendor';

CREATE DOMAIN otp_gateway_internal.outcome AS text CHECK (VALUE IN (
    'sent', 'approved', 'canceled', 'invalid_code', 'expired', 'already_used', 'already_registered',
    'max_attempts_reached', 'not_found', 'rate_limited', 'invalid_request', 'auth_failed', 'refused', 'provider_error',
    'unreachable', 'unknown', 'blocked'
));
COMMENT ON DOMAIN otp_gateway_internal.outcome IS
'how an attempt ended, in one vocabulary for all vendors; unknown: it may or may not have happened, and is never '
'repeated';

-- The tables hold what nobody but a superuser may see (sealed, recipient_key). A column cannot be withheld from members
-- of pg_read_all_data, who may read every column of every table; rows can, by row security. So the tables have no
-- policy at all, which hides every row from everybody whom row security binds, and what a role may see it sees in the
-- views below.
-- Columns are in the order in which versions added them: src/store/columns.rs knows them by number. Room on each page
-- lets an update stay there and leave the indexes alone (HOT): a page takes no more rows than can all end on it, also
-- where all of them begin before the first one ends. For the same reason no index, and no index's predicate, may name a
-- column that changes: status, reference, expires_at, the counts, sealed. pg_read_all_data reads TOAST tables as well,
-- where no row security reaches: a row stays whole while it fits on a page; and ANALYZE takes no samples of the secret
-- columns.
CREATE TABLE otp_gateway_internal.verification_record (
    id uuid CONSTRAINT verification_pkey PRIMARY KEY,
    provider text NOT NULL,
    vendor text NOT NULL,
    status otp_gateway_internal.status NOT NULL,
    recipient_masked text,
    recipient_key bytea,
    reference text,
    created_by name,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    approved_at timestamptz,
    send_count integer NOT NULL,
    check_count integer NOT NULL,
    max_checks integer NOT NULL,
    sealed bytea,
    enqueued xid8,
    idempotency_key bytea,
    payload_hash bytea,
    is_test boolean NOT NULL DEFAULT false,
    route text,
    provider_id bigint,
    role_id bigint,
    route_id bigint,
    country integer
) WITH (fillfactor = 40, toast_tuple_target = 8160);
ALTER TABLE otp_gateway_internal.verification_record
    ALTER COLUMN recipient_key SET STATISTICS 0,
    ALTER COLUMN sealed SET STATISTICS 0,
    ALTER COLUMN idempotency_key SET STATISTICS 0,
    ALTER COLUMN payload_hash SET STATISTICS 0;
CREATE INDEX verification_enqueued_idx ON otp_gateway_internal.verification_record (enqueued, id)
    WHERE enqueued IS NOT NULL;
CREATE INDEX verification_idempotency_key_idx ON otp_gateway_internal.verification_record (idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX verification_recipient_key_idx ON otp_gateway_internal.verification_record
    (recipient_key, role_id, provider_id);
ALTER TABLE otp_gateway_internal.verification_record ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.verification_record IS
'what the view otp_gateway.verification shows, with what only superusers see; written by the worker in transactions '
'of its own, so that a rollback of the caller undoes nothing here';
COMMENT ON COLUMN otp_gateway_internal.verification_record.id IS
'time-ordered (UUID version 7); the argument of otp_verify, otp_resend and otp_cancel';
COMMENT ON COLUMN otp_gateway_internal.verification_record.provider IS
'what the foreign server was called then: provider_id says which it is';
COMMENT ON COLUMN otp_gateway_internal.verification_record.vendor IS
'the dialect; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway_internal.verification_record.recipient_masked IS
'whom the code goes to, as it may be shown';
COMMENT ON COLUMN otp_gateway_internal.verification_record.recipient_key IS
'HMAC-SHA-256 of the normalised recipient under a key that is not in the database: finds a recipient, does not name '
'one';
COMMENT ON COLUMN otp_gateway_internal.verification_record.reference IS
'the latest reference that vendor and application share for this flow';
COMMENT ON COLUMN otp_gateway_internal.verification_record.created_by IS
'of one that began before 0.7.0, what the role was called then: role_id says which it is';
COMMENT ON COLUMN otp_gateway_internal.verification_record.expires_at IS
'when the code ends, counted from the answer to the latest send; null where neither the vendor nor code_lifetime says';
COMMENT ON COLUMN otp_gateway_internal.verification_record.send_count IS 'sends and resends begun';
COMMENT ON COLUMN otp_gateway_internal.verification_record.check_count IS
'checks spent; one is booked before each verify leaves, and given back where the vendor certainly compared nothing';
COMMENT ON COLUMN otp_gateway_internal.verification_record.max_checks IS 'checks allowed';
COMMENT ON COLUMN otp_gateway_internal.verification_record.sealed IS
'while queued: the payload; then what a later verify or resend needs; AES-256-GCM under otp_gateway.key_file, null '
'once the verification has ended';
COMMENT ON COLUMN otp_gateway_internal.verification_record.enqueued IS
'the transaction that enqueued it, whose COMMIT lets it be sent; null for a flow that was not queued';
COMMENT ON COLUMN otp_gateway_internal.verification_record.idempotency_key IS
'HMAC of provider and idempotency key that it was begun with; the same key within 24 hours is this verification';
COMMENT ON COLUMN otp_gateway_internal.verification_record.payload_hash IS 'HMAC of the payload that the key goes with';
COMMENT ON COLUMN otp_gateway_internal.verification_record.is_test IS
'to one of the provider''s test_numbers: answered by the gateway itself, no message was sent, and no limit counts it';
COMMENT ON COLUMN otp_gateway_internal.verification_record.route IS
'what the route was called then: route_id says which it is';
COMMENT ON COLUMN otp_gateway_internal.verification_record.provider_id IS
'of otp_gateway_internal.identity: the foreign server that it goes through; for one that is queued for a route, the '
'route';
COMMENT ON COLUMN otp_gateway_internal.verification_record.role_id IS
'of otp_gateway_internal.identity: the role that began it';
COMMENT ON COLUMN otp_gateway_internal.verification_record.route_id IS
'of otp_gateway_internal.identity: the route that it was asked of';
COMMENT ON COLUMN otp_gateway_internal.verification_record.country IS
'the calling code of the recipient''s country; null: it is no phone number, or began under 0.6.0';

-- No foreign key: the worker is the only writer, and the check of one would cost a look-up and a row lock for each
-- attempt. What limits count is where they can find it; none of the indexed columns ever changes.
CREATE TABLE otp_gateway_internal.attempt_record (
    id uuid CONSTRAINT attempt_pkey PRIMARY KEY,
    verification_id uuid NOT NULL,
    operation otp_gateway_internal.operation NOT NULL,
    outcome otp_gateway_internal.outcome,
    http_status integer,
    vendor_code text,
    vendor_message text,
    response jsonb,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    provider text,
    recipient_key bytea,
    reason text,
    provider_id bigint,
    role_id bigint,
    account bytea,
    retry_at timestamptz
) WITH (fillfactor = 33);
ALTER TABLE otp_gateway_internal.attempt_record
    ALTER COLUMN recipient_key SET STATISTICS 0,
    ALTER COLUMN account SET STATISTICS 0;
CREATE INDEX attempt_verification_id_idx ON otp_gateway_internal.attempt_record (verification_id);
CREATE INDEX attempt_recipient_idx ON otp_gateway_internal.attempt_record (recipient_key, started_at)
    WHERE reason IS NULL AND recipient_key IS NOT NULL;
CREATE INDEX attempt_provider_idx ON otp_gateway_internal.attempt_record (provider_id, started_at)
    WHERE reason IS NULL AND operation::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['send', 'resend']);
ALTER TABLE otp_gateway_internal.attempt_record ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.attempt_record IS
'what the view otp_gateway.attempt shows, with what only superusers see: written durably before the first byte '
'leaves, completed once when its outcome is known';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.outcome IS 'null while in flight';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.http_status IS
'the HTTP status of the answer; null where none came or no call was made';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.vendor_code IS 'the code in the vendor''s own answer';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.vendor_message IS
'the vendor''s own words, or the gateway''s where it must say why; redacted';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.response IS 'the vendor''s answer with sensitive members removed';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.started_at IS 'by the clock, not by the transaction';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.provider IS
'of one that began before 0.7.0, what the foreign server was called then: provider_id says which it is';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.recipient_key IS
'as in otp_gateway_internal.verification_record: whose limits it counts against; null for a test number''s, which '
'counts for nobody; empty where the recipient was forgotten, which still counts for provider_limit';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.reason IS
'the rule that refused it (outcome blocked), or, where the provider''s rules are only observed, would have';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.provider_id IS
'of otp_gateway_internal.identity: the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.role_id IS
'of otp_gateway_internal.identity: the role that asked for it';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.account IS
'HMAC of the account at the vendor: a code that was guessed through one of its providers counts at all of them';
COMMENT ON COLUMN otp_gateway_internal.attempt_record.retry_at IS
'from then on another try may succeed, as the rule that refused or the vendor says';

-- Finds a verification by a reference that arrives with the answer to its send: a column of verification_record with an
-- index would make that update touch every index of the table. The primary key tells rows apart for a publication that
-- takes the table along (FOR ALL TABLES).
CREATE TABLE otp_gateway_internal.reference (
    provider text,
    reference text NOT NULL,
    verification_id uuid NOT NULL,
    provider_id bigint NOT NULL,
    PRIMARY KEY (verification_id, reference, provider_id)
);
CREATE INDEX reference_reference_idx ON otp_gateway_internal.reference (reference, provider_id);
ALTER TABLE otp_gateway_internal.reference ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.reference IS
'every reference by which a verification may be found; none of a vendor whose verifies are found by the recipient alone';
COMMENT ON COLUMN otp_gateway_internal.reference.provider IS
'of one from before 0.7.0, what the foreign server was called then: provider_id says which it is';
COMMENT ON COLUMN otp_gateway_internal.reference.provider_id IS 'of otp_gateway_internal.identity';

-- Whose a row is. A name is free again after a rename or a drop; what a row points to here is nobody else's. The OID
-- holds in the cluster that wrote it: a restored dump finds its servers and roles by name, once.
CREATE TABLE otp_gateway_internal.identity (
    id bigint PRIMARY KEY,
    kind text NOT NULL,
    object oid,
    home bigint NOT NULL,
    name text NOT NULL,
    vendor text
);
CREATE INDEX identity_object_idx ON otp_gateway_internal.identity (object);
ALTER TABLE otp_gateway_internal.identity ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.identity IS
'the foreign servers and roles that the record speaks of, each under a number of its own; written by the worker';
COMMENT ON COLUMN otp_gateway_internal.identity.id IS
'drawn by lot, so that rows of two databases can be brought together';
COMMENT ON COLUMN otp_gateway_internal.identity.kind IS 'server or role';
COMMENT ON COLUMN otp_gateway_internal.identity.object IS 'its OID; null: it was dropped, and no other takes its place';
COMMENT ON COLUMN otp_gateway_internal.identity.home IS
'the system identifier of the cluster in which the OID holds; elsewhere the name is looked up, once';
COMMENT ON COLUMN otp_gateway_internal.identity.name IS 'what it is called, or was last';
COMMENT ON COLUMN otp_gateway_internal.identity.vendor IS
'of a server: the dialect, or route; its foreign data wrapper is otp_<vendor>';

CREATE TABLE otp_gateway_internal.breaker (
    server oid NOT NULL,
    open_until timestamptz NOT NULL,
    mapping oid NOT NULL,
    opened_at timestamptz NOT NULL,
    failed_at timestamptz NOT NULL,
    outcome otp_gateway_internal.outcome NOT NULL,
    vendor_code text,
    configuration bytea NOT NULL,
    PRIMARY KEY (server, mapping)
);
ALTER TABLE otp_gateway_internal.breaker ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.breaker IS
'providers that failed several times in a row and are left alone for a while; written by the worker, which keeps the '
'state';
COMMENT ON COLUMN otp_gateway_internal.breaker.server IS 'the foreign server';
COMMENT ON COLUMN otp_gateway_internal.breaker.open_until IS
'when the next single send is let through to see whether it is well again';
COMMENT ON COLUMN otp_gateway_internal.breaker.mapping IS
'the user mapping whose credentials failed; 0: none is needed';
COMMENT ON COLUMN otp_gateway_internal.breaker.opened_at IS
'since when nothing is sent; probes may have failed in between';
COMMENT ON COLUMN otp_gateway_internal.breaker.failed_at IS 'when the last call ended';
COMMENT ON COLUMN otp_gateway_internal.breaker.outcome IS 'how that one ended';
COMMENT ON COLUMN otp_gateway_internal.breaker.vendor_code IS 'the code in the vendor''s own answer to it';
COMMENT ON COLUMN otp_gateway_internal.breaker.configuration IS
'keyed fingerprint of the options and credentials that failed: with others the provider is tried anew';

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
    cluster bigint NOT NULL,
    server bigint,
    timeline integer,
    directory text
);
ALTER TABLE otp_gateway_internal.queue_home REPLICA IDENTITY FULL;
ALTER TABLE otp_gateway_internal.queue_home ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway_internal.queue_home IS
'the cluster that queued sends of this database are sealed for: the one that it was made in';
COMMENT ON COLUMN otp_gateway_internal.queue_home.database IS
'the OID of the database: that of a template is another one';
COMMENT ON COLUMN otp_gateway_internal.queue_home.cluster IS
'its system identifier then; pg_upgrade makes a new one. In a copy of its data directory another number';
COMMENT ON COLUMN otp_gateway_internal.queue_home.server IS 'the system identifier now';
COMMENT ON COLUMN otp_gateway_internal.queue_home.timeline IS
'the timeline now; another data directory on the same one is a copy that nobody has promoted';
COMMENT ON COLUMN otp_gateway_internal.queue_home.directory IS
'what tells the data directory from its copies: when it was made, or its inode';
INSERT INTO otp_gateway_internal.queue_home (database, cluster)
SELECT d.oid, c.system_identifier FROM pg_catalog.pg_database AS d, pg_catalog.pg_control_system() AS c
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

-- The record belongs to the data: pg_dump carries it.
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.verification_record', '');
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.attempt_record', '');
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.reference', '');
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.identity', '');
SELECT pg_catalog.pg_extension_config_dump('otp_gateway_internal.sealing_key', '');

-- Also for rows that a restored dump brings: they are found by this server's transaction numbers, not by those of
-- another.
CREATE FUNCTION otp_gateway_internal.note_queued() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'note_queued';
COMMENT ON FUNCTION otp_gateway_internal.note_queued() IS
'trigger of otp_gateway_internal.verification_record: stamps a queued row with its transaction, and has the commit '
'tell the worker';

-- Not for the worker, which fires no trigger that is not ENABLE ALWAYS: it knows the OID.
CREATE FUNCTION otp_gateway_internal.recognise() RETURNS trigger
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
COMMENT ON FUNCTION otp_gateway_internal.recognise() IS
'trigger of otp_gateway_internal.identity: finds what a restored dump speaks of by its name; what was dropped before '
'stays nobody''s';

CREATE TRIGGER note_queued BEFORE INSERT ON otp_gateway_internal.verification_record
FOR EACH ROW WHEN (NEW.status OPERATOR(pg_catalog.=) 'queued') EXECUTE FUNCTION otp_gateway_internal.note_queued();
ALTER TABLE otp_gateway_internal.verification_record ENABLE ALWAYS TRIGGER note_queued;
CREATE TRIGGER recognise BEFORE INSERT ON otp_gateway_internal.identity
FOR EACH ROW EXECUTE FUNCTION otp_gateway_internal.recognise();

-- Who acts for whom is who has their rights, as with all else in Postgres: membership alone (INHERIT FALSE, or ADMIN,
-- which who makes a role has of it) gives none of them.
CREATE VIEW otp_gateway_internal.own_role AS
SELECT i.id FROM otp_gateway_internal.identity AS i
JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) i.object
WHERE i.kind OPERATOR(pg_catalog.=) 'role'
    AND i.home OPERATOR(pg_catalog.=) (SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c)
    AND pg_catalog.pg_has_role(r.oid, 'USAGE');
COMMENT ON VIEW otp_gateway_internal.own_role IS
'for the views of otp_gateway: the roles that whoever asks may act for';
COMMENT ON COLUMN otp_gateway_internal.own_role.id IS 'of otp_gateway_internal.identity';

CREATE VIEW otp_gateway_internal.own_server AS
SELECT i.id FROM otp_gateway_internal.identity AS i
JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) i.object
WHERE i.kind OPERATOR(pg_catalog.=) 'server'
    AND i.home OPERATOR(pg_catalog.=) (SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c)
    AND pg_catalog.pg_has_role(s.srvowner, 'USAGE');
COMMENT ON VIEW otp_gateway_internal.own_server IS
'for the views of otp_gateway: the providers and routes whose owner whoever asks may act for';
COMMENT ON COLUMN otp_gateway_internal.own_server.id IS 'of otp_gateway_internal.identity';

CREATE VIEW otp_gateway.verification WITH (security_barrier) AS
WITH owns AS (
    SELECT o.id FROM otp_gateway_internal.own_server AS o
), reads_all AS (
    SELECT FROM pg_catalog.pg_roles AS r
    WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
)
SELECT v.id, shown.*
FROM otp_gateway_internal.verification_record AS v
LEFT JOIN otp_gateway_internal.identity AS p ON p.id OPERATOR(pg_catalog.=) v.provider_id
LEFT JOIN otp_gateway_internal.identity AS c ON c.id OPERATOR(pg_catalog.=) v.role_id
LEFT JOIN otp_gateway_internal.identity AS t ON t.id OPERATOR(pg_catalog.=) v.route_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(p.name, v.provider) AS provider, v.vendor, v.status::pg_catalog.text AS status,
        v.recipient_masked, v.reference, coalesce(c.name::pg_catalog.name, v.created_by) AS created_by, v.created_at,
        v.expires_at, v.approved_at, v.send_count, v.check_count, v.max_checks, v.is_test,
        coalesce(t.name, v.route) AS route
    OFFSET 0
) AS shown
WHERE v.role_id OPERATOR(pg_catalog.=) ANY (SELECT r.id FROM otp_gateway_internal.own_role AS r)
    OR v.provider_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR v.route_id OPERATOR(pg_catalog.=) ANY (SELECT o.id FROM owns AS o)
    OR EXISTS (SELECT FROM reads_all);
COMMENT ON VIEW otp_gateway.verification IS
'one one-time-password flow for one recipient, from the send to its end: those that a role began whose rights one '
'has; for the owner of a provider all of that provider, for members of pg_read_all_data all. A rollback of the caller '
'undoes nothing here';
COMMENT ON COLUMN otp_gateway.verification.id IS
'time-ordered (UUID version 7); the argument of otp_verify, otp_resend and otp_cancel';
COMMENT ON COLUMN otp_gateway.verification.provider IS
'the foreign server that it goes through, as it is called now, or was when it was dropped';
COMMENT ON COLUMN otp_gateway.verification.vendor IS
'the dialect; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.verification.status IS
'where it stands; approved, canceled, expired, max_attempts_reached, failed and blocked are terminal and never reopen';
COMMENT ON COLUMN otp_gateway.verification.recipient_masked IS
'whom the code goes to, as it may be shown; otp_gateway.find looks up by the number';
COMMENT ON COLUMN otp_gateway.verification.reference IS
'the latest reference that vendor and application share for this flow';
COMMENT ON COLUMN otp_gateway.verification.created_by IS
'the role that began it, as it is called now, or was when it was dropped';
COMMENT ON COLUMN otp_gateway.verification.created_at IS 'by the clock, not by the transaction';
COMMENT ON COLUMN otp_gateway.verification.expires_at IS
'when the code ends, counted from the answer to the latest send; null where neither the vendor nor code_lifetime says';
COMMENT ON COLUMN otp_gateway.verification.approved_at IS 'when the vendor accepted the code';
COMMENT ON COLUMN otp_gateway.verification.send_count IS 'sends and resends begun';
COMMENT ON COLUMN otp_gateway.verification.check_count IS
'checks spent; one is booked before each verify leaves, and given back where the vendor certainly compared nothing';
COMMENT ON COLUMN otp_gateway.verification.max_checks IS 'checks allowed';
COMMENT ON COLUMN otp_gateway.verification.is_test IS
'to one of the provider''s test_numbers: answered by the gateway itself, no message was sent, and no limit counts it';
COMMENT ON COLUMN otp_gateway.verification.route IS
'the route (foreign server of otp_route) that it was asked of; provider is then the one of its providers that it went '
'to';

CREATE VIEW otp_gateway.attempt WITH (security_barrier) AS
WITH owns AS (
    SELECT o.id FROM otp_gateway_internal.own_server AS o
)
SELECT a.id, a.verification_id, shown.*
FROM otp_gateway_internal.attempt_record AS a
LEFT JOIN otp_gateway_internal.identity AS p ON p.id OPERATOR(pg_catalog.=) a.provider_id
LEFT JOIN otp_gateway_internal.verification_record AS v ON v.id OPERATOR(pg_catalog.=) a.verification_id AND (
    v.role_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.id FROM otp_gateway_internal.own_role AS r))
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
COMMENT ON VIEW otp_gateway.attempt IS
'one call to a vendor, or one refusal, of the verifications that otp_gateway.verification shows; for the owner of a '
'provider all that went to it';
COMMENT ON COLUMN otp_gateway.attempt.id IS 'time-ordered (UUID version 7)';
COMMENT ON COLUMN otp_gateway.attempt.verification_id IS 'of otp_gateway.verification';
COMMENT ON COLUMN otp_gateway.attempt.operation IS 'what it asks of the vendor: send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.attempt.outcome IS
'how it ended, in one vocabulary for all vendors; null while in flight';
COMMENT ON COLUMN otp_gateway.attempt.http_status IS
'the HTTP status of the answer; null where none came or no call was made';
COMMENT ON COLUMN otp_gateway.attempt.vendor_code IS 'the code in the vendor''s own answer';
COMMENT ON COLUMN otp_gateway.attempt.vendor_message IS
'the vendor''s own words, or the gateway''s where it must say why; redacted';
COMMENT ON COLUMN otp_gateway.attempt.response IS 'the vendor''s answer with sensitive members removed';
COMMENT ON COLUMN otp_gateway.attempt.started_at IS 'by the clock, not by the transaction';
COMMENT ON COLUMN otp_gateway.attempt.finished_at IS 'when its outcome was put on record';
COMMENT ON COLUMN otp_gateway.attempt.provider IS 'the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.attempt.reason IS
'the rule that refused it (outcome blocked), or, where the provider''s rules are only observed, would have';

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
COMMENT ON FUNCTION otp_gateway_internal.words(text, text, text) IS
'for otp_gateway.recent and otp_gateway.history: what happened, in a few words';

CREATE VIEW otp_gateway.recent WITH (security_barrier) AS
-- Not made of the two views above: so the latest rows are read by the index, and no others.
WITH owns AS (
    SELECT o.id FROM otp_gateway_internal.own_server AS o
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
    v.role_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT r.id FROM otp_gateway_internal.own_role AS r))
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

CREATE FUNCTION otp_gateway_internal.effective_settings(server oid) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'effective_settings';
COMMENT ON FUNCTION otp_gateway_internal.effective_settings(oid) IS
'What is in force at a foreign server of otp_gateway, for the view otp_gateway.provider: an array of objects with '
'setting, value and source; empty for any other server.';

CREATE VIEW otp_gateway.provider AS
SELECT
    server.srvname::pg_catalog.text AS provider,
    pg_catalog.substr(wrapper.fdwname::pg_catalog.text, 5) AS vendor,
    setting.setting,
    setting.value,
    setting.source
FROM pg_catalog.pg_foreign_server AS server
JOIN pg_catalog.pg_foreign_data_wrapper AS wrapper ON wrapper.oid OPERATOR(pg_catalog.=) server.srvfdw
CROSS JOIN LATERAL ROWS FROM (
    pg_catalog.jsonb_to_recordset(otp_gateway_internal.effective_settings(server.oid))
    AS (setting pg_catalog.text, value pg_catalog.text, source pg_catalog.text)
) WITH ORDINALITY AS setting (setting, value, source, place)
ORDER BY server.srvname, setting.place;
COMMENT ON VIEW otp_gateway.provider IS
'what is in force at every provider, one row for each setting: each option of the server, given or not, and which '
'credentials the current role would use; no secret is in it';
COMMENT ON COLUMN otp_gateway.provider.provider IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.provider.vendor IS 'the dialect; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.provider.setting IS
'the server option; or credentials: the user mapping of the current role, else of PUBLIC; or breaker: whether sends '
'with these credentials are let through; or error: the options cannot be read, and calls fail with the same words';
COMMENT ON COLUMN otp_gateway.provider.value IS
'what holds, as the option takes it; null: not set and without a default; of test_numbers the codes are replaced by '
'***, of credentials the option names are all that is shown';
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

CREATE TYPE otp_gateway.result AS (
    verification_id uuid,
    attempt_id uuid,
    status text,
    outcome text,
    retryable boolean,
    attempts_left integer,
    retry_after interval,
    expires_at timestamptz,
    reference text,
    vendor_code text,
    vendor_message text,
    response jsonb,
    reason text
);
COMMENT ON TYPE otp_gateway.result IS
'the row that the otp_ functions and otp_gateway.wait return; a business outcome is a row, never an error';
COMMENT ON COLUMN otp_gateway.result.verification_id IS
'keep it: otp_verify, otp_resend, otp_cancel and otp_gateway.wait take it; the row in otp_gateway.verification';
COMMENT ON COLUMN otp_gateway.result.attempt_id IS
'the row in otp_gateway.attempt; null while the send is queued';
COMMENT ON COLUMN otp_gateway.result.status IS
'where the verification stands now; approved, canceled, expired, max_attempts_reached, failed and blocked are terminal';
COMMENT ON COLUMN otp_gateway.result.outcome IS
'how this attempt ended, in one vocabulary for all vendors; null while the send is queued or in flight';
COMMENT ON COLUMN otp_gateway.result.retryable IS
'the same call may safely be made again: after retry_after, or for invalid_code with another code';
COMMENT ON COLUMN otp_gateway.result.attempts_left IS 'checks left';
COMMENT ON COLUMN otp_gateway.result.retry_after IS
'of blocked, rate_limited and provider_error: how long to wait before another try, as the rule that refused or the '
'vendor says; null: nobody says';
COMMENT ON COLUMN otp_gateway.result.expires_at IS
'when the code ends; null where neither the vendor nor code_lifetime says';
COMMENT ON COLUMN otp_gateway.result.reference IS 'of this flow at the vendor';
COMMENT ON COLUMN otp_gateway.result.vendor_code IS 'the code in the vendor''s own answer';
COMMENT ON COLUMN otp_gateway.result.vendor_message IS
'the vendor''s own words, or the gateway''s where it must say why; redacted';
COMMENT ON COLUMN otp_gateway.result.response IS
'the vendor''s answer as it came; of an attempt that is on record already, with sensitive members removed';
COMMENT ON COLUMN otp_gateway.result.reason IS
'the rule that refused, where outcome is blocked; where the provider''s rules are only observed, the one that would '
'have';

CREATE FUNCTION @extschema@.otp_send(
    provider text, payload jsonb, idempotency_key text DEFAULT NULL
) RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_send';
COMMENT ON FUNCTION @extschema@.otp_send(text, jsonb, text) IS
'Asks the provider (a foreign server) to send a code now and waits for the answer; a rollback does not unsend it. '
'idempotency_key: for 24 hours the same key at the same provider is the same verification, and its result is '
'returned; with another payload it is an error (22023).';

CREATE FUNCTION @extschema@.otp_enqueue(
    provider text, payload jsonb, idempotency_key text DEFAULT NULL
) RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_enqueue';
COMMENT ON FUNCTION @extschema@.otp_enqueue(text, jsonb, text) IS
'Has a code sent if, and only if, this transaction commits, and after it: checks payload and rights now, and '
'returns the row of a verification that is queued. A rollback leaves nothing of it. otp_gateway.wait follows it. '
'idempotency_key: for 24 hours the same key at the same provider is the same verification, and its result is '
'returned; with another payload it is an error (22023). Errors: 22023 payload, 42501 no USAGE, 42704 no such '
'provider, 54000 more than otp_gateway.max_sends_per_transaction.';

CREATE FUNCTION @extschema@.otp_verify(
    verification_id uuid, otp text, payload jsonb DEFAULT '{}'
) RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_verify_by_id';
COMMENT ON FUNCTION @extschema@.otp_verify(uuid, text, jsonb) IS
'Has the vendor check the user''s code for a verification that otp_send began; the try counts even if you roll back.';

CREATE FUNCTION @extschema@.otp_verify(provider text, otp text, payload jsonb DEFAULT '{}') RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_verify_by_provider';
COMMENT ON FUNCTION @extschema@.otp_verify(text, text, jsonb) IS
'Has the vendor check a code of a flow begun elsewhere, found by reference or recipient in the payload; a first '
'argument that reads as a uuid is taken for a verification id.';

CREATE FUNCTION @extschema@.otp_resend(verification_id uuid, payload jsonb DEFAULT '{}') RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_resend';
COMMENT ON FUNCTION @extschema@.otp_resend(uuid, jsonb) IS
'Has the vendor send a code again; payload holds what differs from the send.';

CREATE FUNCTION @extschema@.otp_cancel(verification_id uuid) RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_cancel';
COMMENT ON FUNCTION @extschema@.otp_cancel(uuid) IS
'Has the vendor void the code, where it can: REL-ID. One that is still queued is canceled unsent.';

CREATE FUNCTION otp_gateway.wait(verification_id uuid, timeout interval DEFAULT '30s') RETURNS otp_gateway.result
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_wait';
COMMENT ON FUNCTION otp_gateway.wait(uuid, interval) IS
'Waits until the send of a verification has an outcome, and returns its row; when the timeout is over, the row as '
'it is then (status queued or sending, outcome null). Errors: 55000 inside the transaction that enqueued it, for it '
'would never end there; 42704 no such verification of yours.';

CREATE FUNCTION otp_gateway.channel(role text DEFAULT CURRENT_USER) RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'notification_channel';
COMMENT ON FUNCTION otp_gateway.channel(text) IS
'The channel on which, with otp_gateway.notify, each change of status of the verifications is announced that this role '
'began: LISTEN to it. Nobody can guess its name, and only who has the role''s rights is told it. Ask at each connect: a '
'new key in otp_gateway.key_file gives it another, and the one before is served while the old key is in the file. '
'Errors: 42704 no such role, 42501 not one whose rights the caller has.';

CREATE FUNCTION otp_gateway.send_after_commit() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'send_after_commit';
COMMENT ON FUNCTION otp_gateway.send_after_commit() IS
'Row trigger, BEFORE or AFTER INSERT OR UPDATE: enqueues a send for the row. Arguments: the provider; a JSON object '
'that maps payload fields to columns, {"mobile": "phone"}, where a value that begins with = is a constant, '
'{"template_id": "=login"}; for a BEFORE trigger, optionally the uuid column that takes the verification id. What is '
'sent is for the row as COMMIT leaves it. An UPDATE sends only if a mapped column changed, or if that uuid column is '
'set to otp_gateway.send_again(it); set to NULL, or to an older id, by itself it keeps its value, as an ORM writes '
'what it has read before. A NULL in a required field sends nothing; a row that is inserted with a verification id '
'keeps it, and nothing is sent.';

CREATE FUNCTION otp_gateway.send_again(verification_id uuid) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'send_again';
COMMENT ON FUNCTION otp_gateway.send_again(uuid) IS
'For a row whose code never left, or is over: UPDATE ... SET verification_id = '
'otp_gateway.send_again(verification_id) has the trigger otp_gateway.send_after_commit send for the row as it is, '
'after COMMIT and under the same limits, and put the new verification''s id into its column. While the verification '
'is open (queued, sending, pending, unknown) its id is returned, and nothing changes: a double click sends one code, '
'and otp_resend sends it again. By itself it sends nothing.';

CREATE FUNCTION otp_gateway.try(
    provider text, operation text, payload jsonb DEFAULT '{}', status integer DEFAULT NULL, answer text DEFAULT NULL
) RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'try_call';
COMMENT ON FUNCTION otp_gateway.try(text, text, jsonb, integer, text) IS
'What a call would send (request, cancel_first), with *** in the place of credentials, code and secret fields; and, '
'given an HTTP status and the body of an answer, what that would be read as (reading). fields: what its payload '
'takes. Calls nobody and puts nothing on record. For the provider''s owner and superusers. A resend, verify or cancel '
'takes the reference in the payload, as of a flow begun elsewhere. Errors: those of a send for its payload and '
'options, 42501 not the owner''s.';

CREATE FUNCTION otp_gateway.is_approved(
    verification_id uuid, mobile text, within interval DEFAULT '10 minutes'
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'is_approved';
COMMENT ON FUNCTION otp_gateway.is_approved(uuid, text, interval) IS
'Whether this verification, begun by a role whose rights the caller has, was approved, no longer ago than that, '
'for this very number (for REL-ID: user id), in any spelling. Reads what is on record at the moment of the call, also '
'under REPEATABLE READ and SERIALIZABLE, and after a rollback of the transaction that called otp_verify. False, and '
'no error, for null, for an unknown id and somebody else''s, after otp_gateway.forget, and for a flow begun '
'elsewhere: nobody here knows who got its code. Errors: 22023 within is null or negative.';

-- VOLATILE: the planner calls what is STABLE, to see how many rows there will be.
CREATE FUNCTION otp_gateway_internal.found_verifications(provider text, mobile text) RETURNS otp_gateway.verification[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'found_verifications';
COMMENT ON FUNCTION otp_gateway_internal.found_verifications(text, text) IS
'for otp_gateway.find: the verifications of a number that the caller may see, as otp_gateway.verification shows them';

CREATE FUNCTION otp_gateway.find(provider text, mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    -- Not STRICT: so Postgres puts it into the query that calls it, and plans no query of its own.
    SELECT v.* FROM pg_catalog.unnest(otp_gateway_internal.found_verifications(find.provider, find.mobile)) AS v;
END;
COMMENT ON FUNCTION otp_gateway.find(text, text) IS
'The verifications of a number (for REL-ID: of a user id) at a provider or route, the newest first, of those that the '
'caller sees in otp_gateway.verification; in any spelling that otp_send takes. The number is not stored. Errors: '
'42704 no such provider; 22023 no number that it takes.';

CREATE FUNCTION otp_gateway_internal.recipient_verifications_anywhere(mobile text) RETURNS uuid[]
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'recipient_verifications_anywhere';
COMMENT ON FUNCTION otp_gateway_internal.recipient_verifications_anywhere(text) IS
'for otp_gateway.history: the ids of the verifications of a number that the caller may see, at all providers';

CREATE FUNCTION otp_gateway_internal.found_verifications_anywhere(mobile text) RETURNS otp_gateway.verification[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'found_verifications_anywhere';
COMMENT ON FUNCTION otp_gateway_internal.found_verifications_anywhere(text) IS
'for otp_gateway.find: the same at all providers';

CREATE FUNCTION otp_gateway.find(mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT v.* FROM pg_catalog.unnest(otp_gateway_internal.found_verifications_anywhere(find.mobile)) AS v;
END;
COMMENT ON FUNCTION otp_gateway.find(text) IS
'The same at all providers and routes, also those that were dropped. Errors: 22023 no number that any vendor takes.';

CREATE TYPE otp_gateway.event AS (
    "time" timestamptz, provider text, operation text, outcome text, words text, verification_id uuid,
    vendor_message text
);
COMMENT ON TYPE otp_gateway.event IS 'a row of otp_gateway.history';
COMMENT ON COLUMN otp_gateway.event."time" IS 'when it began, by the clock';
COMMENT ON COLUMN otp_gateway.event.provider IS 'the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.event.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.event.outcome IS 'how it ended; null while queued or in flight';
COMMENT ON COLUMN otp_gateway.event.words IS 'the same in a few words; where outcome is blocked, which rule it was';
COMMENT ON COLUMN otp_gateway.event.verification_id IS 'of otp_gateway.verification';
COMMENT ON COLUMN otp_gateway.event.vendor_message IS 'the vendor''s own words, or why there was no call; redacted';

CREATE FUNCTION otp_gateway.history(
    mobile text,
    since timestamptz DEFAULT pg_catalog.now() OPERATOR(pg_catalog.-) interval '30 days',
    until timestamptz DEFAULT 'infinity'
) RETURNS SETOF otp_gateway.event
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
BEGIN ATOMIC
    -- LIMIT is computed before anything is read: so the function is called, and its errors come, also where there is
    -- nothing to compare. More attempts than it says there cannot be.
    WITH found AS MATERIALIZED (
        SELECT otp_gateway_internal.recipient_verifications_anywhere(history.mobile) AS ids
    ), attempts AS MATERIALIZED (
        SELECT
            a.started_at AS began, a.id, a.provider, a.operation, a.outcome,
            otp_gateway_internal.words(a.operation, a.outcome, a.reason) AS words, a.verification_id, a.vendor_message
        FROM otp_gateway.attempt AS a
        WHERE a.verification_id OPERATOR(pg_catalog.=) ANY ((SELECT f.ids FROM found AS f)::pg_catalog.uuid[])
    ), happened AS (
        SELECT t.* FROM attempts AS t
        UNION ALL
        -- What began before its first attempt was queued: else both are of one moment.
        SELECT
            v.created_at, v.id, v.provider, 'send', NULL,
            CASE WHEN v.status OPERATOR(pg_catalog.=) 'queued' THEN 'waits its turn' ELSE 'was queued' END, v.id, NULL
        FROM otp_gateway.verification AS v
        WHERE v.id OPERATOR(pg_catalog.=) ANY ((SELECT f.ids FROM found AS f)::pg_catalog.uuid[])
            AND (v.status OPERATOR(pg_catalog.=) 'queued' OR v.created_at OPERATOR(pg_catalog.<) (
                SELECT pg_catalog.min(t.began) FROM attempts AS t WHERE t.verification_id OPERATOR(pg_catalog.=) v.id
            ))
    )
    SELECT h.began, h.provider, h.operation, h.outcome, h.words, h.verification_id, h.vendor_message
    FROM happened AS h
    WHERE h.began OPERATOR(pg_catalog.>=) history.since AND h.began OPERATOR(pg_catalog.<) history.until
    ORDER BY h.began, h.id
    LIMIT (SELECT pg_catalog.cardinality(f.ids) FROM found AS f)::pg_catalog.int8 OPERATOR(pg_catalog.*) 1000000;
END;
COMMENT ON FUNCTION otp_gateway.history(text, timestamptz, timestamptz) IS
'What happened to a number (for REL-ID: to a user id) at all providers, the earliest first: the attempts of the '
'verifications that otp_gateway.find(mobile) shows, and when their sends were queued. since, until: from when, '
'30 days ago where nothing is said, and until before when; ''today'', ''now'' and ''infinity'' too. Errors: 22023 no '
'number that any vendor takes.';

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
    SELECT f.provider, f.item, f.status, f.detail, f.hint
    FROM ROWS FROM (
        pg_catalog.jsonb_to_recordset(otp_gateway_internal.check_findings($1)) AS (
            provider pg_catalog.text, item pg_catalog.text, status pg_catalog.text, detail pg_catalog.text,
            hint pg_catalog.text
        )
    ) WITH ORDINALITY AS f (provider, item, status, detail, hint, place)
    ORDER BY f.place;
END;
COMMENT ON FUNCTION otp_gateway.check(text) IS
'What stands in the way of a send through a provider, or through each provider of a route, for the current role; one '
'row for each finding. Nothing is sent to the vendor, and nothing is put on record: a connection is made, by the '
'background worker, and given up; that takes twice the option connect_timeout at most. Errors: 42704 no such '
'provider.';

CREATE FUNCTION otp_gateway_internal.health_rows() RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'health_rows';
COMMENT ON FUNCTION otp_gateway_internal.health_rows() IS 'for otp_gateway.health: an array with an object for each row';

-- Of no type of its own: a DROP EXTENSION that is not committed would have that locked.
CREATE FUNCTION otp_gateway.health() RETURNS TABLE (
    name text, status text, level integer, value double precision, since timestamptz, detail text, hint text
)
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
BEGIN ATOMIC
    SELECT h.name, h.status, h.level, h.value, pg_catalog.to_timestamp(h.since), h.detail, h.hint
    FROM ROWS FROM (
        pg_catalog.jsonb_to_recordset(otp_gateway_internal.health_rows()) AS (
            name pg_catalog.text, status pg_catalog.text, level pg_catalog.int4, value pg_catalog.float8,
            since pg_catalog.float8, detail pg_catalog.text, hint pg_catalog.text
        )
    ) WITH ORDINALITY AS h (name, status, level, value, since, detail, hint, place)
    ORDER BY h.place;
END;
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

CREATE FUNCTION otp_gateway.id_at("time" timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    -- Milliseconds since 1970 are the first 48 bits.
    SELECT CASE
        WHEN NOT pg_catalog.isfinite($1) AND $1 OPERATOR(pg_catalog.>) 'epoch'::pg_catalog.timestamptz
        THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'
        WHEN $1 OPERATOR(pg_catalog.<) 'epoch'::pg_catalog.timestamptz THEN '00000000-0000-0000-0000-000000000000'
        ELSE pg_catalog.rpad(pg_catalog.lpad(pg_catalog.to_hex(LEAST(
            pg_catalog.floor(EXTRACT(epoch FROM $1) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8, 281474976710655
        )), 12, '0'), 32, '0')
    END::pg_catalog.uuid;
END;
COMMENT ON FUNCTION otp_gateway.id_at(timestamptz) IS
'The smallest id of that time, by which otp_gateway.attempt and otp_gateway.verification are read through their index '
'however long the record is: WHERE id >= otp_gateway.id_at(now() - interval ''1 hour'').';

CREATE FUNCTION otp_gateway.purge(older_than interval) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'purge';
COMMENT ON FUNCTION otp_gateway.purge(interval) IS
'Deletes the verifications that began longer ago than that, with their attempts, of the providers that the caller '
'owns (superusers: all), and returns how many there were; otp_gateway.retention does so by itself. What is in flight '
'or queued stays. In transactions of the worker: a rollback brings nothing back. Errors: 22023 shorter than what '
'limits and idempotency keys look back on; 42501 owner of no provider.';

CREATE FUNCTION otp_gateway.forget(provider text, mobile text) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget';
COMMENT ON FUNCTION otp_gateway.forget(text, text) IS
'For the person who asks to be forgotten: removes the masked number, the key, the references and the vendor''s '
'answers from the record of a number at a provider or route, keeps the fact of each attempt, and returns how many '
'verifications there were. An open one is canceled; limits of this number begin anew at the providers that the caller '
'owns, and go on counting at others that a route led to. The owner of the database may name a provider that was '
'dropped. In a transaction of the worker: a rollback brings nothing back. Errors: 42501 not the provider''s owner; '
'42704 no such provider; 22023 no number that it takes.';

CREATE FUNCTION otp_gateway.release(provider text, range text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'release_range';
COMMENT ON FUNCTION otp_gateway.release(text, text) IS
'Opens a range of numbers again that min_conversion holds back, or would: false, if it does not. Its counts begin '
'anew, so that it is held back again if hardly any of the next 50 codes is typed in. range: as otp_gateway.ranges has '
'it, or without the asterisks. For the provider''s owner and superusers. In a transaction of the worker: a rollback '
'takes nothing back. Errors: 42704 no such provider; 42501 not its owner; 22023 no range.';

CREATE FUNCTION otp_gateway.rotate_key() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rotate_key';
COMMENT ON FUNCTION otp_gateway.rotate_key() IS
'Puts a new key before those in otp_gateway.key_file, which seals from now on, and reseals what is sealed under the '
'others; returns how many of this database''s verifications were resealed (other databases follow by themselves). The '
'old keys stay in the file: numbers are still found by them. Copy the file to standbys and to where its copy is kept. '
'A rollback undoes nothing.';

CREATE FUNCTION otp_gateway_internal.require_library(schema text) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'require_library';
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
'library: the version of the library that the server has in memory, since its last restart; schema: the version of '
'this database''s tables and functions, which ALTER EXTENSION otp_gateway UPDATE changes. A release that changes no '
'schema has a newer library alone.';

-- The vendors. One C function checks the options of all; the name of the function that is called says whose.
DO $$
DECLARE
    vendor record;
BEGIN
    FOR vendor IN SELECT v.name, v.about FROM (VALUES
        ('iserveu', 'iServeU DMT: server options base_url, timeout, defaults, ...; user mapping options client_id, '
            'client_secret'),
        ('hyperverge', 'HyperVerge mobile OTP: server options base_url, timeout, defaults, ...; user mapping options '
            'app_id, app_key'),
        ('paytm', 'Paytm AI router: server options base_url, timeout, defaults, ...; user mapping options username and '
            'password, or none'),
        ('relid', 'Uniken REL-ID: server options base_url (required), token_url, ca_file, ...; user mapping options '
            'username and password, or access_token, or client_id and client_secret'),
        ('ideamart', 'Ideamart (Dialog): server options base_url, timeout, defaults, ...; user mapping options '
            'application_id, password'),
        ('twilio', 'Twilio Verify v2: server options service_sid (required), timeout, defaults, ...; user mapping '
            'options api_key and api_secret, or account_sid and auth_token'),
        ('msg91', 'MSG91 OTP: server options base_url, timeout, defaults, ...; user mapping option authkey'),
        ('sandbox', 'no vendor, for development: sends nothing, takes a fixed code, ends a call as its payload''s '
            'field outcome says; server options max_checks, send_limit, ...; user mapping option code, or none')
    ) AS v (name, about)
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE FUNCTION otp_gateway_internal.%I(options text[], catalog oid) RETURNS void LANGUAGE c STRICT AS '
            '%L, %L',
            vendor.name OPERATOR(pg_catalog.||) '_validator', 'MODULE_PATHNAME', 'vendor_validator');
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION otp_gateway_internal.%I(text[], oid) IS %L',
            vendor.name OPERATOR(pg_catalog.||) '_validator',
            'validator of the foreign data wrapper otp_' OPERATOR(pg_catalog.||) vendor.name
            OPERATOR(pg_catalog.||) ': refuses a mistyped or misplaced option when it is written');
        EXECUTE pg_catalog.format('CREATE FOREIGN DATA WRAPPER %I NO HANDLER VALIDATOR otp_gateway_internal.%I',
            'otp_' OPERATOR(pg_catalog.||) vendor.name, vendor.name OPERATOR(pg_catalog.||) '_validator');
        EXECUTE pg_catalog.format('COMMENT ON FOREIGN DATA WRAPPER %I IS %L',
            'otp_' OPERATOR(pg_catalog.||) vendor.name, vendor.about);
    END LOOP;
END
$$;

CREATE FUNCTION otp_gateway_internal.rest_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'vendor_validator';
COMMENT ON FUNCTION otp_gateway_internal.rest_validator(text[], oid) IS
'validator of the foreign data wrapper otp_rest: refuses a mistyped or misplaced option when it is written';
CREATE FOREIGN DATA WRAPPER otp_rest NO HANDLER VALIDATOR otp_gateway_internal.rest_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_rest IS
'any other vendor, described: server options description (or description_file) and base_url (required), timeout, '
'defaults, ...; user mapping options as the description names them';

CREATE FUNCTION otp_gateway_internal.route_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'route_validator';
COMMENT ON FUNCTION otp_gateway_internal.route_validator(text[], oid) IS
'validator of the foreign data wrapper otp_route: refuses a mistyped or misplaced option when it is written';
CREATE FOREIGN DATA WRAPPER otp_route NO HANDLER VALIDATOR otp_gateway_internal.route_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_route IS
'several providers under one name, tried in order where the one before certainly sent nothing: server options '
'providers, strategy, weights; USAGE on the route is enough';

-- Of what is not for everybody.
REVOKE ALL ON otp_gateway_internal.verification_record, otp_gateway_internal.attempt_record,
    otp_gateway_internal.reference, otp_gateway_internal.breaker, otp_gateway_internal.number_range,
    otp_gateway_internal.low_conversion FROM PUBLIC;

-- Default privileges of whoever installed this may have given any role anything.
DO $$
DECLARE
    ours pg_catalog.oid[] := ARRAY[
        'otp_gateway'::pg_catalog.regnamespace, 'otp_gateway_internal'::pg_catalog.regnamespace
    ];
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
        WHERE c.relnamespace OPERATOR(pg_catalog.=) ANY (ours)
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
        WHERE p.pronamespace OPERATOR(pg_catalog.=) ANY (ours)
            AND p.proname OPERATOR(pg_catalog.=)
                ANY (ARRAY['note_queued', 'recognise', 'rotate_key', 'stat_reset']::pg_catalog.name[])
            AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', given.function, given.grantee);
    END LOOP;
    FOR given IN
        SELECT n.oid::pg_catalog.regnamespace AS schema, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
        FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
        WHERE n.oid OPERATOR(pg_catalog.=) ANY (ours) AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA %s FROM %s CASCADE', given.schema, given.grantee);
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA otp_gateway TO PUBLIC;
GRANT SELECT ON otp_gateway.verification, otp_gateway.attempt, otp_gateway.recent, otp_gateway.ranges,
    otp_gateway.provider, otp_gateway.payload_field, otp_gateway.stat_attempt, otp_gateway.stat_latency,
    otp_gateway.stat_provider, otp_gateway.stat_worker, otp_gateway.stat_hourly TO PUBLIC;

-- Where others make functions, theirs can be called in the place of ours.
DO $$
DECLARE
    others text := (
        SELECT pg_catalog.string_agg(o.name, ', ') FROM (
            SELECT 'PUBLIC' AS name
            FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
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
        RAISE WARNING USING
            MESSAGE = pg_catalog.format('otp_gateway: other roles may create functions in schema %s, which calls of '
                'otp_send and otp_verify may then reach: %s', '@extschema@', others),
            HINT = 'Install it into a schema of its own: CREATE SCHEMA otp; CREATE EXTENSION otp_gateway SCHEMA otp; '
                'or REVOKE CREATE ON SCHEMA @extschema@ from them.';
    END IF;
END
$$;

-- Loaded by CREATE FUNCTION alone, the library has no settings of its own: those are the postmaster's to define.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'otp_gateway.max_workers'
    ) THEN
        RAISE WARNING USING
            MESSAGE = 'otp_gateway: the library is not preloaded: until it is, every call is refused',
            HINT = 'Add shared_preload_libraries = ''otp_gateway'' to postgresql.conf (after what is there, separated '
                'by a comma) and restart the server.';
    END IF;
END
$$;
