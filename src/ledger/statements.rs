//! The statements, prepared once. Each writes many rows: the arrays of its arguments are the columns.

use pgrx::{
    pg_sys,
    pg_sys::PgOid,
    spi::{OwnedPreparedStatement, SpiClient},
};

use super::Failure;

pub type Statement = OwnedPreparedStatement;

macro_rules! statements {
    ($($name:ident ($($argument:ident),*) $sql:literal)*) => {
        pub struct Statements { $(pub $name: Statement,)* }

        impl Statements {
            pub fn prepare(client: &mut SpiClient) -> Result<Self, Failure> {
                Ok(Self {
                    $($name: client.prepare_mut($sql, &[$(PgOid::from(pg_sys::$argument)),*])?.keep(),)*
                })
            }
        }
    };
}

statements! {
    insert_verifications(
        UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, BYTEAARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
        TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, BYTEAARRAYOID
    ) "INSERT INTO otp_gateway.verification (id, provider, vendor, status, recipient_masked, recipient_key, reference,
           created_by, created_at, expires_at, send_count, check_count, max_checks, sealed)
       SELECT n.id, n.provider, n.vendor, n.status::otp_gateway.status, n.recipient_masked, n.recipient_key, n.reference,
              n.created_by, n.created_at, n.expires_at, n.send_count, n.check_count, n.max_checks, n.sealed
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                       pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),
                       pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),
                       pg_catalog.unnest($13), pg_catalog.unnest($14))
            AS n (id, provider, vendor, status, recipient_masked, recipient_key, reference, created_by, created_at,
                  expires_at, send_count, check_count, max_checks, sealed)"

    insert_attempts(UUIDARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID)
      "INSERT INTO otp_gateway.attempt (id, verification_id, operation, outcome, started_at, finished_at)
       SELECT n.id, n.verification_id, n.operation::otp_gateway.operation, n.outcome::otp_gateway.outcome, n.started_at,
              n.finished_at
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                       pg_catalog.unnest($5), pg_catalog.unnest($6))
            AS n (id, verification_id, operation, outcome, started_at, finished_at)"

    update_verifications(
        UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID,
        BYTEAARRAYOID, BOOLARRAYOID
    ) "UPDATE otp_gateway.verification AS v
       SET status = n.status::otp_gateway.status, reference = n.reference, expires_at = n.expires_at,
           approved_at = n.approved_at, send_count = n.send_count, check_count = n.check_count,
           sealed = CASE WHEN n.erase THEN NULL ELSE coalesce(n.sealed, v.sealed) END
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                       pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),
                       pg_catalog.unnest($9))
            AS n (id, status, reference, expires_at, approved_at, send_count, check_count, sealed, erase)
       WHERE v.id OPERATOR(pg_catalog.=) n.id"

    complete_attempts(
        UUIDARRAYOID, TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID
    ) "UPDATE otp_gateway.attempt AS a
       SET outcome = n.outcome::otp_gateway.outcome, http_status = n.http_status, vendor_code = n.vendor_code,
           vendor_message = n.vendor_message, response = n.response::jsonb, finished_at = n.finished_at
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                       pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7))
            AS n (id, outcome, http_status, vendor_code, vendor_message, response, finished_at)
       WHERE a.id OPERATOR(pg_catalog.=) n.id AND a.outcome IS NULL"

    insert_references(TEXTARRAYOID, TEXTARRAYOID, UUIDARRAYOID)
      "INSERT INTO otp_gateway.reference (provider, reference, verification_id)
       SELECT n.provider, n.reference, n.verification_id
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
            AS n (provider, reference, verification_id)"

    select_verifications(UUIDARRAYOID)
      "SELECT id, status::text, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at
       FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    find_by_reference(TEXTOID, TEXTOID)
      "SELECT verification_id FROM otp_gateway.reference
       WHERE provider OPERATOR(pg_catalog.=) $1 AND reference OPERATOR(pg_catalog.=) $2
       ORDER BY verification_id DESC"

    find_by_recipient(TEXTOID, BYTEAOID)
      "SELECT id FROM otp_gateway.verification
       WHERE provider OPERATOR(pg_catalog.=) $1 AND recipient_key OPERATOR(pg_catalog.=) $2
       ORDER BY id DESC"

    select_in_flight(UUIDOID)
      "SELECT id, verification_id, operation::text, outcome::text, vendor_code, vendor_message, response::text
       FROM otp_gateway.attempt WHERE id OPERATOR(pg_catalog.>=) $1 AND outcome IS NULL"

    select_attempt(UUIDOID)
      "SELECT id, verification_id, operation::text, outcome::text, vendor_code, vendor_message, response::text
       FROM otp_gateway.attempt WHERE id OPERATOR(pg_catalog.=) $1"

    select_last_attempt()
      "SELECT id FROM otp_gateway.attempt ORDER BY id DESC"

    select_sealed(UUIDOID)
      "SELECT id, coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day')
       FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.>=) $1 AND sealed IS NOT NULL"

    select_sealed_of(UUIDARRAYOID)
      "SELECT id, coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day')
       FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND sealed IS NOT NULL"

    expire(UUIDARRAYOID, TIMESTAMPTZOID)
      "UPDATE otp_gateway.verification SET status = 'expired', sealed = NULL
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND sealed IS NOT NULL
         AND coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day') OPERATOR(pg_catalog.<=) $2"
}
