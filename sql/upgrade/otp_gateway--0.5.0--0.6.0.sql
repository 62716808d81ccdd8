/* otp_gateway 0.5.0 -> 0.6.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- part A
-- end of part A

-- part D
-- end of part D

-- part E
COMMENT ON FUNCTION otp_gateway.send_after_commit() IS
'Row trigger, BEFORE or AFTER INSERT OR UPDATE: enqueues a send for the row. Arguments: the provider; a JSON object '
'that maps payload fields to columns, {"mobile": "phone"}, where a value that begins with = is a constant, '
'{"template_id": "=login"}; for a BEFORE trigger, optionally the uuid column that takes the verification id. What is '
'sent is for the row as COMMIT leaves it. An UPDATE sends only if a mapped column changed, or if that uuid column is set '
'to otp_gateway.send_again(it); set to NULL, or to an older id, by itself it keeps its value, as an ORM writes what it '
'has read before. A NULL in a required field sends nothing; a row that is inserted with a verification id keeps it, and '
'nothing is sent.';
-- end of part E

-- part F
-- end of part F

-- part G
-- end of part G

-- part H
-- end of part H
