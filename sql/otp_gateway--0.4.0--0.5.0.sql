/* otp_gateway 0.4.0 -> 0.5.0: the right number, the right meaning. */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- part a

-- end of part a

-- part b

-- end of part b

-- part c

-- end of part c

-- part d

-- end of part d
