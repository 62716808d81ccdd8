-- What PostgREST serves: a user who is signed in by a token (a JWT whose claims have `sub`) has a phone verified. By a
-- superuser, in a database that has the extension in the schema otp and a server `sandbox` (later: your vendor's).

BEGIN;

DO $$
BEGIN
  IF to_regrole('authenticator') IS NULL THEN CREATE ROLE authenticator LOGIN NOINHERIT; END IF;
  IF to_regrole('web_user') IS NULL THEN CREATE ROLE web_user; END IF;
  IF to_regrole('api_owner') IS NULL THEN CREATE ROLE api_owner; END IF;
END $$;
GRANT web_user TO authenticator;
GRANT USAGE ON FOREIGN SERVER sandbox TO api_owner;
GRANT USAGE ON SCHEMA otp TO api_owner;
CREATE SCHEMA api AUTHORIZATION api_owner;      -- db-schemas = "api"
CREATE SCHEMA private AUTHORIZATION api_owner;
SET ROLE api_owner;

CREATE FUNCTION private.user_id() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub'
$$;

-- The send that a user's next code belongs to.
CREATE TABLE private.phone_check (
  user_id         text PRIMARY KEY,
  phone           text NOT NULL,
  verification_id uuid NOT NULL UNIQUE
);

-- GET /verified_phone: one's own row.
CREATE TABLE api.verified_phone (
  user_id     text PRIMARY KEY,
  phone       text NOT NULL,
  verified_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE api.verified_phone ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON api.verified_phone FOR SELECT TO web_user USING (user_id = (SELECT private.user_id()));

-- The answer's status, and Retry-After where one has to wait.
CREATE FUNCTION private.answer(status integer, retry_after interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('response.status', status::text, true);
  IF retry_after IS NOT NULL THEN
    PERFORM set_config('response.headers', json_build_array(
      json_build_object('Retry-After', ceil(extract(epoch FROM retry_after))::text))::text, true);
  END IF;
END $$;

-- POST /rpc/send_code {"phone": "077 123 0101"}
CREATE FUNCTION api.send_code(phone text, OUT outcome text, OUT expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  sent otp_gateway.result;
BEGIN
  IF private.user_id() IS NULL THEN RAISE insufficient_privilege USING MESSAGE = 'no sub in the token'; END IF;
  sent := otp.otp_send('sandbox', jsonb_build_object('mobile', phone));
  outcome := sent.outcome;
  expires_at := sent.expires_at;
  -- A send that was refused has no code, and does not take the place of the one before.
  IF outcome IN ('sent', 'unknown') THEN
    INSERT INTO private.phone_check AS c (user_id, phone, verification_id)
    VALUES (private.user_id(), send_code.phone, sent.verification_id)
    ON CONFLICT ON CONSTRAINT phone_check_pkey
    DO UPDATE SET phone = excluded.phone, verification_id = excluded.verification_id;
  END IF;
  PERFORM private.answer(CASE WHEN outcome IN ('sent', 'unknown') THEN 200 WHEN sent.retry_after IS NOT NULL THEN 429 ELSE 502 END,
    sent.retry_after);
END $$;

-- POST /rpc/verify_code {"code": "000000"}
CREATE FUNCTION api.verify_code(code text, OUT outcome text, OUT attempts_left integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked private.phone_check;
  checked otp_gateway.result;
BEGIN
  SELECT c.* INTO asked FROM private.phone_check AS c WHERE c.user_id = private.user_id();
  IF NOT FOUND THEN outcome := 'not_found'; PERFORM private.answer(404, NULL); RETURN; END IF;
  checked := otp.otp_verify(asked.verification_id, code);
  outcome := checked.outcome;
  attempts_left := checked.attempts_left;
  -- What was approved, and rolled back here, is written now; what is written already says nothing of this code.
  IF otp_gateway.is_approved(asked.verification_id, asked.phone) THEN
    INSERT INTO api.verified_phone AS p (user_id, phone) VALUES (asked.user_id, asked.phone)
    ON CONFLICT ON CONSTRAINT verified_phone_pkey DO UPDATE SET phone = excluded.phone, verified_at = now()
    WHERE p.phone <> excluded.phone OR checked.outcome = 'approved';
    IF FOUND THEN outcome := 'approved'; END IF;
  END IF;
  PERFORM private.answer(CASE outcome WHEN 'approved' THEN 200 ELSE 422 END, checked.retry_after);
END $$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA api, private FROM PUBLIC;
GRANT USAGE ON SCHEMA api, private TO web_user;
GRANT EXECUTE ON FUNCTION private.user_id, api.send_code, api.verify_code TO web_user;
GRANT SELECT ON api.verified_phone TO web_user;
RESET ROLE;

COMMIT;
