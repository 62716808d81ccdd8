/* otp_gateway 0.1.0. A released install script stays as it is: changes come in upgrade scripts beside it. */

-- complain if the script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION otp_gateway" to load this file. \quit

-- Tables, types and the validators live in this schema; the functions that applications call land in the schema that
-- CREATE EXTENSION was told.
CREATE SCHEMA otp_gateway;
COMMENT ON SCHEMA otp_gateway IS 'the record that the extension otp_gateway keeps of one-time-password flows';

CREATE DOMAIN otp_gateway.status AS text CHECK (VALUE IN (
    'queued', 'sending', 'pending', 'approved', 'canceled', 'expired', 'max_attempts_reached', 'failed', 'blocked', 'unknown'
));
COMMENT ON DOMAIN otp_gateway.status IS
'where a verification stands; approved, canceled, expired, max_attempts_reached, failed and blocked are terminal and never reopen';

CREATE DOMAIN otp_gateway.operation AS text CHECK (VALUE IN ('send', 'verify', 'resend', 'cancel'));
COMMENT ON DOMAIN otp_gateway.operation IS 'what an attempt asks of a vendor';

CREATE DOMAIN otp_gateway.outcome AS text CHECK (VALUE IN (
    'sent', 'approved', 'canceled', 'invalid_code', 'expired', 'already_used', 'already_registered', 'max_attempts_reached',
    'not_found', 'rate_limited', 'invalid_request', 'auth_failed', 'refused', 'provider_error', 'unreachable', 'unknown',
    'blocked'
));
COMMENT ON DOMAIN otp_gateway.outcome IS
'how an attempt ended, in one vocabulary for all vendors; unknown: it may or may not have happened, and is never repeated';

CREATE TABLE otp_gateway.verification (
    id uuid PRIMARY KEY,
    provider text NOT NULL,
    vendor text NOT NULL,
    status otp_gateway.status NOT NULL,
    recipient_masked text,
    recipient_key bytea,
    reference text,
    created_by name NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    approved_at timestamptz,
    send_count integer NOT NULL,
    check_count integer NOT NULL,
    max_checks integer NOT NULL,
    sealed bytea
    -- Room on each page lets an update stay there and leave the indexes alone (HOT). For the same reason no index, and
    -- no index's predicate, may name a column that changes: status, reference, expires_at, the counts, sealed.
) WITH (fillfactor = 50);
CREATE INDEX verification_recipient_key_idx ON otp_gateway.verification (recipient_key, provider);
COMMENT ON TABLE otp_gateway.verification IS
'one one-time-password flow for one recipient, from the send to its end; written by the worker in transactions of its own, so that a rollback of the caller undoes nothing here';
COMMENT ON COLUMN otp_gateway.verification.id IS 'time-ordered (UUID version 7); the argument of otp_verify, otp_resend and otp_cancel';
COMMENT ON COLUMN otp_gateway.verification.provider IS 'the foreign server that it goes through';
COMMENT ON COLUMN otp_gateway.verification.vendor IS 'the dialect: iserveu, hyperverge, paytm, relid or ideamart';
COMMENT ON COLUMN otp_gateway.verification.recipient_masked IS 'whom the code goes to, as it may be shown';
COMMENT ON COLUMN otp_gateway.verification.recipient_key IS 'HMAC-SHA-256 of the normalised recipient under a key that is not in the database: finds a recipient, does not name one';
COMMENT ON COLUMN otp_gateway.verification.reference IS 'the latest reference that vendor and application share for this flow';
COMMENT ON COLUMN otp_gateway.verification.created_by IS 'the role that began it';
COMMENT ON COLUMN otp_gateway.verification.expires_at IS 'when the code ends, counted from the answer to the latest send; null where neither the vendor nor code_lifetime says';
COMMENT ON COLUMN otp_gateway.verification.send_count IS 'sends and resends begun';
COMMENT ON COLUMN otp_gateway.verification.check_count IS 'checks spent; one is booked before each verify leaves, and given back where the vendor certainly compared nothing';
COMMENT ON COLUMN otp_gateway.verification.max_checks IS 'checks allowed';
COMMENT ON COLUMN otp_gateway.verification.sealed IS 'what a later verify or resend needs, AES-256-GCM under otp_gateway.key_file; null once the verification has ended';

