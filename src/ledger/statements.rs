//! The statements, prepared once. Each writes many rows.

use pgrx::{
    pg_sys,
    pg_sys::PgOid,
    spi::{OwnedPreparedStatement, SpiClient},
};

use super::{Failure, record};

pub type Statement = OwnedPreparedStatement;

macro_rules! statements {
    ($($name:ident ($($argument:expr),*) $sql:literal)*) => {
        pub struct Statements { $(pub $name: Statement,)* }

        impl Statements {
            pub fn prepare(client: &mut SpiClient) -> Result<Self, Failure> {
                Ok(Self {
                    $($name: client.prepare_mut($sql, &[$(PgOid::from($argument)),*])?.keep(),)*
                })
            }
        }
    };
}

// Rows come as one array of the table's own row type: Postgres takes it apart once, where an array for each column
// would be taken apart, stored and put together again.
statements! {
    insert_verifications(record::rows_of(c"verification"))
      "INSERT INTO otp_gateway.verification SELECT n.* FROM pg_catalog.unnest($1) AS n"

    insert_attempts(record::rows_of(c"attempt"))
      "INSERT INTO otp_gateway.attempt SELECT n.* FROM pg_catalog.unnest($1) AS n"

    update_verifications(record::rows_of(c"verification"))
      "UPDATE otp_gateway.verification AS v
       SET status = n.status, reference = n.reference, expires_at = n.expires_at, approved_at = n.approved_at,
           send_count = n.send_count, check_count = n.check_count,
           sealed = CASE WHEN n.status IN ('approved', 'canceled', 'expired', 'max_attempts_reached', 'failed', 'blocked')
                         THEN NULL ELSE coalesce(n.sealed, v.sealed) END
       FROM pg_catalog.unnest($1) AS n
       WHERE v.id OPERATOR(pg_catalog.=) n.id"

    complete_attempts(record::rows_of(c"attempt"))
      "UPDATE otp_gateway.attempt AS a
       SET outcome = n.outcome, http_status = n.http_status, vendor_code = n.vendor_code,
           vendor_message = n.vendor_message, response = n.response, finished_at = n.finished_at
       FROM pg_catalog.unnest($1) AS n
       WHERE a.id OPERATOR(pg_catalog.=) n.id AND a.outcome IS NULL"

    insert_references(record::rows_of(c"reference"))
      "INSERT INTO otp_gateway.reference SELECT n.* FROM pg_catalog.unnest($1) AS n"

    select_verifications(pg_sys::UUIDARRAYOID)
      "SELECT id, status, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at
       FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    find_by_reference(pg_sys::TEXTOID, pg_sys::TEXTOID)
      "SELECT verification_id FROM otp_gateway.reference
       WHERE provider OPERATOR(pg_catalog.=) $1 AND reference OPERATOR(pg_catalog.=) $2
       ORDER BY verification_id DESC"

    find_by_recipient(pg_sys::TEXTOID, pg_sys::BYTEAOID)
      "SELECT id FROM otp_gateway.verification
       WHERE provider OPERATOR(pg_catalog.=) $1 AND recipient_key OPERATOR(pg_catalog.=) $2
       ORDER BY id DESC"

    select_in_flight(pg_sys::UUIDOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text
       FROM otp_gateway.attempt WHERE id OPERATOR(pg_catalog.>=) $1 AND outcome IS NULL"

    select_attempt(pg_sys::UUIDOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text
       FROM otp_gateway.attempt WHERE id OPERATOR(pg_catalog.=) $1"

    select_last_attempt()
      "SELECT id FROM otp_gateway.attempt ORDER BY id DESC"

    select_sealed(pg_sys::UUIDOID)
      "SELECT id, coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day')
       FROM otp_gateway.verification
       WHERE id OPERATOR(pg_catalog.>=) $1 AND sealed IS NOT NULL AND status OPERATOR(pg_catalog.<>) 'queued'"

    select_sealed_of(pg_sys::UUIDARRAYOID)
      "SELECT id, coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day')
       FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND sealed IS NOT NULL"

    expire(pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID)
      "UPDATE otp_gateway.verification SET status = 'expired', sealed = NULL
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND sealed IS NOT NULL
         AND status OPERATOR(pg_catalog.<>) 'queued'
         AND coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day') OPERATOR(pg_catalog.<=) $2
       RETURNING id"

    // Whatever commits after this snapshot has a transaction number of at least this.
    select_horizon()
      "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())"

    select_queued(pg_sys::XID8OID, pg_sys::UUIDOID)
      "SELECT enqueued, id, provider, created_at FROM otp_gateway.verification
       WHERE ROW(enqueued, id) OPERATOR(pg_catalog.>) ROW($1, $2) AND enqueued IS NOT NULL
         AND status OPERATOR(pg_catalog.=) 'queued'
       ORDER BY enqueued, id"

    select_letters(pg_sys::UUIDARRAYOID)
      "SELECT id, status, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at, provider, vendor, created_by::text, sealed
       FROM otp_gateway.verification
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND status OPERATOR(pg_catalog.=) 'queued'"

    select_last_send(pg_sys::UUIDOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text
       FROM otp_gateway.attempt
       WHERE verification_id OPERATOR(pg_catalog.=) $1 AND operation IN ('send', 'resend')
       ORDER BY id DESC"

    announce(pg_sys::UUIDARRAYOID)
      "SELECT pg_catalog.pg_notify('otp_gateway', pg_catalog.json_build_object(
              'id', id, 'provider', provider, 'status', status)::text)
       FROM otp_gateway.verification WHERE id OPERATOR(pg_catalog.=) ANY ($1)"
}
