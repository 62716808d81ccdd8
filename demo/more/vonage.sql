-- Vonage, which no code of ours speaks to: described in fifteen lines of JSON
-- What is sent, and what an answer means. otp_gateway.try shows both before anybody is called.
\set ECHO queries
CREATE SERVER vonage FOREIGN DATA WRAPPER otp_rest OPTIONS (
  base_url :'vonage_url', allow_plain_http 'true', description '{
  "fields": {"mobile": {"rule": "phone", "without": "+", "required": ["send"]}},
  "credentials": ["api_key", "api_secret"],
  "authorization": {"basic": ["api_key", "api_secret"]},
  "operations": {
    "send": {"path": "/v2/verify", "json": {"brand": "Example",
      "workflow": [{"channel": "sms", "to": "{mobile}"}]}},
    "verify": {"path": "/v2/verify/{reference}", "json": {"code": "{code}"}}},
  "reference": "/request_id",
  "outcomes": [
    {"of": "send", "status": 202, "outcome": "sent"},
    {"of": "verify", "status": 200, "when": {"/status": "completed"},
      "outcome": "approved"},
    {"of": "verify", "status": 400, "when": {"/title": "Invalid Code"},
      "outcome": "invalid_code"}]}');
CREATE USER MAPPING FOR PUBLIC SERVER vonage
  OPTIONS (api_key 'demo', api_secret 'demo-secret');
SELECT t->'request'->>'method' AS method, t->'request'->'headers'->>'authorization'
  AS authorization, t->'request'->'body' AS body, t->'reading'->>'outcome' AS outcome
FROM otp_gateway.try('vonage', 'verify', '{"reference": "R1"}',
  400, '{"title": "Invalid Code"}') AS t;
SELECT status, outcome FROM otp.otp_send('vonage', '{"mobile": "+94 77 123 4505"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox vonage 0771234505`
\set wrong `demo/inbox vonage 0771234505 wrong`
\echo '-- The phone said' :code
\set ECHO queries
SELECT status, outcome, attempts_left
FROM otp.otp_verify(:'verification_id', :'wrong');
SELECT status, outcome
FROM otp.otp_verify(:'verification_id', :'code');
\set ECHO none
