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
-- Pages that are there stay as they are: nothing is written anew, and nobody waits.
ALTER TABLE otp_gateway_internal.verification_record SET (fillfactor = 40, toast_tuple_target = 8160);
ALTER TABLE otp_gateway_internal.attempt_record SET (fillfactor = 33);

-- A look-up by number reads its rows itself.
-- VOLATILE: the planner calls what is STABLE, to see how many rows there will be.
CREATE FUNCTION otp_gateway_internal.found_verifications(provider text, mobile text) RETURNS otp_gateway.verification[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'found_verifications';
COMMENT ON FUNCTION otp_gateway_internal.found_verifications(text, text) IS
'for otp_gateway.find: the verifications of a number that the caller may see, as otp_gateway.verification shows them';

CREATE OR REPLACE FUNCTION otp_gateway.find(provider text, mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    -- Not STRICT: so Postgres puts it into the query that calls it, and plans no query of its own.
    SELECT v.* FROM pg_catalog.unnest(otp_gateway_internal.found_verifications(find.provider, find.mobile)) AS v;
END;
CREATE FUNCTION otp_gateway_internal.found_verifications_anywhere(mobile text) RETURNS otp_gateway.verification[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'found_verifications_anywhere';
COMMENT ON FUNCTION otp_gateway_internal.found_verifications_anywhere(text) IS
'for otp_gateway.find: the same at all providers';

CREATE OR REPLACE FUNCTION otp_gateway.find(mobile text) RETURNS SETOF otp_gateway.verification
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT v.* FROM pg_catalog.unnest(otp_gateway_internal.found_verifications_anywhere(find.mobile)) AS v;
END;

DROP FUNCTION otp_gateway_internal.recipient_verifications(text, text);
COMMENT ON FUNCTION otp_gateway_internal.recipient_verifications_anywhere(text) IS
'for otp_gateway.history: the ids of the verifications of a number that the caller may see, at all providers';
-- end of part G

-- part M
-- end of part M
