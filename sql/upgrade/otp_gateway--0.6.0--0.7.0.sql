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
CREATE FUNCTION otp_gateway.channel(role text DEFAULT CURRENT_USER) RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'notification_channel';
COMMENT ON FUNCTION otp_gateway.channel(text) IS
'The channel on which, with otp_gateway.notify, each change of status of the verifications is announced that this role '
'began: LISTEN to it. Nobody can guess its name, and only who has the role''s rights is told it. Ask at each connect: a '
'new key in otp_gateway.key_file gives it another, and the one before is served while the old key is in the file. '
'Errors: 42704 no such role, 42501 not one whose rights the caller has.';
-- end of part F

-- part G
-- end of part G

-- part M
-- end of part M
