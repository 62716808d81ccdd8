-- Promise: what \df, \d and \dew show is enough to get going, and does not change without notice.
\df public.otp_*
\df otp_gateway.*
-- The schema for people has nothing else.
\dv otp_gateway.*
\dT otp_gateway.*
\dtism otp_gateway.*
-- What the otp_ functions and otp_gateway.wait return.
\d otp_gateway.result
-- What applications read.
\d otp_gateway.verification
\d otp_gateway.attempt
\d otp_gateway.provider
\d otp_gateway.stat_attempt
\d otp_gateway.stat_latency
\d otp_gateway.stat_provider
\d otp_gateway.stat_worker
\d otp_gateway.stat_hourly
-- What stands behind it: row security without a policy hides every row from everybody whom it binds.
\d otp_gateway_internal.verification_record
\d otp_gateway_internal.attempt_record
\d otp_gateway_internal.reference
\d otp_gateway_internal.breaker
\d otp_gateway_internal.identity
\d otp_gateway_internal.hourly_record
\dD otp_gateway*.*
\df otp_gateway_internal.*
\dew
-- Every object has its comment.
SELECT count(*) AS without_comment
FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'otp_gateway'
WHERE obj_description(p.oid, 'pg_proc') IS NULL AND p.proname !~ '_validator$';
SELECT attrelid::regclass AS view, attname AS column_without_comment
FROM pg_attribute WHERE attrelid IN ('otp_gateway.verification'::regclass, 'otp_gateway.attempt'::regclass, 'otp_gateway.provider'::regclass, 'otp_gateway.result'::regclass)
    AND attnum > 0 AND col_description(attrelid, attnum) IS NULL;
