-- Requests as PostgREST plays them: a transaction, SET LOCAL ROLE, the claims, one call. (PostgREST itself does not run
-- here.) Any ASSERT that fails ends psql with an error. The provider asks for 30 s between two sends, as vendors do.
ALTER SERVER sandbox OPTIONS (ADD resend_after '30s');
SET SESSION AUTHORIZATION authenticator;

\set as_one 'SET LOCAL ROLE web_user; SELECT set_config(''request.jwt.claims'', ''{"role": "web_user", "sub": "one"}'', true);'
\set as_two 'SET LOCAL ROLE web_user; SELECT set_config(''request.jwt.claims'', ''{"role": "web_user", "sub": "two"}'', true);'
\o /dev/null

BEGIN; :as_one
DO $$ BEGIN
  ASSERT (api.verify_code('000000')).outcome = 'not_found', 'nothing was sent';
  ASSERT (api.send_code('077 123 0201')).outcome = 'sent', 'the first';
  ASSERT current_setting('response.status') = '200', 'its status';
END $$;
COMMIT;

-- A second click: 429, and the code that the user holds is still the right one.
BEGIN; :as_one
DO $$ BEGIN
  ASSERT (api.send_code('+94 77 123 0201')).outcome = 'blocked', 'too soon';
  ASSERT current_setting('response.status') = '429', 'its status';
  ASSERT (current_setting('response.headers')::json -> 0 ->> 'Retry-After')::int BETWEEN 1 AND 30, 'Retry-After';
END $$;
COMMIT;

-- A wrong code counts, though PostgREST rolls the request back (Prefer: tx=rollback).
BEGIN; :as_one
DO $$ BEGIN
  ASSERT (api.verify_code('123456')).attempts_left = 4, 'a wrong code';
  ASSERT current_setting('response.status') = '422', 'its status';
END $$;
ROLLBACK;

BEGIN; :as_one
DO $$ BEGIN
  ASSERT (api.verify_code('123456')).attempts_left = 3, 'the rollback gave a check back';
  ASSERT (api.verify_code('000000')).outcome = 'approved', 'the right code';
  ASSERT (api.verify_code('123456')).outcome = 'already_used', 'any code after it';
  ASSERT current_setting('response.status') = '422', 'its status';
  ASSERT (SELECT count(*) FROM api.verified_phone) = 1, 'one''s own';
END $$;
COMMIT;

-- Attacks. Somebody else: sees nothing, has no code, and writes nothing by hand.
BEGIN; :as_two
DO $$ BEGIN
  ASSERT (SELECT count(*) FROM api.verified_phone) = 0, 'another''s row';
  ASSERT (api.verify_code('000000')).outcome = 'not_found', 'another''s code';
END $$;
COMMIT;
BEGIN; :as_two
DO $$
DECLARE
  forbidden text;
BEGIN
  FOREACH forbidden IN ARRAY ARRAY[
    'INSERT INTO api.verified_phone VALUES (''two'', ''0771230201'')', 'SELECT * FROM private.phone_check',
    'SELECT otp.otp_send(''sandbox'', ''{"mobile": "0771230202"}'')'] LOOP
    BEGIN
      EXECUTE forbidden;
      ASSERT false, forbidden;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
  END LOOP;
END $$;
COMMIT;

-- A token without `sub`, and the role that has not yet become anybody.
BEGIN; SET LOCAL ROLE web_user;
DO $$ BEGIN
  PERFORM api.send_code('0771230203');
  ASSERT false, 'without sub';
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;
COMMIT;
DO $$ BEGIN
  PERFORM api.send_code('0771230203');
  ASSERT false, 'as authenticator';
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;
\o
\echo postgrest: passed
