\set QUIET on
\pset footer off
\pset null '-'
-- Nobody is to press keys at a demonstration.
\pset pager off
-- \gset keeps what a statement returned in variables; the backticks ask the simulator's inbox for the code that the
-- person would have got on the phone.

\echo
\echo '### 1. Install, and a first flow at the sandbox: no account, no network, a fixed code'
\set ECHO queries
CREATE SCHEMA otp;
CREATE EXTENSION otp_gateway SCHEMA otp;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox;
SELECT verification_id, status, outcome, attempts_left FROM otp.otp_send('sandbox', '{"mobile": "0771234500"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set ECHO queries
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, '123456');
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, '000000');
SELECT outcome, retryable FROM otp.otp_send('sandbox', '{"mobile": "0771234500", "outcome": "rate_limited"}');
\set ECHO none

\echo
\echo '### 2. Configure five providers: foreign servers, with credentials on user mappings'
\set ECHO queries
CREATE SERVER iserveu FOREIGN DATA WRAPPER otp_iserveu
  OPTIONS (base_url :'iserveu_url', allow_plain_http 'true', defaults '{"username": "agent1"}');
CREATE USER MAPPING FOR PUBLIC SERVER iserveu OPTIONS (client_id 'demo', client_secret 'demo-secret');
CREATE SERVER hyperverge FOREIGN DATA WRAPPER otp_hyperverge
  OPTIONS (base_url :'hyperverge_url', allow_plain_http 'true',
           defaults '{"template_id": "login", "otp_length": 6, "otp_expiry": 10}');
CREATE USER MAPPING FOR PUBLIC SERVER hyperverge OPTIONS (app_id 'demo', app_key 'demo-key');
CREATE SERVER paytm FOREIGN DATA WRAPPER otp_paytm OPTIONS (base_url :'paytm_url', allow_plain_http 'true');
CREATE USER MAPPING FOR PUBLIC SERVER paytm OPTIONS (username 'demo', password 'demo-password');
CREATE SERVER relid FOREIGN DATA WRAPPER otp_relid
  OPTIONS (base_url :'relid_url', allow_plain_http 'true', code_lifetime '2min',
  defaults '{"enterprise_id": "bank", "notification_msg": {"subject": "Log-in", "message": "A code for you"}}');
CREATE USER MAPPING FOR PUBLIC SERVER relid OPTIONS (username 'demo', password 'demo-password');
CREATE SERVER ideamart FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url :'ideamart_url', allow_plain_http 'true');
CREATE USER MAPPING FOR PUBLIC SERVER ideamart OPTIONS (application_id 'APP_001100', password 'demo-password');
\set ECHO none

\echo
\echo '### 3. iServeU: registration of a customer (otp_type 1)'
\set ECHO queries
SELECT verification_id, status, outcome, attempts_left FROM otp.otp_send('iserveu', '{"otp_type": "1", "mobile": "9876500001", "ovd_type": "Aadhaar Card", "ovd_data": "765386439745"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox iserveu 9876500001`
\set wrong `demo/inbox iserveu 9876500001 wrong`
\echo 'the phone shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'wrong', '{"name": "Asha Rao", "lat_long": "20.29,85.82", "public_ip": "203.0.113.7"}');
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'code', '{"name": "Asha Rao", "lat_long": "20.29,85.82", "public_ip": "203.0.113.7"}');
\set ECHO none

\echo
\echo '### 4. HyperVerge'
\set ECHO queries
SELECT verification_id, status, outcome, attempts_left FROM otp.otp_send('hyperverge', '{"mobile": "9876500002"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox hyperverge 9876500002`
\set wrong `demo/inbox hyperverge 9876500002 wrong`
\echo 'the phone shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'wrong');
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'code');
\set ECHO none

\echo
\echo '### 5. Paytm: the token of the journey is kept sealed between send and verify'
\set ECHO queries
SELECT verification_id, status, outcome, attempts_left FROM otp.otp_send('paytm', '{"mobile": "9876500003", "mid": "MID01", "order_id": "ORDER-1", "token": "7f0e9307bcfd443e"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox paytm 9876500003`
\set wrong `demo/inbox paytm 9876500003 wrong`
\echo 'the phone shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'wrong');
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'code');
\set ECHO none

\echo
\echo '### 6. Uniken REL-ID'
\set ECHO queries
SELECT verification_id, status, outcome, attempts_left FROM otp.otp_send('relid', '{"user_id": "asha.rao", "msg": [{"lng": "English", "subject": "Log-in", "message": "Your code is $$OTP$$", "label": {}}]}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox relid asha.rao`
\set wrong `demo/inbox relid asha.rao wrong`
\echo 'the app shows' :code
\set ECHO queries
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'wrong');
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'code');
\set ECHO none

