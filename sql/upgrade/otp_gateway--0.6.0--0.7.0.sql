/* otp_gateway 0.6.0 -> 0.7.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

SELECT otp_gateway_internal.require_library('0.7.0');

-- part A
-- end of part A

-- part E
-- end of part E

-- part F
-- end of part F

-- part G
-- end of part G

-- part M
-- end of part M
