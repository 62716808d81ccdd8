/* otp_gateway 0.2.0 -> 0.3.0: who sees what of the record, how long it is kept, and the rotation of the key. */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- The tables hold what nobody but a superuser may see (sealed, recipient_key). A column cannot be withheld from members of
-- pg_read_all_data, who may read every column of every table; rows can, by row security. So the tables have
-- no policy at all, which hides every row from everybody whom row security binds, pg_write_all_data included; and what a
-- role may see it sees in views of the names that the tables had.
ALTER TABLE otp_gateway.verification RENAME TO verification_record;
ALTER TABLE otp_gateway.attempt RENAME TO attempt_record;
ALTER TABLE otp_gateway.verification_record ENABLE ROW LEVEL SECURITY;
ALTER TABLE otp_gateway.attempt_record ENABLE ROW LEVEL SECURITY;
ALTER TABLE otp_gateway.reference ENABLE ROW LEVEL SECURITY;
ALTER TABLE otp_gateway.breaker ENABLE ROW LEVEL SECURITY;
-- pg_read_all_data reads catalogs and TOAST tables as well, where no row security reaches. So ANALYZE takes no samples of
-- the secret columns, and none that it took is kept; and a row stays whole while it fits on a page.
ALTER TABLE otp_gateway.verification_record
    ALTER COLUMN recipient_key SET STATISTICS 0, ALTER COLUMN sealed SET STATISTICS 0,
    ALTER COLUMN idempotency_key SET STATISTICS 0, ALTER COLUMN payload_hash SET STATISTICS 0,
    SET (toast_tuple_target = 8160);
ALTER TABLE otp_gateway.attempt_record ALTER COLUMN recipient_key SET STATISTICS 0;
DELETE FROM pg_catalog.pg_statistic AS s USING pg_catalog.pg_attribute AS a
WHERE s.starelid OPERATOR(pg_catalog.=) a.attrelid AND s.staattnum OPERATOR(pg_catalog.=) a.attnum
    AND a.attstattarget OPERATOR(pg_catalog.=) 0 AND a.attrelid OPERATOR(pg_catalog.=) ANY (ARRAY[
        'otp_gateway.verification_record'::pg_catalog.regclass, 'otp_gateway.attempt_record'::pg_catalog.regclass
    ]::pg_catalog.oid[]);
COMMENT ON TABLE otp_gateway.verification_record IS
'what the view otp_gateway.verification shows, with what only superusers see; written by the worker in transactions of its own, so that a rollback of the caller undoes nothing here';
COMMENT ON TABLE otp_gateway.attempt_record IS
'what the view otp_gateway.attempt shows, with what only superusers see: written durably before the first byte leaves, completed once when its outcome is known';
COMMENT ON COLUMN otp_gateway.attempt_record.recipient_key IS
'as in otp_gateway.verification_record: whose limits it counts against; null for a test number''s, which counts for nobody; empty where the recipient was forgotten, which still counts for provider_limit';

-- By roles before providers: who looks up a number reads one's own rows alone, and no time tells of those of others.
DROP INDEX otp_gateway.verification_recipient_key_idx;
CREATE INDEX verification_recipient_key_idx ON otp_gateway.verification_record (recipient_key, created_by, provider);

-- Ids are time-ordered: the index grows at its end, which costs a send next to nothing.
CREATE INDEX reference_verification_id_idx ON otp_gateway.reference (verification_id);

-- The WITH clauses name whom the reader may act for, once; and they make that nothing can be written through the views.
-- Only servers of our wrappers count: of another wrapper's, somebody may make one with the name of a provider that is gone.
-- OFFSET 0 keeps the reader's conditions out of the scan of the table. A security barrier lets those with = and < into it,
-- and then EXPLAIN ANALYZE, and the time, tell how many rows of others meet them. By the ids, which are random, one may look up.
CREATE VIEW otp_gateway.verification WITH (security_barrier) AS
WITH acts_for AS (
    SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER')
), owns AS (
    SELECT s.srvname::pg_catalog.text AS provider FROM pg_catalog.pg_foreign_server AS s
    JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
    WHERE w.fdwname OPERATOR(pg_catalog.~) '^otp_' AND pg_catalog.pg_has_role(s.srvowner, 'MEMBER')
), reads_all AS (
    SELECT FROM pg_catalog.pg_roles AS r
    WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE')
)
SELECT v.id, shown.*
FROM otp_gateway.verification_record AS v
CROSS JOIN LATERAL (
    SELECT
        v.provider, v.vendor, v.status, v.recipient_masked, v.reference, v.created_by, v.created_at, v.expires_at,
        v.approved_at, v.send_count, v.check_count, v.max_checks, v.is_test, v.route
    OFFSET 0
) AS shown
WHERE v.created_by OPERATOR(pg_catalog.=) ANY (SELECT a.rolname FROM acts_for AS a)
    OR v.provider OPERATOR(pg_catalog.=) ANY (SELECT o.provider FROM owns AS o)
    OR v.route OPERATOR(pg_catalog.=) ANY (SELECT o.provider FROM owns AS o)
    OR EXISTS (SELECT FROM reads_all);
