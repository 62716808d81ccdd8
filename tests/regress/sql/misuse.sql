-- Promise: misuse is an error that names the field, its rule and what to do, and never a value of the payload; nothing
-- is sent.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url 'https://127.0.0.1:9');
SELECT outcome FROM otp_send('ideamart', '{"mobile": "0771234567"}');
CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'APP_1', password 'p');
SELECT outcome FROM otp_send('nobody', '{"mobile": "0771234567"}');
SELECT outcome FROM otp_send(NULL, '{"mobile": "0771234567"}');
SELECT outcome FROM otp_send('ideamart', NULL);
SELECT outcome FROM otp_send('ideamart', '[]');
SELECT outcome FROM otp_send('ideamart', '{}');
SELECT outcome FROM otp_send('ideamart', '{"mobil": "0771234567"}');
SELECT outcome FROM otp_send('ideamart', '{"mobile": "0771234567", "subscriberId": "0771234567"}');
SELECT outcome FROM otp_send('ideamart', '{"mobile": "123"}');
SELECT outcome FROM otp_send('ideamart', '{"mobile": "tel:all"}');
SELECT outcome FROM otp_send('ideamart', '{"mobile": "0771234567", "otp": "1234"}');
SELECT outcome FROM otp_verify('ideamart', NULL, '{"reference": "r"}');
SELECT outcome FROM otp_verify('00000000-0000-0000-0000-000000000000', '1234');
SELECT outcome FROM otp_verify('00000000-0000-0000-0000-000000000000'::uuid, '1234');
SELECT outcome FROM otp_cancel(NULL);
BEGIN READ ONLY;
SELECT outcome FROM otp_send('ideamart', '{"mobile": "0771234567"}');
ROLLBACK;
CREATE ROLE otp_nobody;
SET ROLE otp_nobody;
SELECT outcome FROM otp_send('ideamart', '{"mobile": "0771234567"}');
-- The views show everybody their own, and the tables behind them are for nobody.
SELECT * FROM otp_gateway.attempt;
SELECT * FROM otp_gateway_internal.attempt_record;
RESET ROLE;
DROP ROLE otp_nobody;
SELECT count(*) AS attempts FROM otp_gateway.attempt;
-- Nobody listens there: nothing left this machine.
SELECT status, outcome, retryable, attempts_left, vendor_message FROM otp_send('ideamart', '{"mobile": "0771234567"}');
SELECT operation, outcome, http_status FROM otp_gateway.attempt;
SELECT status, recipient_masked, send_count, check_count, max_checks, sealed IS NULL AS erased FROM otp_gateway_internal.verification_record;
