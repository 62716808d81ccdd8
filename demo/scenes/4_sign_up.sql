-- A sign-up: the trigger sends the code after COMMIT
-- Tables and functions are those of examples/sign_up.sql; this is its trigger:
\i examples/sign_up.sql
\echo `sed -n '/^CREATE.* TRIGGER/,/);/{s/ *-- .*//;p}' examples/sign_up.sql`
\echo
\set ECHO queries
SET ROLE registration_app;
BEGIN;
INSERT INTO customer (phone) VALUES ('+94770000011');
ROLLBACK;
INSERT INTO customer (phone) VALUES ('+94770000012') RETURNING phone;
SELECT w.status, w.outcome
FROM customer AS c, otp_gateway.wait(c.verification_id, '10s') AS w;
\set ECHO none
\echo '-- The next one is meant to fail: only verify_customer says who is verified.'
\set ON_ERROR_STOP off
\set ECHO queries
INSERT INTO verified_phone SELECT id, phone, verification_id FROM customer;
\set ECHO none
\set ON_ERROR_STOP on
\if :ERROR
\else
SELECT 1 / 0 AS it_was_meant_to_fail;
\endif
SELECT id AS customer FROM customer \gset
\set ECHO queries
SELECT outcome, attempts_left FROM verify_customer(:customer, '000000');
SELECT c.phone = p.phone AS is_verified
FROM customer AS c JOIN verified_phone AS p ON p.customer_id = c.id;
SELECT count(*) AS sent_for_what_was_rolled_back
FROM otp_gateway.find('sandbox', '+94770000011');
RESET ROLE;
