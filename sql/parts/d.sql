-- A table that a publication takes along (FOR ALL TABLES) must tell its rows apart, or its rows cannot be deleted:
-- forget, purge and retention failed there. A verification may come back to a reference that it had before, and one
-- row of it is enough; the insert says ON CONFLICT DO NOTHING.
DELETE FROM otp_gateway.reference AS r USING otp_gateway.reference AS same
WHERE r.verification_id OPERATOR(pg_catalog.=) same.verification_id AND r.provider OPERATOR(pg_catalog.=) same.provider
    AND r.reference OPERATOR(pg_catalog.=) same.reference AND r.ctid OPERATOR(pg_catalog.>) same.ctid;
ALTER TABLE otp_gateway.reference ADD PRIMARY KEY (verification_id, reference, provider);
DROP INDEX otp_gateway.reference_verification_id_idx;
