-- The same call by pgsql-http, and a row that says what became of it.
\set n random(1000000, 9999999)
INSERT INTO floor.sent SELECT clock_timestamp(), :n, r.status, r.content FROM http_post(:url, '{"applicationId":"APP_001100","password":"secret","subscriberId":"tel:9477' || :n || '","applicationHash":"abcdefgh"}', 'application/json') AS r;
