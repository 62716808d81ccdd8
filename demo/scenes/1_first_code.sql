-- A first code, at the sandbox: no account, no network
-- Two functions make a log-in. A wrong code is a row, not an error.
\set ECHO queries
CREATE SCHEMA otp;
CREATE EXTENSION otp_gateway SCHEMA otp;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox;
SELECT verification_id, status, outcome
FROM otp.otp_send('sandbox', '{"mobile": "+94770000001"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', '123456');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', '000000');
