-- What docs/clients.md shows of clients that are databases, for test_inside.py: a part for each.

-- pg_cron
-- docs
SELECT cron.schedule('remind', '* * * * *', $$
  SELECT otp.otp_enqueue('sandbox', '{"mobile": "077 360 0001"}', 'remind ' || current_date)
$$);
-- end

-- postgres_fdw
-- docs
-- Without the identity column: postgres_fdw would write NULL into it.
CREATE FOREIGN TABLE customer (phone text, verification_id uuid) SERVER far OPTIONS (schema_name 'public');
IMPORT FOREIGN SCHEMA otp_gateway LIMIT TO (verification, attempt) FROM SERVER far INTO public;
-- end
-- docs
INSERT INTO customer (phone) VALUES ('077 360 0002') RETURNING verification_id;
-- end

-- dblink
-- docs
SELECT * FROM dblink('far', $$
  SELECT verification_id, outcome FROM otp.otp_send('sandbox', '{"mobile": "077 360 0003"}')
$$) AS sent (verification_id uuid, outcome text);
-- end

-- logical replication
-- docs
CREATE PUBLICATION customers FOR TABLE public.customer;
-- end

