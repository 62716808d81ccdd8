/* otp_gateway 0.4.0 -> 0.5.0: the right number, the right meaning. */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- part a

CREATE FUNCTION otp_gateway.is_approved(verification_id uuid, mobile text, within interval DEFAULT '10 minutes') RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'is_approved';
COMMENT ON FUNCTION otp_gateway.is_approved(uuid, text, interval) IS
'Whether this verification, begun by a role that the caller is a member of, was approved, no longer ago than that, for this very number (for REL-ID: user id), in any spelling. Reads what is on record at the moment of the call, also under REPEATABLE READ and SERIALIZABLE, and after a rollback of the transaction that called otp_verify. False, and no error, for null, for an unknown id and somebody else''s, after otp_gateway.forget, and for a flow begun elsewhere: nobody here knows who got its code. Errors: 22023 within is null or negative.';

-- end of part a

-- part b

-- end of part b

-- part c

-- end of part c

-- part d

-- end of part d
