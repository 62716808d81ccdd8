-- Keeps codes and numbers of one role's statements out of the server's log, pg_stat_activity and pg_stat_statements,
-- whatever the server logs of others. As a superuser (it changes nothing but the role's own settings):
--
--   psql -v role=registration_app -f contrib/quiet_role.sql
--
-- role is the role that logs in: Postgres reads these at the log-in, not at SET ROLE, and not from a group that the role
-- is a member of. They hold from its next connection on, in every database. The role cannot undo them, but for
-- log_parameter_max_length_on_error and debug_print_*. What belongs to a library that is not loaded does no harm, and
-- holds when it is.
-- To undo it: ALTER ROLE ... RESET for each, or RESET ALL.

\set ON_ERROR_STOP on
\if :{?role}
\else
DO $$ BEGIN
  RAISE EXCEPTION 'no role is given'
    USING HINT = 'psql -v role=registration_app -f contrib/quiet_role.sql';
END $$;
\endif

BEGIN;

-- Statements, and their parameters, as they are logged by the way.
ALTER ROLE :"role" SET log_statement = 'none';
ALTER ROLE :"role" SET log_min_duration_statement = -1;
ALTER ROLE :"role" SET log_min_duration_sample = -1;
ALTER ROLE :"role" SET log_transaction_sample_rate = 0;
-- The same of one that fails, waits for a lock or writes a temporary file: the message is logged, the statement is not.
ALTER ROLE :"role" SET log_min_error_statement = 'panic';
ALTER ROLE :"role" SET log_parameter_max_length_on_error = 0;
-- Messages of no fault, whose CONTEXT is the statements around them, where DO or a function runs those.
ALTER ROLE :"role" SET log_lock_waits = off;
ALTER ROLE :"role" SET log_temp_files = -1;
ALTER ROLE :"role" SET log_parser_stats = off;
ALTER ROLE :"role" SET log_planner_stats = off;
-- Plans, as bytes.
ALTER ROLE :"role" SET debug_print_parse = off;
ALTER ROLE :"role" SET debug_print_rewritten = off;
ALTER ROLE :"role" SET debug_print_plan = off;
-- Libraries that log statements, or keep them. What was called stays on pgaudit's record, its text does not.
ALTER ROLE :"role" SET auto_explain.log_min_duration = -1;
ALTER ROLE :"role" SET pgaudit.log_statement = off;
ALTER ROLE :"role" SET pg_stat_statements.track_utility = off;
-- pg_stat_activity.
ALTER ROLE :"role" SET track_activities = off;

COMMIT;

\echo
\echo Set for :role, from its next connection on:
SELECT s.setting
FROM pg_catalog.pg_db_role_setting AS r CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS s (setting)
WHERE r.setrole = pg_catalog.to_regrole(pg_catalog.quote_ident(:'role')) AND r.setdatabase = 0;

\echo Set otherwise for the role in one database, where that wins: ALTER ROLE ... IN DATABASE ... RESET each of these:
SELECT d.datname AS database, s.setting
FROM pg_catalog.pg_db_role_setting AS r
JOIN pg_catalog.pg_database AS d ON d.oid = r.setdatabase
CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS s (setting)
JOIN pg_catalog.pg_db_role_setting AS everywhere ON everywhere.setrole = r.setrole AND everywhere.setdatabase = 0
CROSS JOIN LATERAL pg_catalog.unnest(everywhere.setconfig) AS e (setting)
WHERE r.setrole = pg_catalog.to_regrole(pg_catalog.quote_ident(:'role'))
  AND pg_catalog.split_part(e.setting, '=', 1) = pg_catalog.split_part(s.setting, '=', 1) AND e.setting <> s.setting
ORDER BY d.datname, s.setting;
