\set n random(1000000, 9999999)
SELECT outcome FROM otp_send('ideamart', ('{"mobile": "077' || :n || '"}')::jsonb);
