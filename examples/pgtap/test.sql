-- An application's own tests: the sign-up of examples/sign_up.sql, every outcome of the sandbox, and a test number.
-- The sign-up's code leaves after COMMIT, so these tests are not wrapped in BEGIN ... ROLLBACK; and a send of a test that
-- is rolled back stays on record. Fresh numbers make each run the first.
\set QUIET on
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
GRANT USAGE ON SCHEMA otp TO registration_app;
SELECT '077' || lpad((random() * 9999999)::int::text, 7, '0') AS phone, '078' || lpad((random() * 9999999)::int::text, 7, '0') AS other \gset
SELECT plan(35);

-- The sign-up, as the application.
SET ROLE registration_app;
INSERT INTO customer (phone) VALUES (:'phone') RETURNING id \gset
SELECT is(w.outcome, 'sent', 'the code leaves after COMMIT')
FROM customer AS c, otp_gateway.wait(c.verification_id) AS w WHERE c.id = :id;
SELECT results_eq(format($$SELECT outcome, attempts_left FROM verify_customer(%s, '123456')$$, :id),
  $$VALUES ('invalid_code', 4)$$, 'a wrong code');
BEGIN;
SELECT is(outcome, 'invalid_code', 'a wrong code that is rolled back') FROM verify_customer(:id, '123456');
ROLLBACK;
-- The rollback took pgTAP's own count of that test back, and no check: the database remembers what pgTAP forgets.
SELECT results_eq(format($$SELECT outcome, attempts_left FROM verify_customer(%s, '123456')$$, :id),
  $$VALUES ('invalid_code', 2)$$, 'counts all the same');
SELECT is_empty(format('SELECT * FROM verified_phone WHERE customer_id = %s', :id), 'not verified yet');
SELECT is(outcome, 'approved', 'the right code') FROM verify_customer(:id, '000000');
SELECT results_eq(format('SELECT phone FROM verified_phone WHERE customer_id = %s', :id), format('VALUES (%L)', :'phone'), 'verified');
SELECT throws_ok('DELETE FROM verified_phone', '42501', NULL, 'nobody writes a proof by hand');
-- What is rolled back was never sent.
BEGIN;
INSERT INTO customer (phone) VALUES (:'other') RETURNING verification_id AS undone \gset
ROLLBACK;
SELECT is_empty(format('SELECT * FROM otp_gateway.verification WHERE id = %L', :'undone'), 'no code for what was rolled back');

-- Every outcome that a vendor may have: ask for it, and see what your code makes of it.
SELECT is((otp.otp_send('sandbox', jsonb_build_object('mobile', :'other', 'outcome', o))).outcome, o, 'a send is ' || o)
FROM unnest(ARRAY['sent', 'already_registered', 'rate_limited', 'invalid_request', 'auth_failed', 'refused', 'provider_error',
  'unreachable', 'unknown']) AS o;
-- A number for each: wrong codes of one number count together.
SELECT is((otp.otp_verify(s.verification_id, '000000', jsonb_build_object('outcome', o))).outcome, o, 'a check is ' || o)
FROM unnest(ARRAY['approved', 'invalid_code', 'expired', 'already_used', 'max_attempts_reached', 'not_found', 'rate_limited',
  'invalid_request', 'auth_failed', 'refused', 'provider_error', 'unreachable', 'unknown']) WITH ORDINALITY AS a (o, nr),
  otp.otp_send('sandbox', jsonb_build_object('mobile', left(:'other', 8) || lpad(nr::text, 2, '0'))) AS s;
SELECT throws_ok($$SELECT otp.otp_send('sandbox', '{"mobil": "0771230301"}')$$, '22023', NULL, 'a misspelt field');
RESET ROLE;

-- A test number at a real vendor: nothing leaves, no limit holds, its own code.
DROP SERVER IF EXISTS reviewed CASCADE;
CREATE SERVER reviewed FOREIGN DATA WRAPPER otp_hyperverge
  OPTIONS (defaults '{"template_id": "login"}', test_numbers '+919822000043=246810');
CREATE USER MAPPING FOR PUBLIC SERVER reviewed OPTIONS (app_id 'app', app_key 'none');
SELECT verification_id AS review FROM otp.otp_send('reviewed', '{"mobile": "98220 00043"}') \gset
SELECT is(outcome, 'invalid_code', 'another code') FROM otp.otp_verify(:'review', '000000');
SELECT is(outcome, 'approved', 'its own code') FROM otp.otp_verify(:'review', '246810');
SELECT ok(is_test, 'marked on record') FROM otp_gateway.verification WHERE id = :'review';

-- Raises an error if one has failed, or if it is another number of them.
SELECT finish(true);
