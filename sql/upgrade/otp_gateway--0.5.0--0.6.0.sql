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
-- One C function checks the options of all vendors; the name of the function that is called says whose.
DO $$
DECLARE
    vendor record;
BEGIN
    FOR vendor IN SELECT v.name, v.about FROM (VALUES
        ('iserveu', 'iServeU DMT: server options base_url, timeout, defaults, ...; user mapping options client_id, '
            'client_secret'),
        ('hyperverge', 'HyperVerge mobile OTP: server options base_url, timeout, defaults, ...; user mapping options '
            'app_id, app_key'),
        ('paytm', 'Paytm AI router: server options base_url, timeout, defaults, ...; user mapping options username and '
            'password, or none'),
        ('relid', 'Uniken REL-ID: server options base_url (required), token_url, ca_file, ...; user mapping options '
            'username and password, or access_token, or client_id and client_secret'),
        ('ideamart', 'Ideamart (Dialog): server options base_url, timeout, defaults, ...; user mapping options '
            'application_id, password'),
        ('twilio', 'Twilio Verify v2: server options service_sid (required), timeout, defaults, ...; user mapping '
            'options api_key and api_secret, or account_sid and auth_token'),
        ('msg91', 'MSG91 OTP: server options base_url, timeout, defaults, ...; user mapping option authkey'),
        ('sandbox', 'no vendor, for development: sends nothing, takes a fixed code, ends a call as its payload''s field '
            'outcome says; server options max_checks, send_limit, ...; user mapping option code, or none')
    ) AS v (name, about)
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE OR REPLACE FUNCTION otp_gateway.%I(options text[], catalog oid) RETURNS void LANGUAGE c STRICT AS %L, %L',
            vendor.name OPERATOR(pg_catalog.||) '_validator', 'MODULE_PATHNAME', 'vendor_validator');
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION otp_gateway.%I(text[], oid) IS %L',
            vendor.name OPERATOR(pg_catalog.||) '_validator',
            'validator of the foreign data wrapper otp_' OPERATOR(pg_catalog.||) vendor.name
            OPERATOR(pg_catalog.||) ': refuses a mistyped or misplaced option when it is written');
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper AS w
            WHERE w.fdwname::pg_catalog.text OPERATOR(pg_catalog.=) ('otp_' OPERATOR(pg_catalog.||) vendor.name))
        THEN
            EXECUTE pg_catalog.format('CREATE FOREIGN DATA WRAPPER %I NO HANDLER VALIDATOR otp_gateway.%I',
                'otp_' OPERATOR(pg_catalog.||) vendor.name, vendor.name OPERATOR(pg_catalog.||) '_validator');
        END IF;
        EXECUTE pg_catalog.format('COMMENT ON FOREIGN DATA WRAPPER %I IS %L',
            'otp_' OPERATOR(pg_catalog.||) vendor.name, vendor.about);
    END LOOP;
END
$$;
COMMENT ON COLUMN otp_gateway_internal.verification_record.vendor IS 'the dialect; its foreign data wrapper is otp_<vendor>';
COMMENT ON COLUMN otp_gateway.verification.vendor IS 'the dialect; its foreign data wrapper is otp_<vendor>';
-- end of part F

-- part G
-- end of part G

-- part H
-- end of part H
