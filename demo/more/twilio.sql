-- Twilio Verify: a text, then a call with the same code; and a code by e-mail
-- A resend may take another way; an address is a recipient as a number is.
\set ECHO queries
CREATE SERVER twilio FOREIGN DATA WRAPPER otp_twilio OPTIONS (
  base_url :'twilio_url', allow_plain_http 'true', resend_after '0s',
  service_sid 'VA0123456789abcdef0123456789abcdef');
CREATE USER MAPPING FOR PUBLIC SERVER twilio
  OPTIONS (api_key 'SKdemo', api_secret 'demo-secret');
SELECT status, outcome, attempts_left
FROM otp.otp_send('twilio', '{"mobile": "+94 77 123 4504"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set ECHO queries
SELECT status, outcome
FROM otp.otp_resend(:'verification_id', '{"channel": "voice"}');
\set ECHO none
\set code `demo/inbox twilio 0771234504`
\set wrong `demo/inbox twilio 0771234504 wrong`
\echo '-- The phone said' :code
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
SELECT status, outcome
FROM otp.otp_send('twilio', '{"mobile": "asha.rao@Example.org"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox twilio asha.rao@example.org`
\echo '-- The e-mail says' :code
\set ECHO queries
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
SELECT recipient_masked, status FROM otp_gateway.verification
WHERE provider = 'twilio' ORDER BY id;
\set ECHO none
