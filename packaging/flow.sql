-- What a user does first, with the vendor that is built in: a code that is wrong, one that is right, one by the queue.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS otp_gateway;
CREATE SERVER sandbox FOREIGN DATA WRAPPER otp_sandbox;
DO $$
DECLARE
    sent record;
    checked record;
BEGIN
    SELECT * INTO STRICT sent FROM otp_send('sandbox', '{"mobile": "+94771234567"}');
    ASSERT sent.outcome = 'sent', sent.outcome;
    SELECT * INTO STRICT checked FROM otp_verify(sent.verification_id, '111111');
    ASSERT checked.outcome = 'invalid_code', checked.outcome;
    SELECT * INTO STRICT checked FROM otp_verify(sent.verification_id, '000000');
    ASSERT checked.outcome = 'approved', checked.outcome;
END
$$;
SELECT verification_id FROM otp_enqueue('sandbox', '{"mobile": "+94770000002"}') \gset
SELECT outcome = 'sent' AS was_sent FROM otp_gateway.wait(:'verification_id', '10 s') \gset
\if :was_sent
\else
    DO $$ BEGIN RAISE 'the queue did not send'; END $$;
\endif
