-- The bank, used and attacked as bank_app. Any ASSERT that fails ends psql with an error.
INSERT INTO bank.account (phone) VALUES ('0771230101'), ('0771230102');
SET ROLE bank_app;

DO $$
DECLARE
  mine uuid := (SELECT token FROM bank.log_in('0771230101'));
  payment bigint;
  said record;
BEGIN
  BEGIN
    PERFORM bank.pay(mine, 'Kandy Water', 100);
    ASSERT false, 'paid without a log-in';
  EXCEPTION WHEN insufficient_privilege THEN NULL;
  END;
  said := bank.enter_code(mine, '123456');
  ASSERT (said.outcome, said.attempts_left) = ('invalid_code', 4), said;
  ASSERT (bank.enter_code(mine, '000000')).outcome = 'approved', 'the right code';
  ASSERT (bank.pay(mine, 'Kandy Water', 100)).outcome = 'paid', 'a small payment';
  said := bank.pay(mine, 'Galle Motors', 250000);
  ASSERT said.outcome = 'sent', said;
  payment := said.payment_id;
  -- Wrong codes count though their transaction is rolled back.
  FOR i IN 1 .. 2 LOOP
    BEGIN
      PERFORM bank.confirm(mine, payment, '123456');
      RAISE EXCEPTION 'undone';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
  said := bank.confirm(mine, payment, '123456');
  ASSERT (said.outcome, said.attempts_left) = ('invalid_code', 2), said;
  -- The right code, and the transaction fails afterwards: the same code again is the payment's, once.
  BEGIN
    ASSERT (bank.confirm(mine, payment, '000000')).outcome = 'approved', 'the right code';
    RAISE EXCEPTION 'undone';
  EXCEPTION WHEN raise_exception THEN NULL;
  END;
  ASSERT (bank.confirm(mine, payment, '000000')).outcome = 'approved', 'after a rollback';
  ASSERT (bank.confirm(mine, payment, '000000')).outcome = 'not_found', 'twice';
END $$;

-- Attacks: another's payment, an unknown number, and what is not granted.
DO $$
DECLARE
  mine uuid := (SELECT token FROM bank.log_in('0771230101'));
  theirs uuid := (SELECT token FROM bank.log_in('0771230102'));
  nobodys record := bank.log_in('0771230199');
  payment bigint;
  forbidden text;
BEGIN
  ASSERT nobodys.outcome = 'sent', nobodys;
  ASSERT (bank.enter_code(nobodys.token, '000000')).outcome = 'invalid_code', 'a number that is nobody''s';
  PERFORM bank.enter_code(mine, '000000'), bank.enter_code(theirs, '000000');
  payment := (bank.pay(mine, 'Galle Motors', 250000)).payment_id;
  ASSERT (bank.confirm(theirs, payment, '000000')).outcome = 'not_found', 'another''s payment';
  -- A log-in's proof is no payment's: the wrong code for this one stays wrong.
  ASSERT (bank.confirm(mine, payment, '123456')).outcome = 'invalid_code', 'the log-in''s approval';
  FOREACH forbidden IN ARRAY ARRAY[
    'SELECT * FROM bank.payment', 'UPDATE bank.session SET logged_in_at = now()', 'SELECT bank.logged_in(NULL)',
    'SELECT otp.otp_send(''sandbox'', ''{"mobile": "0771230101"}'')'] LOOP
    BEGIN
      EXECUTE forbidden;
      ASSERT false, forbidden;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
  END LOOP;
END $$;

RESET ROLE;
DO $$
BEGIN
  ASSERT (SELECT array_agg(paid_at IS NOT NULL ORDER BY id) FROM bank.payment) = '{t,t,f}', 'what is paid';
END $$;
\echo plpgsql: passed
