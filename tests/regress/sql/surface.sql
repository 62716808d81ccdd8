-- Promise: what \df, \d and \dew show is enough to get going, and does not change without notice.
\df public.otp_*
\d otp_gateway.verification
\d otp_gateway.attempt
\d otp_gateway.reference
\dD otp_gateway.*
\dew
-- Every object has its comment.
SELECT count(*) AS without_comment
FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'otp_gateway'
WHERE obj_description(p.oid, 'pg_proc') IS NULL AND p.proname !~ '_validator$';
