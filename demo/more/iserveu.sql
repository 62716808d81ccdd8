-- iServeU: registration of a customer (otp_type 1)
-- What is one person's is in the payload; what is the account's, in defaults.
\set ECHO queries
CREATE SERVER iserveu FOREIGN DATA WRAPPER otp_iserveu OPTIONS (
  base_url :'iserveu_url', allow_plain_http 'true',
  defaults '{"username": "agent1"}');
CREATE USER MAPPING FOR PUBLIC SERVER iserveu
  OPTIONS (client_id 'demo', client_secret 'demo-secret');
SELECT status, outcome, attempts_left FROM otp.otp_send('iserveu', '{
  "otp_type": "1", "mobile": "9876500001",
  "ovd_type": "Aadhaar Card", "ovd_data": "765386439745"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox iserveu 9876500001`
\set wrong `demo/inbox iserveu 9876500001 wrong`
\echo '-- The phone shows' :code
\set person '{"name": "Asha Rao", "lat_long": "20.3,85.8", "public_ip": "203.0.113.7"}'
\set ECHO queries
SELECT status, outcome, attempts_left FROM otp.otp_verify(
  :'verification_id', :'wrong',
  :'person');
SELECT status, outcome FROM otp.otp_verify(
  :'verification_id', :'code',
  :'person');
