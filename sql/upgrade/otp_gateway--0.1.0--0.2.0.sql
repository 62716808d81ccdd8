/* otp_gateway 0.1.0 -> 0.2.0: sending after COMMIT, the sandbox, the view of what is in force. CREATE EXTENSION of 0.2.0 runs 0.1.0's script and then this one. */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- Never changes, so that its index costs no update anything (HOT), and immediate sends are not in it.
ALTER TABLE otp_gateway.verification ADD COLUMN enqueued xid8;
COMMENT ON COLUMN otp_gateway.verification.enqueued IS
'the transaction that enqueued it, whose COMMIT lets it be sent; null for a flow that was not queued';
COMMENT ON COLUMN otp_gateway.verification.sealed IS
'while queued: the payload; then what a later verify or resend needs; AES-256-GCM under otp_gateway.key_file, null once the verification has ended';
CREATE INDEX verification_enqueued_idx ON otp_gateway.verification (enqueued, id) WHERE enqueued IS NOT NULL;

ALTER TABLE otp_gateway.verification
    ADD COLUMN idempotency_key bytea, ADD COLUMN payload_hash bytea, ADD COLUMN is_test boolean NOT NULL DEFAULT false,
    ADD COLUMN route text;
COMMENT ON COLUMN otp_gateway.verification.route IS
'the route (foreign server of otp_route) that it was asked of; provider is then the one of its providers that it went to';
COMMENT ON COLUMN otp_gateway.verification.idempotency_key IS
'HMAC of provider and idempotency key that it was begun with; the same key within 24 hours is this verification';
COMMENT ON COLUMN otp_gateway.verification.payload_hash IS 'HMAC of the payload that the key goes with';
COMMENT ON COLUMN otp_gateway.verification.is_test IS
'to one of the provider''s test_numbers: answered by the gateway itself, no message was sent, and no limit counts it';
CREATE INDEX verification_idempotency_key_idx ON otp_gateway.verification (idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- What limits count, where they can find it. None of these columns ever changes, so that the indexes cost no update.
ALTER TABLE otp_gateway.attempt ADD COLUMN provider text, ADD COLUMN recipient_key bytea, ADD COLUMN reason text;
COMMENT ON COLUMN otp_gateway.attempt.provider IS 'the foreign server that it went to, or would have';
COMMENT ON COLUMN otp_gateway.attempt.recipient_key IS
'as in otp_gateway.verification: whose limits it counts against; null for a test number''s, which counts for nobody';
COMMENT ON COLUMN otp_gateway.attempt.reason IS
'the rule that refused it (outcome blocked), or, where the provider''s rules are only observed, would have';
UPDATE otp_gateway.attempt AS a SET provider = v.provider, recipient_key = v.recipient_key
FROM otp_gateway.verification AS v WHERE v.id OPERATOR(pg_catalog.=) a.verification_id;
CREATE INDEX attempt_recipient_idx ON otp_gateway.attempt (recipient_key, provider, started_at)
    WHERE reason IS NULL AND recipient_key IS NOT NULL;
CREATE INDEX attempt_provider_idx ON otp_gateway.attempt (provider, started_at)
    WHERE reason IS NULL AND operation::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['send', 'resend']);

CREATE TABLE otp_gateway.breaker (
    server oid PRIMARY KEY,
    open_until timestamptz NOT NULL
);
COMMENT ON TABLE otp_gateway.breaker IS
'providers that failed several times in a row and are left alone for a while; written by the worker, which keeps the state';
COMMENT ON COLUMN otp_gateway.breaker.server IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.breaker.open_until IS 'when the next single send is let through to see whether it is well again';
REVOKE ALL ON otp_gateway.breaker FROM PUBLIC;

