//! Queued sends: which transactions have enqueued sends, and which sends.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    pg::values::{self, argument, uuid, uuids},
    store::{
        StoreTransaction,
        prepared::statements,
        rows::{self, QueuedPayload, QueuedVerification},
        transaction::Failure,
    },
};

statements! {
    // Whatever commits after this snapshot has a transaction number of at least the first column, or one of the second.
    select_snapshot()
      "SELECT pg_catalog.pg_snapshot_xmax(s.now),
              ARRAY(SELECT x::pg_catalog.text FROM pg_catalog.pg_snapshot_xip(s.now) AS x)
       FROM (SELECT pg_catalog.pg_current_snapshot() AS now) AS s"

    // Those of these transactions that enqueued a send that this transaction can see.
    select_enqueuers(pg_sys::TEXTARRAYOID)
      "SELECT x FROM pg_catalog.unnest($1::pg_catalog.xid8[]) AS x
       CROSS JOIN LATERAL (
           SELECT FROM otp_gateway_internal.verification_record AS v
           WHERE v.enqueued OPERATOR(pg_catalog.=) x LIMIT 1) AS one"

    select_queued(pg_sys::XID8OID, pg_sys::UUIDOID, pg_sys::XID8OID)
      "SELECT enqueued, id, coalesce(route_id, provider_id), created_at, role_id, true
       FROM otp_gateway_internal.verification_record
       WHERE ROW(enqueued, id) OPERATOR(pg_catalog.>) ROW($1, $2) AND enqueued OPERATOR(pg_catalog.<) $3
         AND status OPERATOR(pg_catalog.=) 'queued'
       ORDER BY enqueued, id"

    // $3 is how many rows are looked at, not found: a page takes the same time however few are still queued.
    select_once_queued(pg_sys::XID8OID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT v.enqueued, v.id, coalesce(v.route_id, v.provider_id), v.created_at, v.role_id,
              v.status OPERATOR(pg_catalog.=) 'queued'
       FROM (SELECT * FROM otp_gateway_internal.verification_record
             WHERE ROW(enqueued, id) OPERATOR(pg_catalog.<) ROW($1, $2) AND enqueued IS NOT NULL
             ORDER BY enqueued DESC, id DESC LIMIT $3) AS v
       ORDER BY v.enqueued DESC, v.id DESC"

    // A row that somebody has locked is left for later, and holds up no other.
    select_queued_payloads(pg_sys::UUIDARRAYOID)
      "SELECT id, status, reference, expires_at, approved_at, send_count, check_count, max_checks,
              created_at, provider_id, recipient_key, role_id, route_id, country, is_test, provider, vendor,
              (SELECT i.name FROM otp_gateway_internal.identity AS i WHERE i.id OPERATOR(pg_catalog.=) role_id), sealed
       FROM otp_gateway_internal.verification_record
       WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND status OPERATOR(pg_catalog.=) 'queued'
       FOR NO KEY UPDATE SKIP LOCKED"
}

/// Which transactions can be seen.
pub struct Snapshot {
    /// From this number on, no transaction can be seen.
    pub next: u64,
    /// Transactions below `next` that cannot be seen either.
    pub running: Vec<u64>,
}

impl StoreTransaction<'_, '_> {
    /// Returns what can be seen now.
    pub fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        let table = self.client.select(&self.store.queue.select_snapshot, Some(1), &[])?;
        let read = |row: pgrx::spi::SpiHeapTupleData| {
            let running: Vec<String> = row.get(2)?.unwrap_or_default();
            let running = running.iter().filter_map(|number| number.parse().ok()).collect();
            Ok::<_, Failure>(Snapshot { next: rows::transaction(&row, 1)?, running })
        };
        table.map(read).next().unwrap_or_else(|| Err(Failure::Error("no snapshot".to_owned())))
    }

    /// Returns those of these transactions that enqueued a send.
    pub fn enqueuers(&mut self, transactions: &[u64]) -> Result<Vec<u64>, Failure> {
        if transactions.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<String> = transactions.iter().map(u64::to_string).collect();
        let arguments = [argument(numbers, pg_sys::TEXTARRAYOID)];
        let table = self.client.select(&self.store.queue.select_enqueuers, None, &arguments)?;
        table.map(|row| rows::transaction(&row, 1)).collect()
    }

    /// Returns the next `most` queued sends, in the order of transaction and id, after the given one, of transactions
    /// before `end`.
    pub fn queued(&mut self, after: (u64, Uuid), end: u64, most: i64) -> Result<Vec<QueuedVerification>, Failure> {
        let arguments = [values::transaction(after.0), uuid(after.1), values::transaction(end)];
        let table = self.client.select(&self.store.queue.select_queued, Some(most), &arguments)?;
        table.map(|row| QueuedVerification::read(&row)).collect()
    }

    /// Returns the `most` sends before that one, the latest first, of all that were ever queued.
    pub fn once_queued(&mut self, before: (u64, Uuid), most: i64) -> Result<Vec<QueuedVerification>, Failure> {
        let arguments = [values::transaction(before.0), uuid(before.1), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.queue.select_once_queued, None, &arguments)?;
        table.map(|row| QueuedVerification::read(&row)).collect()
    }

    /// Returns those of these sends that are still queued, but for those that somebody else has locked just now.
    pub fn queued_payloads(&mut self, ids: &[Uuid]) -> Result<Vec<QueuedPayload>, Failure> {
        let table = self.client.select(&self.store.queue.select_queued_payloads, None, &[uuids(ids)])?;
        table.map(|row| QueuedPayload::read(&row)).collect()
    }
}
