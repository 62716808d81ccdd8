-- Promise: a mistyped or misplaced option is refused when it is written, with what to write instead.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_ur 'https://api.dialog.lk');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (password 'x');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url 'http://api.dialog.lk');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (base_url 'https://me:secret@api.dialog.lk');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (timeout 'soon');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (timeout '1h');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (max_checks '0');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (defaults '[]');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (defaults '{"mobile": "0771234567"}');
CREATE SERVER s FOREIGN DATA WRAPPER otp_ideamart OPTIONS (token_url 'https://x.example');
CREATE SERVER s FOREIGN DATA WRAPPER otp_relid;
CREATE SERVER s FOREIGN DATA WRAPPER otp_twilio;
CREATE SERVER s FOREIGN DATA WRAPPER otp_twilio OPTIONS (service_sid 'AC0a1b2c3d4e5f0a1b2c3d4e5f0a1b2c3d');
CREATE SERVER s FOREIGN DATA WRAPPER otp_relid OPTIONS (base_url 'https://relid.example:8443', client_cert_file '/c.pem');
CREATE SERVER s FOREIGN DATA WRAPPER otp_relid OPTIONS (base_url 'https://relid.example:8443', timeout '8s', max_checks '4');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (username 'u');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (username 'u', access_token 't');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (timeout '8s');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (usernam 'u');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (clientId 'c');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (accessTokenFile '/t');
ALTER SERVER s OPTIONS (ADD clientSecret 'c');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (username 'u', password 'p');
CREATE FOREIGN DATA WRAPPER other VALIDATOR otp_gateway_internal.paytm_validator OPTIONS (a 'b');

-- Promise: so is every limit; and the text of an option that holds codes is never repeated.
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after 'never');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '8d');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (send_limit '5 an hour');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (send_limit '');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (check_limit '5 per hour, 6 per 60 minutes');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (provider_limit '0 per day');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (provider_limit '5 per year');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (min_conversion '0.1');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (min_conversion '31%');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (allowed_prefixes '91');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (enforce 'off');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (test_numbers '0771234567=918273');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (test_numbers '+94770000001=918 273');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (tset_numbers '+94770000001=918273');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (code '918273');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (defaults '{"outcome": "sent"}');
CREATE SERVER t FOREIGN DATA WRAPPER otp_sandbox OPTIONS (
    resend_after '90 s', send_limit '10 per day,5 per hour', check_limit '20 per 24 hours', provider_limit '1000 per 10 minutes',
    allowed_prefixes '+91,+94, +91', enforce 'OBSERVE', test_numbers '+94770000001 = 918273', timeout '2000 ms', max_checks '3');
CREATE USER MAPPING FOR PUBLIC SERVER t OPTIONS (cod '918273');
CREATE USER MAPPING FOR PUBLIC SERVER t OPTIONS (code '918273', code_file '/c');
CREATE USER MAPPING FOR PUBLIC SERVER t OPTIONS (code '918273');
CREATE SERVER u FOREIGN DATA WRAPPER otp_sandbox OPTIONS (resend_after '0s');

-- Promise: otp_gateway.provider shows to every role what is in force and where it comes from, and no secret.
\pset null '(null)'
SELECT setting, value, source FROM otp_gateway.provider WHERE provider = 's';
SELECT setting, value, source FROM otp_gateway.provider WHERE provider = 't';
SELECT provider, vendor, setting, value, source FROM otp_gateway.provider
WHERE provider = 'u' AND setting IN ('base_url', 'resend_after', 'credentials');
SELECT count(*) FROM otp_gateway.provider AS p WHERE p::text ~ '918273';
BEGIN;
CREATE ROLE otp_regress_reader;
CREATE USER MAPPING FOR otp_regress_reader SERVER t OPTIONS (code_file '/run/secrets/otp_regress');
SET LOCAL ROLE otp_regress_reader;
SELECT provider, value FROM otp_gateway.provider WHERE setting = 'credentials';
ROLLBACK;
-- Options that the validator has not seen spoil no other provider's rows.
BEGIN;
UPDATE pg_foreign_server SET srvoptions = '{timeout=soon}' WHERE srvname = 'u';
SELECT provider, setting, value, source FROM otp_gateway.provider WHERE setting IN ('error', 'credentials');
ROLLBACK;
SELECT otp_gateway_internal.effective_settings(0);
-- Promise: a route is checked like any server, and says what is in force.
CREATE SERVER r FOREIGN DATA WRAPPER otp_route;
CREATE SERVER r FOREIGN DATA WRAPPER otp_route OPTIONS (provider 't, u');
CREATE SERVER r FOREIGN DATA WRAPPER otp_route OPTIONS (providers 't, t');
CREATE SERVER r FOREIGN DATA WRAPPER otp_route OPTIONS (providers 't, u', strategy 'random');
CREATE SERVER r FOREIGN DATA WRAPPER otp_route OPTIONS (providers 't, u', weights '3');
CREATE SERVER r FOREIGN DATA WRAPPER otp_route OPTIONS (providers 't, u', strategy 'weighted', weights '3, 1');
CREATE USER MAPPING FOR PUBLIC SERVER r OPTIONS (code '918273');
SELECT setting, value, source FROM otp_gateway.provider WHERE provider = 'r';
CREATE SERVER nested FOREIGN DATA WRAPPER otp_route OPTIONS (providers 'r');
SELECT * FROM otp_send('nested', '{"mobile": "0771234567"}');
SELECT * FROM otp_verify('r', '123456', '{"mobile": "0771234567"}');