CREATE TABLE otp_gateway.attempt (
    id uuid PRIMARY KEY,
    verification_id uuid NOT NULL,
    -- No foreign key: the worker is the only writer, and the check of one would cost a lookup and a row lock for each attempt.
    operation otp_gateway.operation NOT NULL,
    outcome otp_gateway.outcome,
    http_status integer,
    vendor_code text,
    vendor_message text,
    response jsonb,
    started_at timestamptz NOT NULL,
    finished_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX attempt_verification_id_idx ON otp_gateway.attempt (verification_id);
COMMENT ON TABLE otp_gateway.attempt IS
'one call to a vendor, or one refusal: written durably before the first byte leaves, completed once when its outcome is known';
COMMENT ON COLUMN otp_gateway.attempt.outcome IS 'null while in flight';
COMMENT ON COLUMN otp_gateway.attempt.http_status IS 'the HTTP status of the answer; null where none came or no call was made';
COMMENT ON COLUMN otp_gateway.attempt.vendor_code IS 'the code in the vendor''s own answer';
COMMENT ON COLUMN otp_gateway.attempt.vendor_message IS 'the vendor''s own words, or the gateway''s where it must say why; redacted';
COMMENT ON COLUMN otp_gateway.attempt.response IS 'the vendor''s answer with sensitive members removed';
COMMENT ON COLUMN otp_gateway.attempt.started_at IS 'by the clock, not by the transaction';

-- Finds a verification by a reference that arrives with the answer to its send. A column of verification with an index
-- would make that update touch every index of the table.
CREATE TABLE otp_gateway.reference (
    provider text NOT NULL,
    reference text NOT NULL,
    verification_id uuid NOT NULL
);
CREATE INDEX reference_reference_idx ON otp_gateway.reference (reference, provider);
COMMENT ON TABLE otp_gateway.reference IS 'every reference that a verification was ever known by';

REVOKE ALL ON otp_gateway.verification, otp_gateway.attempt, otp_gateway.reference FROM PUBLIC;
GRANT USAGE ON SCHEMA otp_gateway TO PUBLIC;

-- The record belongs to the data: pg_dump carries it.
SELECT pg_catalog.pg_extension_config_dump('otp_gateway.verification', '');
SELECT pg_catalog.pg_extension_config_dump('otp_gateway.attempt', '');
SELECT pg_catalog.pg_extension_config_dump('otp_gateway.reference', '');

-- Every function returns one row, by OUT parameters: a composite type of ours could not be put out any more by a call
-- during which the extension is dropped.
CREATE FUNCTION @extschema@.otp_send(
    provider text, payload jsonb,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_send';
COMMENT ON FUNCTION @extschema@.otp_send(text, jsonb) IS
'Asks the provider (a foreign server) to send a code now and waits for the answer; a rollback does not unsend it. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came.';

CREATE FUNCTION @extschema@.otp_verify(
    verification_id uuid, otp text, payload jsonb DEFAULT '{}',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_verify_by_id';
COMMENT ON FUNCTION @extschema@.otp_verify(uuid, text, jsonb) IS
'Has the vendor check the user''s code for a verification that otp_send began; the try counts even if you roll back. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came.';

CREATE FUNCTION @extschema@.otp_verify(
    provider text, otp text, payload jsonb DEFAULT '{}',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_verify_by_provider';
COMMENT ON FUNCTION @extschema@.otp_verify(text, text, jsonb) IS
'Has the vendor check a code of a flow begun elsewhere, found by reference or recipient in the payload; a first argument that reads as a uuid is taken for a verification id. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came.';

CREATE FUNCTION @extschema@.otp_resend(
    verification_id uuid, payload jsonb DEFAULT '{}',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_resend';
COMMENT ON FUNCTION @extschema@.otp_resend(uuid, jsonb) IS
'Has the vendor send a code again; payload holds what differs from the send. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came.';

CREATE FUNCTION @extschema@.otp_cancel(
    verification_id uuid,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_cancel';
COMMENT ON FUNCTION @extschema@.otp_cancel(uuid) IS
'Has the vendor void the code, where it can: REL-ID. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came.';

CREATE FUNCTION otp_gateway.iserveu_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'iserveu_validator';
CREATE FUNCTION otp_gateway.hyperverge_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'hyperverge_validator';
CREATE FUNCTION otp_gateway.paytm_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'paytm_validator';
CREATE FUNCTION otp_gateway.relid_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'relid_validator';
CREATE FUNCTION otp_gateway.ideamart_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'ideamart_validator';

CREATE FOREIGN DATA WRAPPER otp_iserveu NO HANDLER VALIDATOR otp_gateway.iserveu_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_iserveu IS 'iServeU DMT: server options base_url, timeout, defaults, ...; user mapping options client_id, client_secret';
CREATE FOREIGN DATA WRAPPER otp_hyperverge NO HANDLER VALIDATOR otp_gateway.hyperverge_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_hyperverge IS 'HyperVerge mobile OTP: server options base_url, timeout, defaults, ...; user mapping options app_id, app_key';
CREATE FOREIGN DATA WRAPPER otp_paytm NO HANDLER VALIDATOR otp_gateway.paytm_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_paytm IS 'Paytm AI router: server options base_url, timeout, defaults, ...; user mapping options username and password, or none';
CREATE FOREIGN DATA WRAPPER otp_relid NO HANDLER VALIDATOR otp_gateway.relid_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_relid IS 'Uniken REL-ID: server options base_url (required), token_url, ca_file, ...; user mapping options username and password, or access_token, or client_id and client_secret';
CREATE FOREIGN DATA WRAPPER otp_ideamart NO HANDLER VALIDATOR otp_gateway.ideamart_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_ideamart IS 'Ideamart (Dialog): server options base_url, timeout, defaults, ...; user mapping options application_id, password';
