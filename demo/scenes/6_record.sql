-- The record: every attempt; no phone number, no code
-- What was rolled back in scene 3 is there, and would be after a crash.
\set ECHO queries
SELECT v.recipient_masked AS recipient, a.provider, a.operation, a.outcome,
  coalesce(a.reason, a.vendor_code) AS code_or_reason
FROM otp_gateway.attempt AS a
JOIN otp_gateway.verification AS v ON v.id = a.verification_id
ORDER BY a.id;
