-- A provider is down, and a person clicks twice
-- A route tries the next one where nothing was sent; nothing is sent twice.
\set ECHO queries
CREATE SERVER down FOREIGN DATA WRAPPER otp_ideamart
  OPTIONS (base_url 'http://127.0.0.1:9', allow_plain_http 'true');
CREATE USER MAPPING FOR PUBLIC SERVER down
  OPTIONS (application_id 'APP_001100', password 'demo-password');
CREATE SERVER either FOREIGN DATA WRAPPER otp_route
  OPTIONS (providers 'down, ideamart');
SELECT status, outcome
FROM otp.otp_send('either', '{"mobile": "0771234569"}');
SELECT status, outcome, reason, retry_after > '20s' AS wait_a_little
FROM otp.otp_send('either', '{"mobile": "+94 77 123 4569"}');