COMMENT ON VIEW otp_gateway.verification IS
'one one-time-password flow for one recipient, from the send to its end: those that a role began which one is a member of; for the owner of a provider all of that provider, for members of pg_read_all_data all. A rollback of the caller undoes nothing here';
COMMENT ON COLUMN otp_gateway.verification.id IS 'time-ordered (UUID version 7); the argument of otp_verify, otp_resend and otp_cancel';
COMMENT ON COLUMN otp_gateway.verification.provider IS 'the foreign server that it goes through';
COMMENT ON COLUMN otp_gateway.verification.vendor IS 'the dialect: iserveu, hyperverge, paytm, relid, ideamart or sandbox';
COMMENT ON COLUMN otp_gateway.verification.status IS
'where it stands; approved, canceled, expired, max_attempts_reached, failed and blocked are terminal and never reopen';
COMMENT ON COLUMN otp_gateway.verification.recipient_masked IS 'whom the code goes to, as it may be shown; otp_gateway.find looks up by the number';
COMMENT ON COLUMN otp_gateway.verification.reference IS 'the latest reference that vendor and application share for this flow';
COMMENT ON COLUMN otp_gateway.verification.created_by IS 'the role that began it';
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
'the route (foreign server of otp_route) that it was asked of; provider is then the one of its providers that it went to';
GRANT SELECT ON otp_gateway.verification TO PUBLIC;

CREATE VIEW otp_gateway.attempt WITH (security_barrier) AS
WITH owns AS (
    SELECT s.srvname::pg_catalog.text AS provider FROM pg_catalog.pg_foreign_server AS s
    JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
    WHERE w.fdwname OPERATOR(pg_catalog.~) '^otp_' AND pg_catalog.pg_has_role(s.srvowner, 'MEMBER')
)
SELECT a.id, a.verification_id, shown.*
FROM otp_gateway.attempt_record AS a
CROSS JOIN LATERAL (
    SELECT
        a.operation, a.outcome, a.http_status, a.vendor_code, a.vendor_message, a.response, a.started_at, a.finished_at,
        a.provider, a.reason
    OFFSET 0
) AS shown
WHERE a.provider OPERATOR(pg_catalog.=) ANY (SELECT o.provider FROM owns AS o)
    OR EXISTS (SELECT FROM otp_gateway.verification AS v WHERE v.id OPERATOR(pg_catalog.=) a.verification_id);
COMMENT ON VIEW otp_gateway.attempt IS
'one call to a vendor, or one refusal, of the verifications that otp_gateway.verification shows; for the owner of a provider all that went to it';
COMMENT ON COLUMN otp_gateway.attempt.id IS 'time-ordered (UUID version 7)';
COMMENT ON COLUMN otp_gateway.attempt.verification_id IS 'of otp_gateway.verification';
COMMENT ON COLUMN otp_gateway.attempt.operation IS 'what it asks of the vendor: send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.attempt.outcome IS 'how it ended, in one vocabulary for all vendors; null while in flight';
COMMENT ON COLUMN otp_gateway.attempt.http_status IS 'the HTTP status of the answer; null where none came or no call was made';
COMMENT ON COLUMN otp_gateway.attempt.vendor_code IS 'the code in the vendor''s own answer';
COMMENT ON COLUMN otp_gateway.attempt.vendor_message IS 'the vendor''s own words, or the gateway''s where it must say why; redacted';
COMMENT ON COLUMN otp_gateway.attempt.response IS 'the vendor''s answer with sensitive members removed';
COMMENT ON COLUMN otp_gateway.attempt.started_at IS 'by the clock, not by the transaction';
COMMENT ON COLUMN otp_gateway.attempt.finished_at IS 'when its outcome was put on record';
COMMENT ON COLUMN otp_gateway.attempt.provider IS 'the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.attempt.reason IS
'the rule that refused it (outcome blocked), or, where the provider''s rules are only observed, would have';
GRANT SELECT ON otp_gateway.attempt TO PUBLIC;

CREATE FUNCTION otp_gateway.recipient_verifications(provider text, mobile text) RETURNS uuid[]
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'recipient_verifications';
COMMENT ON FUNCTION otp_gateway.recipient_verifications(text, text) IS
'for otp_gateway.find: the ids of the verifications of a number that the caller may see';

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
COMMENT ON FUNCTION otp_gateway.find(text, text) IS
'The verifications of a number (for REL-ID: of a user id) at a provider or route, the newest first, of those that the caller sees in otp_gateway.verification; in any spelling that otp_send takes. The number is not stored. Errors: 42704 no such provider; 22023 no number that it takes.';

CREATE FUNCTION otp_gateway.purge(older_than interval) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'purge';
COMMENT ON FUNCTION otp_gateway.purge(interval) IS
'Deletes the verifications that began longer ago than that, with their attempts, of the providers that the caller owns (superusers: all), and returns how many there were; otp_gateway.retention does so by itself. What is in flight or queued stays. In transactions of the worker: a rollback brings nothing back. Errors: 22023 shorter than what limits and idempotency keys look back on; 42501 owner of no provider.';

CREATE FUNCTION otp_gateway.forget(provider text, mobile text) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget';
COMMENT ON FUNCTION otp_gateway.forget(text, text) IS
'For the person who asks to be forgotten: removes the masked number, the key, the references and the vendor''s answers from the record of a number at a provider or route, keeps the fact of each attempt, and returns how many verifications there were. An open one is canceled; limits of this number begin anew. In a transaction of the worker: a rollback brings nothing back. Errors: 42501 not the provider''s owner; 42704 no such provider; 22023 no number that it takes.';

CREATE FUNCTION otp_gateway.rotate_key() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rotate_key';
COMMENT ON FUNCTION otp_gateway.rotate_key() IS
'Puts a new key before those in otp_gateway.key_file, which seals from now on, and reseals what is sealed under the others; returns how many of this database''s verifications were resealed (other databases follow by themselves). The old keys stay in the file: numbers are still found by them. Copy the file to standbys and to where its copy is kept. A rollback undoes nothing.';
REVOKE ALL ON FUNCTION otp_gateway.rotate_key() FROM PUBLIC;
