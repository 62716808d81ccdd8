/* otp_gateway 0.5.0 -> 0.6.0 */

-- complain if the script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION otp_gateway UPDATE" to load this file. \quit

-- With the superuser's rights that this script has, no trigger of somebody else's is to run.
SET LOCAL session_replication_role = replica;

-- part A
-- end of part A

-- part D
COMMENT ON COLUMN otp_gateway.provider.source IS
'server, defaults (that option''s members), vendor default, default, user mapping or state';

CREATE FUNCTION otp_gateway_internal.payload_fields() RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'payload_fields';
COMMENT ON FUNCTION otp_gateway_internal.payload_fields() IS
'for the view otp_gateway.payload_field: an array with an object for each row';

CREATE VIEW otp_gateway.payload_field AS
SELECT field.vendor, field.operation, field.field, field.vendor_name, field.required, field.rule, field.example
FROM ROWS FROM (
    pg_catalog.jsonb_to_recordset(otp_gateway_internal.payload_fields()) AS (
        vendor pg_catalog.text, operation pg_catalog.text, field pg_catalog.text, vendor_name pg_catalog.text,
        required pg_catalog.text, rule pg_catalog.text, example pg_catalog.jsonb
    )
) WITH ORDINALITY AS field (vendor, operation, field, vendor_name, required, rule, example, place)
ORDER BY field.place;
COMMENT ON VIEW otp_gateway.payload_field IS
'what a payload takes: the fields of each vendor''s operations, by the tables that payloads are checked by. What is '
'the same for every call of an account may stand in the server option defaults';
COMMENT ON COLUMN otp_gateway.payload_field.vendor IS 'its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.payload_field.operation IS 'send, verify, resend or cancel';
COMMENT ON COLUMN otp_gateway.payload_field.field IS 'the name in a payload, the same for all vendors';
COMMENT ON COLUMN otp_gateway.payload_field.vendor_name IS 'the vendor''s name for it, taken as well';
COMMENT ON COLUMN otp_gateway.payload_field.required IS
'yes; no; or kept: needed, and known from the send, so that only a flow begun elsewhere gives it; with what may stand '
'in its place, and for which variant of the call, where it is not for all';
COMMENT ON COLUMN otp_gateway.payload_field.rule IS 'what may stand in it, in words';
COMMENT ON COLUMN otp_gateway.payload_field.example IS 'a value that follows the rule, as a payload has it';

GRANT SELECT ON otp_gateway.payload_field TO PUBLIC;
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
