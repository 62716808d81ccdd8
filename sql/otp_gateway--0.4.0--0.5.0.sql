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

CREATE FUNCTION otp_gateway.send_again(verification_id uuid) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'send_again';
COMMENT ON FUNCTION otp_gateway.send_again(uuid) IS
'For a row whose code never left, or is over: UPDATE ... SET verification_id = otp_gateway.send_again(verification_id) has the trigger otp_gateway.send_after_commit send for the row as it is, after COMMIT and under the same limits, and put the new verification''s id into its column. While the verification is open (queued, sending, pending, unknown) its id is returned, and nothing changes: a double click sends one code, and otp_resend sends it again. By itself it sends nothing.';

-- When waiting helps is said whenever one asks, not only to whoever waits for the decision.
ALTER TABLE otp_gateway.attempt_record ADD COLUMN retry_at timestamptz;
COMMENT ON COLUMN otp_gateway.attempt_record.retry_at IS 'from then on another try may succeed, as the rule that refused or the vendor says';

-- end of part a

-- part b

-- end of part b

-- part c

-- end of part c

-- part d

-- end of part d
