-- Uniken REL-ID: the code goes to an app, by a user id
-- It runs on the bank's own premises: base_url has no default.
\set ECHO queries
CREATE SERVER relid FOREIGN DATA WRAPPER otp_relid OPTIONS (
  base_url :'relid_url', allow_plain_http 'true',
  code_lifetime '2min',
  defaults '{"enterprise_id": "bank",
    "notification_msg": {"subject": "Log-in", "message": "A code for you"}}');
CREATE USER MAPPING FOR PUBLIC SERVER relid
  OPTIONS (username 'demo', password 'demo-password');
SELECT status, outcome, attempts_left FROM otp.otp_send('relid', '{
  "user_id": "asha.rao",
  "msg": [{"lng": "English", "subject": "Log-in",
           "message": "Your code is $$OTP$$", "label": {}}]}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox relid asha.rao`
\set wrong `demo/inbox relid asha.rao wrong`
\echo '-- The app shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
