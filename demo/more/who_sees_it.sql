-- Who sees it, a new key, and a person who is forgotten
-- What is sealed is sealed anew. Of whom is forgotten, nothing is left to find.
\set ECHO queries
CREATE ROLE demo_nobody;
SET ROLE demo_nobody;
SELECT count(*) AS rows_of_others FROM otp_gateway.verification;
RESET ROLE;
SELECT otp_gateway.rotate_key() >= 0 AS sealed_anew;
SELECT provider, status, recipient_masked
FROM otp_gateway.find('ideamart', '+94 77 123 4567');
SELECT otp_gateway.forget('ideamart', '077-123-4567') AS forgotten;
SELECT count(*) AS found FROM otp_gateway.find('ideamart', '0771234567');
