-- The floor: an equal record, written by the session itself, without any HTTP. The INSERTs in one commit, the UPDATEs
-- (and the reference that the answer brings) in another, as the worker does it.
SELECT gen_random_uuid()::text AS v, gen_random_uuid()::text AS a \gset
BEGIN;
INSERT INTO floor.verification (id, provider, vendor, status, recipient_masked, recipient_key, created_by, created_at, expires_at, send_count, check_count, max_checks, sealed) VALUES (:v::uuid, 'ideamart', 'ideamart', 'sending', '+94*****4567', sha256(:v::bytea), 'postgres', clock_timestamp(), clock_timestamp(), 1, 0, 3, decode(repeat('ab', 60), 'hex'));
INSERT INTO floor.attempt (id, verification_id, operation, started_at) VALUES (:a::uuid, :v::uuid, 'send', clock_timestamp());
COMMIT;
BEGIN;
UPDATE floor.attempt SET outcome = 'sent', http_status = 200, vendor_code = 'S1000', vendor_message = 'Success', response = '{"version": "1.0", "statusCode": "S1000", "referenceNo": "1491c1eeac998ff457a6974392209b7e86bb219", "statusDetail": "Success"}', finished_at = clock_timestamp() WHERE id = :a::uuid;
UPDATE floor.verification SET status = 'pending', reference = :a, expires_at = clock_timestamp() WHERE id = :v::uuid;
INSERT INTO floor.reference VALUES ('ideamart', :a, :v::uuid, 1);
COMMIT;