-- Also for rows that a restored dump brings: they are found by this server's transaction numbers, not by those of another.
CREATE FUNCTION otp_gateway.note_queued() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'note_queued';
COMMENT ON FUNCTION otp_gateway.note_queued() IS
'trigger of otp_gateway.verification: stamps a queued row with its transaction, and has the commit tell the worker';
REVOKE ALL ON FUNCTION otp_gateway.note_queued() FROM PUBLIC;
CREATE TRIGGER note_queued BEFORE INSERT ON otp_gateway.verification
FOR EACH ROW WHEN (NEW.status OPERATOR(pg_catalog.=) 'queued') EXECUTE FUNCTION otp_gateway.note_queued();
ALTER TABLE otp_gateway.verification ENABLE ALWAYS TRIGGER note_queued;

-- Every function gets the column reason, and sends take an idempotency key.
DROP FUNCTION @extschema@.otp_send(text, jsonb);
DROP FUNCTION @extschema@.otp_verify(uuid, text, jsonb);
DROP FUNCTION @extschema@.otp_verify(text, text, jsonb);
DROP FUNCTION @extschema@.otp_resend(uuid, jsonb);
DROP FUNCTION @extschema@.otp_cancel(uuid);

CREATE FUNCTION @extschema@.otp_send(
    provider text, payload jsonb, idempotency_key text DEFAULT NULL,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_send';
COMMENT ON FUNCTION @extschema@.otp_send(text, jsonb, text) IS
'Asks the provider (a foreign server) to send a code now and waits for the answer; a rollback does not unsend it. idempotency_key: for 24 hours the same key at the same provider is the same verification, and its result is returned; with another payload it is an error (22023). Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came; reason: the rule that refused, where outcome is blocked.';

CREATE FUNCTION @extschema@.otp_enqueue(
    provider text, payload jsonb, idempotency_key text DEFAULT NULL,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_enqueue';
COMMENT ON FUNCTION @extschema@.otp_enqueue(text, jsonb, text) IS
'Has a code sent if, and only if, this transaction commits, and after it: checks payload and rights now, and returns the row of a verification that is queued. A rollback leaves nothing of it. otp_gateway.wait follows it. idempotency_key: for 24 hours the same key at the same provider is the same verification, and its result is returned; with another payload it is an error (22023). Errors: 22023 payload, 42501 no USAGE, 42704 no such provider, 54000 more than otp_gateway.max_sends_per_transaction.';

CREATE FUNCTION @extschema@.otp_verify(
    verification_id uuid, otp text, payload jsonb DEFAULT '{}',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_verify_by_id';
COMMENT ON FUNCTION @extschema@.otp_verify(uuid, text, jsonb) IS
'Has the vendor check the user''s code for a verification that otp_send began; the try counts even if you roll back. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came; reason: the rule that refused, where outcome is blocked.';

CREATE FUNCTION @extschema@.otp_verify(
    provider text, otp text, payload jsonb DEFAULT '{}',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_verify_by_provider';
COMMENT ON FUNCTION @extschema@.otp_verify(text, text, jsonb) IS
'Has the vendor check a code of a flow begun elsewhere, found by reference or recipient in the payload; a first argument that reads as a uuid is taken for a verification id. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came; reason: the rule that refused, where outcome is blocked.';

CREATE FUNCTION @extschema@.otp_resend(
    verification_id uuid, payload jsonb DEFAULT '{}',
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_resend';
COMMENT ON FUNCTION @extschema@.otp_resend(uuid, jsonb) IS
'Has the vendor send a code again; payload holds what differs from the send. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came; reason: the rule that refused, where outcome is blocked.';

CREATE FUNCTION @extschema@.otp_cancel(
    verification_id uuid,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_cancel';
COMMENT ON FUNCTION @extschema@.otp_cancel(uuid) IS
'Has the vendor void the code, where it can: REL-ID. One that is still queued is canceled unsent. Returns one row; a business outcome is a row, never an error. verification_id: keep it, otp_verify, otp_resend and otp_cancel take it; attempt_id: the row in otp_gateway.attempt; status: where the verification stands now; outcome: how this attempt ended; retryable: the same call may safely be made again (after retry_after, or for invalid_code with another code); attempts_left: checks left; reference: of this flow at the vendor; response: the vendor''s answer as it came; reason: the rule that refused, where outcome is blocked.';

CREATE FUNCTION otp_gateway.wait(
    verification_id uuid, timeout interval,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb, OUT reason text
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_wait';
COMMENT ON FUNCTION otp_gateway.wait(uuid, interval) IS
'Waits until the send of a verification has an outcome, and returns its row; when the timeout is over, the row as it is then (status queued or sending, outcome null). Errors: 55000 inside the transaction that enqueued it, for it would never end there; 42704 no such verification of yours.';

CREATE FUNCTION otp_gateway.send_after_commit() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'send_after_commit';
COMMENT ON FUNCTION otp_gateway.send_after_commit() IS
'Row trigger, BEFORE or AFTER INSERT OR UPDATE: enqueues a send for the row. Arguments: the provider; a JSON object that maps payload fields to columns, {"mobile": "phone"}, where a value that begins with = is a constant, {"template_id": "=login"}; for a BEFORE trigger, optionally the uuid column that takes the verification id. An UPDATE sends only if a mapped column changed; a NULL in a required field sends nothing; a row that is inserted with a verification id keeps it, and nothing is sent.';

CREATE FUNCTION otp_gateway.sandbox_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'sandbox_validator';
COMMENT ON FUNCTION otp_gateway.sandbox_validator(text[], oid) IS
'validator of the foreign data wrapper otp_sandbox: refuses a mistyped or misplaced option when it is written';

CREATE FOREIGN DATA WRAPPER otp_sandbox NO HANDLER VALIDATOR otp_gateway.sandbox_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_sandbox IS
'no vendor, for development: sends nothing, takes a fixed code, ends a call as its payload''s field outcome says; server options max_checks, send_limit, ...; user mapping option code, or none';
COMMENT ON COLUMN otp_gateway.verification.vendor IS 'the dialect: iserveu, hyperverge, paytm, relid, ideamart or sandbox';

CREATE FUNCTION otp_gateway.route_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'route_validator';
COMMENT ON FUNCTION otp_gateway.route_validator(text[], oid) IS
'validator of the foreign data wrapper otp_route: refuses a mistyped or misplaced option when it is written';

CREATE FOREIGN DATA WRAPPER otp_route NO HANDLER VALIDATOR otp_gateway.route_validator;
COMMENT ON FOREIGN DATA WRAPPER otp_route IS
'several providers under one name, tried in order where the one before certainly sent nothing: server options providers, strategy, weights; USAGE on the route is enough';

CREATE FUNCTION otp_gateway.effective_settings(server oid) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'effective_settings';
COMMENT ON FUNCTION otp_gateway.effective_settings(oid) IS
'What is in force at a foreign server of otp_gateway, for the view otp_gateway.provider: an array of objects with setting, value and source; empty for any other server.';

CREATE VIEW otp_gateway.provider AS
SELECT
    server.srvname::pg_catalog.text AS provider,
    pg_catalog.substr(wrapper.fdwname::pg_catalog.text, 5) AS vendor,
    setting.setting,
    setting.value,
    setting.source
FROM pg_catalog.pg_foreign_server AS server
JOIN pg_catalog.pg_foreign_data_wrapper AS wrapper ON wrapper.oid OPERATOR(pg_catalog.=) server.srvfdw
LEFT JOIN otp_gateway.breaker ON breaker.server OPERATOR(pg_catalog.=) server.oid
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
COMMENT ON VIEW otp_gateway.provider IS
'what is in force at every provider, one row for each setting: each option of the server, given or not, and which credentials the current role would use; no secret is in it';
COMMENT ON COLUMN otp_gateway.provider.provider IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.provider.vendor IS 'the dialect; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.provider.setting IS
'the server option; or credentials: the user mapping of the current role, else of PUBLIC; or breaker: whether sends are let through; or error: the options cannot be read, and calls fail with the same words';
COMMENT ON COLUMN otp_gateway.provider.value IS
'what holds, as the option takes it; null: not set and without a default; of test_numbers the codes are replaced by ***, of credentials the option names are all that is shown';
COMMENT ON COLUMN otp_gateway.provider.source IS 'server, vendor default, default, user mapping or state';
GRANT SELECT ON otp_gateway.provider TO PUBLIC;
