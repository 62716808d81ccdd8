-- The record: every attempt; no phone number, no code
-- What was rolled back in scene 3 is there, and would be after a crash, too.
\set ECHO queries
SELECT recipient_masked AS recipient, provider, operation, outcome, words
FROM otp_gateway.recent;
SELECT provider, operation, outcome, words
FROM otp_gateway.history('077 123 4567', 'today', 'infinity');