\echo
\echo '### 7. Ideamart, and a rollback: the wrong code is tried in a transaction that is rolled back, and counts all the same'
\set ECHO queries
SELECT verification_id, status, outcome, attempts_left FROM otp.otp_send('ideamart', '{"mobile": "0771234567"}');
\set ECHO none
SELECT id AS verification_id FROM otp_gateway.verification ORDER BY id DESC LIMIT 1 \gset
\set code `demo/inbox ideamart 0771234567`
\set wrong `demo/inbox ideamart 0771234567 wrong`
\echo 'the phone shows' :code
\set ECHO queries
BEGIN;
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'wrong');
ROLLBACK;
SELECT status, outcome, attempts_left FROM otp.otp_verify(:'verification_id'::uuid, :'code');
\set ECHO none

\echo
\echo '### 8. After COMMIT: a registration table whose trigger sends the code, if the row is really there'
\set ECHO queries
CREATE TABLE public.customer (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  phone           text NOT NULL,
  verification_id uuid UNIQUE,
  verified_phone  text,
  active          boolean NOT NULL DEFAULT false,
  CONSTRAINT active_only_if_verified CHECK (NOT active OR verified_phone IS NOT DISTINCT FROM phone)
);
CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON public.customer
  FOR EACH ROW EXECUTE FUNCTION otp_gateway.send_after_commit('ideamart', '{"mobile": "phone"}', 'verification_id');
CREATE FUNCTION public.verify_customer(customer_id bigint, code text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked record;
  outcome text;
BEGIN
  SELECT c.phone, c.verification_id INTO asked FROM public.customer AS c WHERE c.id = customer_id;
  IF asked.verification_id IS NULL THEN RETURN 'not_found'; END IF;
  SELECT v.outcome INTO outcome FROM otp.otp_verify(asked.verification_id, code) AS v;
  -- Meanwhile the row may have become another: only the one that has this verification and this number becomes active.
  UPDATE public.customer AS c SET verified_phone = asked.phone, active = true
  WHERE c.id = customer_id AND c.verification_id = asked.verification_id AND c.phone = asked.phone
    AND otp_gateway.is_approved(asked.verification_id, asked.phone);
  IF FOUND THEN RETURN 'approved'; END IF;
  RETURN CASE WHEN outcome IN ('approved', 'already_used') THEN 'superseded' ELSE outcome END;
END $$;
BEGIN;
INSERT INTO customer (phone) VALUES ('0771234599');
ROLLBACK;
BEGIN;
INSERT INTO customer (phone) VALUES ('0771234568');
SELECT v.status FROM customer AS c JOIN otp_gateway.verification AS v ON v.id = c.verification_id;
COMMIT;
SELECT w.status, w.outcome FROM customer AS c, otp_gateway.wait(c.verification_id, '10s') AS w;
\set ON_ERROR_STOP off
UPDATE customer SET active = true;
\set ON_ERROR_STOP on
\set ECHO none
SELECT id AS customer_id FROM customer \gset
\set code `demo/inbox ideamart 0771234568`
\echo 'the phone shows' :code
\set ECHO queries
SELECT verify_customer(:customer_id, :'code');
SELECT id, verified_phone = phone AS verified, active FROM customer;
\set ECHO none

\echo
\echo '### 9. Failover: a route over two providers, the first of which is down; and two messages for one click'
\set ECHO queries
CREATE SERVER down FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url 'http://127.0.0.1:9', allow_plain_http 'true');
CREATE USER MAPPING FOR PUBLIC SERVER down OPTIONS (application_id 'APP_001100', password 'demo-password');
CREATE SERVER either FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'down, ideamart');
SELECT status, outcome FROM otp.otp_send('either', '{"mobile": "0771234569"}');
SELECT status, outcome, reason, retry_after > '20s' AS wait FROM otp.otp_send('either', '{"mobile": "+94 77 123 4569"}');
\set ECHO none

\echo
\echo '### 10. The record: every attempt, what was rolled back included; no number, no code'
\set ECHO queries
SELECT a.provider, v.recipient_masked AS recipient, a.operation, a.outcome, coalesce(a.reason, a.vendor_code) AS code_or_reason
FROM otp_gateway.attempt AS a JOIN otp_gateway.verification AS v ON v.id = a.verification_id ORDER BY a.id;
SELECT provider, vendor_message FROM otp_gateway.attempt WHERE outcome = 'invalid_code' AND provider <> 'sandbox' ORDER BY id;
SELECT provider, status, send_count, check_count, sealed IS NULL AS nothing_sealed FROM otp_gateway_internal.verification_record ORDER BY id;
\set ECHO none

\echo
\echo '### 11. Who sees it: a role its own; the key changes under way; and a person who asks for it is forgotten'
\set ECHO queries
CREATE ROLE demo_nobody;
SET ROLE demo_nobody;
SELECT count(*) AS rows_that_others_see FROM otp_gateway.verification;
RESET ROLE;
DROP ROLE demo_nobody;
SELECT otp_gateway.rotate_key() >= 0 AS resealed;
SELECT provider, status, recipient_masked FROM otp_gateway.find('ideamart', '+94 77 123 4568');
SELECT otp_gateway.forget('ideamart', '077-123-4568') AS forgotten;
SELECT count(*) AS found FROM otp_gateway.find('ideamart', '0771234568');
\set ECHO none
