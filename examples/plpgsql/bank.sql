-- A log-in by code, and a second code for a payment above a limit, all in SQL. By a superuser, in a database that has the
-- extension in the schema otp and a server `sandbox` (later: your vendor's). The application connects as bank_app, and may
-- call four functions; tables, server and verifications are bank_owner's.

BEGIN;

DO $$
BEGIN
  IF to_regrole('bank_app') IS NULL THEN CREATE ROLE bank_app LOGIN; END IF;
  IF to_regrole('bank_owner') IS NULL THEN CREATE ROLE bank_owner; END IF;
END $$;
GRANT USAGE ON FOREIGN SERVER sandbox TO bank_owner;
GRANT USAGE ON SCHEMA otp TO bank_owner;
CREATE SCHEMA bank AUTHORIZATION bank_owner;
SET ROLE bank_owner;

CREATE TABLE bank.account (
  id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  phone text NOT NULL UNIQUE
);

-- The token is the cookie. Without an account: somebody tried a number that we do not know, and is not told.
CREATE TABLE bank.session (
  token           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  account_id      bigint REFERENCES bank.account,
  verification_id uuid UNIQUE,
  logged_in_at    timestamptz
);

CREATE TABLE bank.payment (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id      bigint NOT NULL REFERENCES bank.account,
  payee           text NOT NULL,
  amount          numeric(12, 2) NOT NULL CHECK (amount > 0),
  verification_id uuid UNIQUE,
  paid_at         timestamptz
);

-- The account of a session of the last 15 minutes.
CREATE FUNCTION bank.logged_in(token uuid) RETURNS bank.account
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  account bank.account;
BEGIN
  SELECT a.* INTO account FROM bank.session AS s JOIN bank.account AS a ON a.id = s.account_id
  WHERE s.token = logged_in.token AND s.logged_in_at > now() - interval '15 minutes';
  IF NOT FOUND THEN RAISE insufficient_privilege USING MESSAGE = 'not logged in'; END IF;
  RETURN account;
END $$;

CREATE FUNCTION bank.log_in(phone text, OUT token uuid, OUT outcome text, OUT retry_after interval)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  account bank.account;
  sent otp_gateway.result;
BEGIN
  outcome := 'sent';
  SELECT a.* INTO account FROM bank.account AS a WHERE a.phone = log_in.phone;
  IF FOUND THEN
    sent := otp.otp_send('sandbox', jsonb_build_object('mobile', account.phone));
    outcome := sent.outcome;
    retry_after := sent.retry_after;
  END IF;
  -- A send that was refused has no code: the session that has the code is the one before.
  INSERT INTO bank.session AS s (account_id, verification_id) VALUES (account.id, sent.verification_id)
  RETURNING s.token INTO token;
END $$;

CREATE FUNCTION bank.enter_code(token uuid, code text, OUT outcome text, OUT attempts_left integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked record;
BEGIN
  SELECT s.verification_id, a.phone INTO asked FROM bank.session AS s JOIN bank.account AS a ON a.id = s.account_id
  WHERE s.token = enter_code.token;
  IF asked.verification_id IS NULL THEN outcome := 'invalid_code'; RETURN; END IF;
  SELECT v.outcome, v.attempts_left INTO outcome, attempts_left FROM otp.otp_verify(asked.verification_id, code) AS v;
  -- By what is on record: after a rollback the same code says already_used, and the proof is still there.
  UPDATE bank.session AS s SET logged_in_at = now()
  WHERE s.token = enter_code.token AND s.logged_in_at IS NULL
    AND otp_gateway.is_approved(asked.verification_id, asked.phone);
  IF FOUND THEN outcome := 'approved'; ELSIF outcome = 'approved' THEN outcome := 'superseded'; END IF;
END $$;

-- Up to 10,000 it is paid at once; above, a code for this payment alone is sent.
CREATE FUNCTION bank.pay(token uuid, payee text, amount numeric, OUT payment_id bigint, OUT outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  account bank.account := bank.logged_in(token);
  sent otp_gateway.result;
BEGIN
  outcome := 'paid';
  IF amount > 10000 THEN
    sent := otp.otp_send('sandbox', jsonb_build_object('mobile', account.phone));
    outcome := sent.outcome;
  END IF;
  INSERT INTO bank.payment AS p (account_id, payee, amount, verification_id, paid_at)
  VALUES (account.id, payee, amount, sent.verification_id, CASE outcome WHEN 'paid' THEN now() END)
  RETURNING p.id INTO payment_id;
END $$;

CREATE FUNCTION bank.confirm(token uuid, payment_id bigint, code text, OUT outcome text, OUT attempts_left integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  account bank.account := bank.logged_in(token);
  asked uuid := (
    SELECT p.verification_id FROM bank.payment AS p WHERE p.id = payment_id AND p.account_id = account.id AND p.paid_at IS NULL);
BEGIN
  IF asked IS NULL THEN outcome := 'not_found'; RETURN; END IF;
  SELECT v.outcome, v.attempts_left INTO outcome, attempts_left FROM otp.otp_verify(asked, code) AS v;
  UPDATE bank.payment AS p SET paid_at = now()
  WHERE p.id = payment_id AND p.paid_at IS NULL AND otp_gateway.is_approved(asked, account.phone);
  IF FOUND THEN outcome := 'approved'; ELSIF outcome = 'approved' THEN outcome := 'superseded'; END IF;
END $$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bank FROM PUBLIC;
GRANT USAGE ON SCHEMA bank TO bank_app;
GRANT EXECUTE ON FUNCTION bank.log_in, bank.enter_code, bank.pay, bank.confirm TO bank_app;
RESET ROLE;

COMMIT;
