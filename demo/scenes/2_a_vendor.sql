-- A vendor: HyperVerge, played by a simulator on this machine
-- An account is a foreign server with a user mapping; the calls stay the same.
\set ECHO queries
CREATE SERVER hyperverge FOREIGN DATA WRAPPER otp_hyperverge OPTIONS (
  base_url :'hyperverge_url', allow_plain_http 'true',
  defaults '{"template_id": "login", "otp_length": 6, "otp_expiry": 10}');
CREATE USER MAPPING FOR PUBLIC SERVER hyperverge
  OPTIONS (app_id 'demo', app_key 'demo-key');
SELECT status, outcome, expires_at - now() > '9 min' AS ten_minutes
FROM otp.otp_send('hyperverge', '{"mobile": "9876500002"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox hyperverge 9876500002`
\set wrong `demo/inbox hyperverge 9876500002 wrong`
\echo '-- The phone shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
