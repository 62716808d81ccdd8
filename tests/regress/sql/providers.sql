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
CREATE SERVER s FOREIGN DATA WRAPPER otp_relid OPTIONS (base_url 'https://relid.example:8443', client_cert_file '/c.pem');
CREATE SERVER s FOREIGN DATA WRAPPER otp_relid OPTIONS (base_url 'https://relid.example:8443', timeout '8s', max_checks '4');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (username 'u');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (username 'u', access_token 't');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (timeout '8s');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (usernam 'u');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (username 'u', password 'p');
CREATE FOREIGN DATA WRAPPER other VALIDATOR otp_gateway.paytm_validator OPTIONS (a 'b');
