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

-- Also for rows that a restored dump brings: they are found by this server's transaction numbers, not by those of another.
CREATE FUNCTION otp_gateway.note_queued() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'note_queued';
COMMENT ON FUNCTION otp_gateway.note_queued() IS
'trigger of otp_gateway.verification: stamps a queued row with its transaction, and has the commit tell the worker';
REVOKE ALL ON FUNCTION otp_gateway.note_queued() FROM PUBLIC;
CREATE TRIGGER note_queued BEFORE INSERT ON otp_gateway.verification
FOR EACH ROW WHEN (NEW.status OPERATOR(pg_catalog.=) 'queued') EXECUTE FUNCTION otp_gateway.note_queued();
ALTER TABLE otp_gateway.verification ENABLE ALWAYS TRIGGER note_queued;

CREATE FUNCTION @extschema@.otp_enqueue(
    provider text, payload jsonb,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
) LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'otp_enqueue';
COMMENT ON FUNCTION @extschema@.otp_enqueue(text, jsonb) IS
'Has a code sent if, and only if, this transaction commits, and after it: checks payload and rights now, and returns the row of a verification that is queued. A rollback leaves nothing of it. otp_gateway.wait follows it. Errors: 22023 payload, 42501 no USAGE, 42704 no such provider, 54000 more than otp_gateway.max_sends_per_transaction.';

CREATE FUNCTION otp_gateway.wait(
    verification_id uuid, timeout interval,
    OUT verification_id uuid, OUT attempt_id uuid, OUT status text, OUT outcome text, OUT retryable boolean,
    OUT attempts_left integer, OUT retry_after interval, OUT expires_at timestamptz, OUT reference text,
    OUT vendor_code text, OUT vendor_message text, OUT response jsonb
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
CROSS JOIN LATERAL ROWS FROM (
    pg_catalog.jsonb_to_recordset(otp_gateway.effective_settings(server.oid))
    AS (setting pg_catalog.text, value pg_catalog.text, source pg_catalog.text)
) WITH ORDINALITY AS setting (setting, value, source, place)
ORDER BY server.srvname, setting.place;
COMMENT ON VIEW otp_gateway.provider IS
'what is in force at every provider, one row for each setting: each option of the server, given or not, and which credentials the current role would use; no secret is in it';
COMMENT ON COLUMN otp_gateway.provider.provider IS 'the foreign server';
COMMENT ON COLUMN otp_gateway.provider.vendor IS 'the dialect; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.provider.setting IS
'the server option; or credentials: the user mapping of the current role, else of PUBLIC; or error: the options cannot be read, and calls fail with the same words';
COMMENT ON COLUMN otp_gateway.provider.value IS
'what holds, as the option takes it; null: not set and without a default; of test_numbers the codes are replaced by ***, of credentials the option names are all that is shown';
COMMENT ON COLUMN otp_gateway.provider.source IS 'server, vendor default, default or user mapping';
GRANT SELECT ON otp_gateway.provider TO PUBLIC;
