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
-- end of part E

-- part F
-- end of part F

-- part G
-- end of part G

-- part H
-- Which key this database needs: a copy of it that comes without the key file must not begin anew in silence. Both tables
-- may be in a publication, and no row of another database may be in the way of one's own.
CREATE TABLE otp_gateway.sealing_key (
    id text NOT NULL
);
ALTER TABLE otp_gateway.sealing_key REPLICA IDENTITY FULL;
ALTER TABLE otp_gateway.sealing_key ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway.sealing_key IS
'the key that otp_gateway.key_file has to hold for this database; written by the worker before it seals. DELETE FROM it '
'accepts that the key is lost for good';
COMMENT ON COLUMN otp_gateway.sealing_key.id IS 'what the key is called: no part of it';

-- Where what is queued is sent from. pg_upgrade takes it along, pg_dump does not: the queue of a copy is nobody's to send.
CREATE TABLE otp_gateway.queue_home (
    database oid NOT NULL,
    cluster bigint NOT NULL
);
ALTER TABLE otp_gateway.queue_home REPLICA IDENTITY FULL;
ALTER TABLE otp_gateway.queue_home ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE otp_gateway.queue_home IS
'the cluster that queued sends of this database are sealed for: the one that it was made in';
COMMENT ON COLUMN otp_gateway.queue_home.database IS 'the OID of the database: that of a template is another one';
COMMENT ON COLUMN otp_gateway.queue_home.cluster IS 'its system identifier then; pg_upgrade makes a new one';
INSERT INTO otp_gateway.queue_home (database, cluster)
SELECT d.oid, c.system_identifier FROM pg_catalog.pg_database AS d, pg_catalog.pg_control_system() AS c
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
SELECT pg_catalog.pg_extension_config_dump('otp_gateway.sealing_key', '');
-- end of part H
