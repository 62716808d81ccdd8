//! The statements, prepared once. Each writes many rows.

use pgrx::{
    pg_sys,
    pg_sys::PgOid,
    spi::{OwnedPreparedStatement, SpiClient},
};

use crate::store::{row_array, transaction::Failure};

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
    insert_verifications(row_array::rows_of(c"verification_record"))
      "INSERT INTO otp_gateway.verification_record SELECT n.* FROM pg_catalog.unnest($1) AS n"

    insert_attempts(row_array::rows_of(c"attempt_record"))
      "INSERT INTO otp_gateway.attempt_record SELECT n.* FROM pg_catalog.unnest($1) AS n"

    update_verifications(row_array::rows_of(c"verification_record"))
      "UPDATE otp_gateway.verification_record AS v
       SET status = n.status, reference = n.reference, expires_at = n.expires_at, approved_at = n.approved_at,
           send_count = n.send_count, check_count = n.check_count,
           provider = coalesce(n.provider, v.provider), provider_id = coalesce(n.provider_id, v.provider_id),
           vendor = coalesce(n.vendor, v.vendor),
           sealed = CASE WHEN n.status IN ('approved', 'canceled', 'expired', 'max_attempts_reached', 'failed', 'blocked')
                         THEN NULL ELSE coalesce(n.sealed, v.sealed) END
       FROM pg_catalog.unnest($1) AS n
       WHERE v.id OPERATOR(pg_catalog.=) n.id"

    complete_attempts(row_array::rows_of(c"attempt_record"))
      "UPDATE otp_gateway.attempt_record AS a
       SET outcome = n.outcome, http_status = n.http_status, vendor_code = n.vendor_code,
           vendor_message = n.vendor_message, response = n.response, retry_at = n.retry_at,
           finished_at = n.finished_at
       FROM pg_catalog.unnest($1) AS n
       WHERE a.id OPERATOR(pg_catalog.=) n.id AND a.outcome IS NULL"

    insert_references(row_array::rows_of(c"reference"))
      "INSERT INTO otp_gateway.reference SELECT n.* FROM pg_catalog.unnest($1) AS n ON CONFLICT DO NOTHING"

    select_verifications(pg_sys::UUIDARRAYOID)
      "SELECT id, status, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at, provider_id, recipient_key, role_id
       FROM otp_gateway.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    // One's own before another role's; at this provider, else at another one of the account: the vendor knows it at all
    // of them.
    find_by_reference(pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::BYTEAARRAYOID, pg_sys::INT8OID)
      "SELECT r.verification_id FROM otp_gateway.reference AS r
       LEFT JOIN otp_gateway.verification_record AS v ON v.id OPERATOR(pg_catalog.=) r.verification_id
       WHERE r.reference OPERATOR(pg_catalog.=) $2
         AND (r.provider_id OPERATOR(pg_catalog.=) $1
              OR EXISTS (SELECT FROM otp_gateway.attempt_record AS a
                         WHERE a.verification_id OPERATOR(pg_catalog.=) r.verification_id
                           AND a.account OPERATOR(pg_catalog.=) ANY ($3)))
       ORDER BY (v.role_id OPERATOR(pg_catalog.=) $4) IS TRUE DESC, r.provider_id OPERATOR(pg_catalog.=) $1 DESC,
                r.verification_id DESC"

    find_by_recipient(pg_sys::INT8OID, pg_sys::BYTEAARRAYOID, pg_sys::INT8OID)
      "SELECT id FROM otp_gateway.verification_record
       WHERE provider_id OPERATOR(pg_catalog.=) $1 AND recipient_key OPERATOR(pg_catalog.=) ANY ($2)
         AND role_id OPERATOR(pg_catalog.=) $3
       ORDER BY id DESC"

    // So many are looked at, not found: a page takes the same time however few are in flight.
    select_attempts(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT a.id, CASE WHEN a.outcome IS NULL THEN a.verification_id END
       FROM (SELECT * FROM otp_gateway.attempt_record
             WHERE id OPERATOR(pg_catalog.<) $1 AND id OPERATOR(pg_catalog.>=) $2 ORDER BY id DESC LIMIT $3) AS a
       ORDER BY a.id DESC"

    select_in_flight(pg_sys::UUIDARRAYOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text, reason, retry_at
       FROM otp_gateway.attempt_record WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1) AND outcome IS NULL"

    select_attempt(pg_sys::UUIDOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text, reason, retry_at
       FROM otp_gateway.attempt_record WHERE id OPERATOR(pg_catalog.=) $1"

    select_last_attempt()
      "SELECT id FROM otp_gateway.attempt_record ORDER BY id DESC"

    // So many are looked at, as above.
    select_sealed(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT v.id, coalesce(v.expires_at, v.created_at OPERATOR(pg_catalog.+) interval '1 day'),
              CASE WHEN v.status OPERATOR(pg_catalog.<>) 'queued' THEN pg_catalog.substr(v.sealed, 1, 4) END,
              v.status OPERATOR(pg_catalog.=) 'sending'
       FROM (SELECT * FROM otp_gateway.verification_record
             WHERE id OPERATOR(pg_catalog.<) $1 AND id OPERATOR(pg_catalog.>=) $2 ORDER BY id DESC LIMIT $3) AS v
       ORDER BY v.id DESC"

    select_sealed_of(pg_sys::UUIDARRAYOID)
      "SELECT id, coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day')
       FROM otp_gateway.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND sealed IS NOT NULL"

    // One that somebody has locked is left for later, and holds up nobody.
    expire(pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID)
      "UPDATE otp_gateway.verification_record SET status = 'expired', sealed = NULL
       WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(
               SELECT v.id FROM otp_gateway.verification_record AS v WHERE v.id OPERATOR(pg_catalog.=) ANY ($1)
               FOR NO KEY UPDATE SKIP LOCKED))
         AND sealed IS NOT NULL AND status OPERATOR(pg_catalog.<>) 'queued'
         AND coalesce(expires_at, created_at OPERATOR(pg_catalog.+) interval '1 day') OPERATOR(pg_catalog.<=) $2
       RETURNING id"

    // Whatever commits after this snapshot has a transaction number of at least the first, or is one of the others.
    select_snapshot()
      "SELECT pg_catalog.pg_snapshot_xmax(s.now), ARRAY(SELECT x::pg_catalog.text FROM pg_catalog.pg_snapshot_xip(s.now) AS x)
       FROM (SELECT pg_catalog.pg_current_snapshot() AS now) AS s"

    // Those of these transactions that enqueued something that can be seen.
    select_enqueuers(pg_sys::TEXTARRAYOID)
      "SELECT x FROM pg_catalog.unnest($1::pg_catalog.xid8[]) AS x
       CROSS JOIN LATERAL (
           SELECT FROM otp_gateway.verification_record AS v WHERE v.enqueued OPERATOR(pg_catalog.=) x LIMIT 1) AS one"

    select_queued(pg_sys::XID8OID, pg_sys::UUIDOID, pg_sys::XID8OID)
      "SELECT enqueued, id, coalesce(route_id, provider_id), created_at, role_id, true FROM otp_gateway.verification_record
       WHERE ROW(enqueued, id) OPERATOR(pg_catalog.>) ROW($1, $2) AND enqueued OPERATOR(pg_catalog.<) $3
         AND status OPERATOR(pg_catalog.=) 'queued'
       ORDER BY enqueued, id"

    // So many are looked at, not found: a page takes the same time however few are still queued.
    select_once_queued(pg_sys::XID8OID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT v.enqueued, v.id, coalesce(v.route_id, v.provider_id), v.created_at, v.role_id, v.status OPERATOR(pg_catalog.=) 'queued'
       FROM (SELECT * FROM otp_gateway.verification_record
             WHERE ROW(enqueued, id) OPERATOR(pg_catalog.<) ROW($1, $2) AND enqueued IS NOT NULL
             ORDER BY enqueued DESC, id DESC LIMIT $3) AS v
       ORDER BY v.enqueued DESC, v.id DESC"

    // One that somebody has locked is left for later, and holds up nobody.
    select_letters(pg_sys::UUIDARRAYOID)
      "SELECT id, status, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at, provider_id, recipient_key, role_id, provider, vendor, created_by::text, sealed, route_id
       FROM otp_gateway.verification_record
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND status OPERATOR(pg_catalog.=) 'queued'
       FOR NO KEY UPDATE SKIP LOCKED"

    // Without waiting for anybody. A row that is not there is not locked.
    select_locked_verifications(pg_sys::UUIDARRAYOID)
      "WITH free AS MATERIALIZED (
           SELECT id FROM otp_gateway.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
       SELECT id FROM otp_gateway.verification_record
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND id OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT free.id FROM free))"

    select_locked_attempts(pg_sys::UUIDARRAYOID)
      "WITH free AS MATERIALIZED (
           SELECT id FROM otp_gateway.attempt_record WHERE id OPERATOR(pg_catalog.=) ANY ($1) FOR NO KEY UPDATE SKIP LOCKED)
       SELECT id FROM otp_gateway.attempt_record
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND id OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT free.id FROM free))"

    // Of a whole table that is locked as well.
    lock_tables()
      "LOCK TABLE otp_gateway.verification_record, otp_gateway.attempt_record, otp_gateway.reference
       IN ROW EXCLUSIVE MODE NOWAIT"

    select_send(pg_sys::UUIDOID, pg_sys::BOOLOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text, reason, retry_at
       FROM otp_gateway.attempt_record
       WHERE verification_id OPERATOR(pg_catalog.=) $1 AND (operation OPERATOR(pg_catalog.=) 'send' OR $2 AND operation OPERATOR(pg_catalog.=) 'resend')
       ORDER BY id DESC"

    // What counts, by the index on it: messages that went out, or may have.
    // What is dated ahead was written while the clock was wrong: it would block its recipient until then.
    select_sends(pg_sys::INT8ARRAYOID, pg_sys::BYTEAARRAYOID, pg_sys::TIMESTAMPTZARRAYOID, pg_sys::INT8ARRAYOID)
      "SELECT n.question, e.started_at
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
            WITH ORDINALITY AS n(provider_id, recipient_key, since, most, question)
       CROSS JOIN LATERAL (
           SELECT a.started_at FROM otp_gateway.attempt_record AS a
           WHERE a.recipient_key OPERATOR(pg_catalog.=) n.recipient_key
             -- Not by the index on providers, of whose sends there are many.
             AND a.provider_id OPERATOR(pg_catalog.+) 0 OPERATOR(pg_catalog.=) n.provider_id
             AND a.started_at OPERATOR(pg_catalog.>) n.since AND a.reason IS NULL
             AND a.started_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
             AND a.operation IN ('send', 'resend') AND (a.outcome IS NULL OR a.outcome IN ('sent', 'unknown'))
           ORDER BY a.started_at DESC LIMIT n.most) AS e"

    // Codes that were compared, or may have been, at an account or a provider; and who has sent something there.
    select_checks(pg_sys::INT8ARRAYOID, pg_sys::BYTEAARRAYOID, pg_sys::BYTEAARRAYOID, pg_sys::TIMESTAMPTZARRAYOID,
                  pg_sys::TIMESTAMPTZARRAYOID, pg_sys::INT8ARRAYOID)
      "SELECT n.question, e.id, e.operation, e.outcome, e.started_at, e.role_id, e.provider_id, e.is_of_account
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                       pg_catalog.unnest($5), pg_catalog.unnest($6))
            WITH ORDINALITY AS n(provider_id, account, recipient_key, since, sent_since, most, question)
       CROSS JOIN LATERAL (
           (SELECT a.id, a.operation, a.outcome, a.started_at, a.role_id, a.provider_id,
                   coalesce(a.account OPERATOR(pg_catalog.=) n.account, a.provider_id OPERATOR(pg_catalog.=) n.provider_id) AS is_of_account
            FROM otp_gateway.attempt_record AS a
            WHERE a.recipient_key OPERATOR(pg_catalog.=) n.recipient_key AND a.started_at OPERATOR(pg_catalog.>) n.since
              AND a.started_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
              AND a.reason IS NULL AND a.operation OPERATOR(pg_catalog.=) 'verify'
              AND (a.provider_id OPERATOR(pg_catalog.=) n.provider_id OR coalesce(a.account OPERATOR(pg_catalog.=) n.account, false))
              AND (a.outcome IS NULL OR a.outcome NOT IN ('unreachable', 'rate_limited', 'invalid_request', 'auth_failed',
                                                          'provider_error', 'blocked'))
            ORDER BY a.started_at DESC LIMIT n.most)
           UNION ALL
           (SELECT a.id, a.operation, a.outcome, a.started_at, a.role_id, a.provider_id, true
            FROM otp_gateway.attempt_record AS a
            WHERE a.recipient_key OPERATOR(pg_catalog.=) n.recipient_key AND a.started_at OPERATOR(pg_catalog.>) n.sent_since
              AND a.reason IS NULL AND a.operation IN ('send', 'resend') AND (a.outcome IS NULL OR a.outcome IN ('sent', 'unknown'))
              AND coalesce(a.account OPERATOR(pg_catalog.=) n.account, a.provider_id OPERATOR(pg_catalog.=) n.provider_id)
            ORDER BY a.started_at DESC LIMIT 1000)) AS e"

    select_provider_sends(pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID)
      "SELECT started_at, id FROM otp_gateway.attempt_record
       WHERE provider_id OPERATOR(pg_catalog.=) $1 AND started_at OPERATOR(pg_catalog.>) $2 AND reason IS NULL
         AND started_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
         AND recipient_key IS NOT NULL AND operation IN ('send', 'resend') AND (outcome IS NULL OR outcome IN ('sent', 'unknown'))
       ORDER BY started_at DESC LIMIT $3"

    select_started_at(pg_sys::UUIDOID)
      "SELECT started_at FROM otp_gateway.attempt_record WHERE id OPERATOR(pg_catalog.=) $1"

    find_by_idempotency_key(pg_sys::BYTEAARRAYOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID)
      "SELECT id FROM otp_gateway.verification_record
       WHERE idempotency_key OPERATOR(pg_catalog.=) ANY ($1) AND created_at OPERATOR(pg_catalog.>) $2
         AND role_id OPERATOR(pg_catalog.=) $3"

    select_of_recipient(pg_sys::INT8ARRAYOID, pg_sys::BYTEAARRAYOID)
      "SELECT id FROM otp_gateway.verification_record
       WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($2)
         AND (provider_id OPERATOR(pg_catalog.=) ANY ($1) OR route_id OPERATOR(pg_catalog.=) ANY ($1))"

    forget_verifications(pg_sys::UUIDARRAYOID)
      "UPDATE otp_gateway.verification_record
       SET recipient_masked = NULL, recipient_key = NULL, reference = NULL, idempotency_key = NULL, payload_hash = NULL,
           sealed = NULL,
           status = CASE WHEN status IN ('approved', 'canceled', 'expired', 'max_attempts_reached', 'failed', 'blocked')
                         THEN status ELSE 'canceled' END
       WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    // An empty key is nobody's, and still counts for provider_limit: the bill was run up.
    // What went to a provider of somebody else's goes on counting there.
    forget_attempts(pg_sys::UUIDARRAYOID, pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway.attempt_record
       SET recipient_key = CASE WHEN recipient_key IS NOT NULL THEN ''::pg_catalog.bytea END, vendor_message = NULL,
           response = NULL
       WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1)
         AND ($2 IS NULL OR provider_id OPERATOR(pg_catalog.=) ANY ($2))"

    // What is left of verifications that the owner of a route had forgotten.
    forget_keys(pg_sys::BYTEAARRAYOID, pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway.attempt_record SET recipient_key = ''::pg_catalog.bytea, vendor_message = NULL, response = NULL
       WHERE recipient_key OPERATOR(pg_catalog.=) ANY ($1) AND provider_id OPERATOR(pg_catalog.=) ANY ($2)
         AND reason IS NULL"

    // So many are looked at, not found: a page takes the same time whoever asks.
    select_old(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8ARRAYOID, pg_sys::INT8OID)
      "SELECT v.id,
              v.created_at OPERATOR(pg_catalog.<) $3 AND v.status NOT IN ('queued', 'sending')
              AND ($4 IS NULL OR coalesce(v.provider_id OPERATOR(pg_catalog.=) ANY ($4), false)
                   OR coalesce(v.route_id OPERATOR(pg_catalog.=) ANY ($4), false))
              AND NOT EXISTS (SELECT FROM otp_gateway.attempt_record AS a
                              WHERE a.verification_id OPERATOR(pg_catalog.=) v.id AND a.started_at OPERATOR(pg_catalog.>=) $3)
       FROM (SELECT * FROM otp_gateway.verification_record
             WHERE id OPERATOR(pg_catalog.>) $1 AND id OPERATOR(pg_catalog.<) $2 ORDER BY id LIMIT $5) AS v
       ORDER BY v.id"

    delete_verifications(pg_sys::UUIDARRAYOID)
      "DELETE FROM otp_gateway.verification_record WHERE id OPERATOR(pg_catalog.=) ANY ($1)"

    delete_attempts(pg_sys::UUIDARRAYOID)
      "DELETE FROM otp_gateway.attempt_record WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1)"

    delete_references(pg_sys::UUIDARRAYOID)
      "DELETE FROM otp_gateway.reference WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1)"

    select_oldest()
      "SELECT created_at FROM otp_gateway.verification_record ORDER BY id"

    select_seals(pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT id, status OPERATOR(pg_catalog.=) 'queued', sealed FROM otp_gateway.verification_record
       WHERE id OPERATOR(pg_catalog.>) $1 ORDER BY id LIMIT $2"

    reseal(pg_sys::UUIDARRAYOID, pg_sys::BYTEAARRAYOID)
      "UPDATE otp_gateway.verification_record AS v SET sealed = n.sealed
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS n (id, sealed)
       WHERE v.id OPERATOR(pg_catalog.=) n.id"

    open_breaker(pg_sys::OIDOID, pg_sys::OIDOID, pg_sys::TIMESTAMPTZOID)
      "INSERT INTO otp_gateway.breaker (server, mapping, open_until) VALUES ($1, $2, $3)
       ON CONFLICT (server, mapping) DO UPDATE SET open_until = excluded.open_until"

    close_breaker(pg_sys::OIDOID, pg_sys::OIDOID)
      "DELETE FROM otp_gateway.breaker WHERE server OPERATOR(pg_catalog.=) $1 AND mapping OPERATOR(pg_catalog.=) $2"

    close_all_breakers()
      "DELETE FROM otp_gateway.breaker"

    announce(pg_sys::UUIDARRAYOID)
      "SELECT pg_catalog.pg_notify('otp_gateway', pg_catalog.json_build_object(
              'id', v.id, 'provider', coalesce(i.name, v.provider), 'status', v.status)::text)
       FROM otp_gateway.verification_record AS v
       LEFT JOIN otp_gateway.identity AS i ON i.id OPERATOR(pg_catalog.=) v.provider_id
       WHERE v.id OPERATOR(pg_catalog.=) ANY ($1)"

    select_strangers()
      "WITH ours AS (
           SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_catalog.pg_class AS c
           JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
           WHERE n.nspname OPERATOR(pg_catalog.=) 'otp_gateway' AND c.relkind OPERATOR(pg_catalog.=) 'r'
       )
       SELECT pg_catalog.format('trigger %I on %I', t.tgname, o.relname) FROM pg_catalog.pg_trigger AS t
       JOIN ours AS o ON o.oid OPERATOR(pg_catalog.=) t.tgrelid
       JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
       JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
       WHERE NOT t.tgisinternal AND n.nspname OPERATOR(pg_catalog.<>) 'otp_gateway'
       UNION ALL
       SELECT pg_catalog.format('foreign key %I of %s on %I', k.conname, k.conrelid::pg_catalog.regclass, o.relname)
       FROM pg_catalog.pg_constraint AS k JOIN ours AS o ON o.oid OPERATOR(pg_catalog.=) k.confrelid
       UNION ALL
       SELECT pg_catalog.format('%s on %I to %s', pg_catalog.string_agg(a.privilege_type, ', '), o.relname,
                                CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
       FROM ours AS o CROSS JOIN LATERAL pg_catalog.aclexplode(o.relacl) AS a
       WHERE a.grantee OPERATOR(pg_catalog.<>) o.relowner GROUP BY o.relname, a.grantee"

    insert_identities(row_array::rows_of(c"identity"))
      "INSERT INTO otp_gateway.identity SELECT n.* FROM pg_catalog.unnest($1) AS n"

    select_identities(pg_sys::INT8OID)
      "SELECT id, kind, object FROM otp_gateway.identity
       WHERE home OPERATOR(pg_catalog.=) $1 AND object IS NOT NULL ORDER BY id"

    // Brought here by something else than a restored dump: by pg_upgrade, or by logical replication.
    find_servers(pg_sys::INT8OID)
      "UPDATE otp_gateway.identity AS i
       SET home = $1, object = CASE WHEN i.object IS NOT NULL THEN (
               SELECT s.oid FROM pg_catalog.pg_foreign_server AS s
               JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
               WHERE s.srvname::pg_catalog.text OPERATOR(pg_catalog.=) i.name
                 AND w.fdwname::pg_catalog.text OPERATOR(pg_catalog.=) ('otp_' OPERATOR(pg_catalog.||) i.vendor)
           ) END
       WHERE i.home OPERATOR(pg_catalog.<>) $1 AND i.kind OPERATOR(pg_catalog.=) 'server'"

    find_roles(pg_sys::INT8OID)
      "UPDATE otp_gateway.identity AS i
       SET home = $1, object = CASE WHEN i.object IS NOT NULL THEN (
               SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname::pg_catalog.text OPERATOR(pg_catalog.=) i.name
           ) END
       WHERE i.home OPERATOR(pg_catalog.<>) $1 AND i.kind OPERATOR(pg_catalog.=) 'role'"

    name_servers()
      "UPDATE otp_gateway.identity AS i SET name = s.srvname::pg_catalog.text FROM pg_catalog.pg_foreign_server AS s
       WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND s.oid OPERATOR(pg_catalog.=) i.object
         AND i.name OPERATOR(pg_catalog.<>) s.srvname::pg_catalog.text"

    name_roles()
      "UPDATE otp_gateway.identity AS i SET name = r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
       WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND r.oid OPERATOR(pg_catalog.=) i.object
         AND i.name OPERATOR(pg_catalog.<>) r.rolname::pg_catalog.text"

    select_missing_identities(pg_sys::INT8ARRAYOID)
      "SELECT i.id FROM otp_gateway.identity AS i WHERE i.id OPERATOR(pg_catalog.=) ANY ($1) AND CASE i.kind
             WHEN 'server' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_server AS s WHERE s.oid OPERATOR(pg_catalog.=) i.object)
             ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) i.object) END"

    // The OID may come round again, and is somebody else's then.
    drop_identities(pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway.identity AS i SET object = NULL
       WHERE i.object IS NOT NULL AND NOT i.id OPERATOR(pg_catalog.=) ANY ($1) AND CASE i.kind
             WHEN 'server' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_server AS s WHERE s.oid OPERATOR(pg_catalog.=) i.object)
             ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) i.object) END"
}
