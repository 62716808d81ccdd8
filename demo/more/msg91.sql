-- MSG91: a template of the account, and a code that is sent again by a call
-- What is constant for the account stands in defaults.
\set ECHO queries
CREATE SERVER msg91 FOREIGN DATA WRAPPER otp_msg91 OPTIONS (
  base_url :'msg91_url', allow_plain_http 'true', resend_after '0s',
  defaults '{"template_id": "0123456789abcdef01234567",
    "otp_length": 6, "otp_expiry": 10}');
CREATE USER MAPPING FOR PUBLIC SERVER msg91 OPTIONS (authkey 'demo-key');
SELECT status, outcome, attempts_left
FROM otp.otp_send('msg91', '{"mobile": "9876500005"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set ECHO queries
SELECT status, outcome
FROM otp.otp_resend(:'verification_id', '{"channel": "voice"}');
\set ECHO none
\set code `demo/inbox msg91 9876500005`
\set wrong `demo/inbox msg91 9876500005 wrong`
\echo '-- The phone said' :code
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
\set ECHO none
