-- A guess is counted, whatever becomes of its transaction
-- Rolling back gives no guess back: a background worker keeps the record.
\set ECHO queries
CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart
  OPTIONS (base_url :'ideamart_url', allow_plain_http 'true');
CREATE USER MAPPING FOR PUBLIC SERVER ideamart
  OPTIONS (application_id 'APP_001100', password 'demo-password');
SELECT status, outcome, attempts_left
FROM otp.otp_send('ideamart', '{"mobile": "0771234567"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox ideamart 0771234567`
\set wrong `demo/inbox ideamart 0771234567 wrong`
\echo '-- The phone shows' :code
\set ECHO queries
BEGIN;
SELECT outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
ROLLBACK;
SELECT count(*) AS wrong_codes_on_record
FROM otp_gateway.attempt
WHERE verification_id = :'verification_id'
  AND outcome = 'invalid_code';
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
