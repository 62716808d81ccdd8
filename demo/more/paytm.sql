-- Paytm: a token that goes with the journey
-- It is kept sealed between send and verify, and erased at the end.
\set ECHO queries
CREATE SERVER paytm FOREIGN DATA WRAPPER otp_paytm
  OPTIONS (base_url :'paytm_url', allow_plain_http 'true');
CREATE USER MAPPING FOR PUBLIC SERVER paytm
  OPTIONS (username 'demo', password 'demo-password');
SELECT status, outcome, attempts_left FROM otp.otp_send('paytm', '{
  "mobile": "9876500003", "mid": "MID01", "order_id": "ORDER-1",
  "token": "7f0e9307bcfd443e"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox paytm 9876500003`
\set wrong `demo/inbox paytm 9876500003 wrong`
\echo '-- The phone shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
