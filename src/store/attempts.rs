//! Attempts: the intent before a call, the call's end, and the attempts that are left in flight.

use std::borrow::Borrow;

use dialect::Outcome;
use pgrx::pg_sys;
use policy::BlockReason;
use uuid::Uuid;

use crate::{
    pg::{
        table_write,
        values::{argument, uuid, uuids},
    },
    store::{
        StoreTransaction,
        columns::attempt,
        prepared::statements,
        rows::{self, AttemptEnd, NewAttempt, StoredAttempt, WhichSend},
        transaction::Failure,
    },
};

statements! {
    // So many are looked at, not found: a page takes the same time however few are in flight.
    select_attempts(pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::INT8OID)
      "SELECT a.id, CASE WHEN a.outcome IS NULL THEN a.verification_id END
       FROM (SELECT * FROM otp_gateway_internal.attempt_record
             WHERE id OPERATOR(pg_catalog.<) $1 AND id OPERATOR(pg_catalog.>=) $2 ORDER BY id DESC LIMIT $3) AS a
       ORDER BY a.id DESC"

    select_in_flight(pg_sys::UUIDARRAYOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text, reason, retry_at,
              provider_id, started_at
       FROM otp_gateway_internal.attempt_record
       WHERE verification_id OPERATOR(pg_catalog.=) ANY ($1) AND outcome IS NULL"

    select_send(pg_sys::UUIDOID, pg_sys::BOOLOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text, reason, retry_at,
              provider_id, started_at
       FROM otp_gateway_internal.attempt_record
       WHERE verification_id OPERATOR(pg_catalog.=) $1
         AND (operation OPERATOR(pg_catalog.=) 'send' OR $2 AND operation OPERATOR(pg_catalog.=) 'resend')
       ORDER BY id DESC"

    select_attempt(pg_sys::UUIDOID)
      "SELECT id, verification_id, operation, outcome, vendor_code, vendor_message, response::text, reason, retry_at,
              provider_id, started_at
       FROM otp_gateway_internal.attempt_record WHERE id OPERATOR(pg_catalog.=) $1"

    select_last_attempt()
      "SELECT id FROM otp_gateway_internal.attempt_record ORDER BY id DESC"
}

impl StoreTransaction<'_, '_> {
    pub fn insert_attempts(&mut self, rows: &[NewAttempt]) {
        self.ended.extend(rows.iter().filter_map(NewAttempt::ended));
        table_write::insert(&self.store.attempt, rows, |row, columns| {
            columns.uuid(attempt::ID, row.id);
            columns.uuid(attempt::VERIFICATION_ID, row.verification);
            columns.text(attempt::OPERATION, Some(row.operation.as_str()));
            columns.text(attempt::OUTCOME, row.refused.map(Outcome::as_str));
            columns.text(attempt::VENDOR_MESSAGE, row.why.as_deref());
            columns.bigint(attempt::PROVIDER_ID, Some(row.provider_id));
            columns.bigint(attempt::ROLE_ID, Some(row.role_id));
            columns.bytea(attempt::ACCOUNT, Some(row.account.as_slice()).filter(|account| !account.is_empty()));
            columns.bytea(attempt::RECIPIENT_KEY, row.recipient_key.as_deref());
            columns.text(attempt::REASON, row.reason.map(BlockReason::as_str));
            columns.time(attempt::RETRY_AT, row.retry_at);
            columns.time(attempt::STARTED_AT, Some(row.started_at));
            columns.time(attempt::FINISHED_AT, row.refused.map(|_| row.started_at));
        });
    }

    /// Those of them that have not ended.
    pub fn complete_attempts(&mut self, rows: &[impl Borrow<AttemptEnd>]) {
        self.ended.extend(rows.iter().map(|row| row.borrow().ended()));
        let id = |row: &_| Borrow::<AttemptEnd>::borrow(row).id;
        table_write::update(&self.store.attempt, attempt::ID, rows, id, |row, columns| {
            let row: &AttemptEnd = row.borrow();
            let is_in_flight = columns.is_null(attempt::OUTCOME);
            if is_in_flight {
                columns.text(attempt::OUTCOME, Some(row.outcome.as_str()));
                columns.integer(attempt::HTTP_STATUS, row.http_status.map(i32::from));
                columns.text(attempt::VENDOR_CODE, row.vendor_code.as_deref());
                columns.text(attempt::VENDOR_MESSAGE, row.vendor_message.as_deref());
                columns.json(attempt::RESPONSE, row.response.as_deref());
                columns.time(attempt::RETRY_AT, row.retry_at);
                columns.time(attempt::FINISHED_AT, Some(row.finished_at));
            }
            is_in_flight
        });
    }

    /// Returns the `most` attempts before that one, the latest first, that began at or after `since`; each with its
    /// verification if the attempt is in flight.
    pub fn attempts(&mut self, before: Uuid, since: Uuid, most: i64) -> Result<Vec<(Uuid, Option<Uuid>)>, Failure> {
        let arguments = [uuid(before), uuid(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.attempts.select_attempts, None, &arguments)?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, Some(rows::uuid(&row, 2)?).filter(|id| !id.is_nil())))).collect()
    }

    /// Returns the attempts of these verifications that are in flight.
    pub fn in_flight(&mut self, verifications: &[Uuid]) -> Result<Vec<StoredAttempt>, Failure> {
        let arguments = [uuids(verifications)];
        let table = self.client.select(&self.store.attempts.select_in_flight, None, &arguments)?;
        table.map(|row| StoredAttempt::read(&row)).collect()
    }

    /// Returns the latest attempt to send a verification's code.
    pub fn send_of(&mut self, verification: Uuid, which: WhichSend) -> Result<Option<StoredAttempt>, Failure> {
        let arguments = [uuid(verification), argument(which == WhichSend::Latest, pg_sys::BOOLOID)];
        let table = self.client.select(&self.store.attempts.select_send, Some(1), &arguments)?;
        table.map(|row| StoredAttempt::read(&row)).next().transpose()
    }

    pub fn attempt(&mut self, id: Uuid) -> Result<Option<StoredAttempt>, Failure> {
        let table = self.client.select(&self.store.attempts.select_attempt, Some(1), &[uuid(id)])?;
        table.map(|row| StoredAttempt::read(&row)).next().transpose()
    }

    /// Returns the id of the latest attempt.
    pub fn last_attempt(&mut self) -> Result<Option<Uuid>, Failure> {
        let table = self.client.select(&self.store.attempts.select_last_attempt, Some(1), &[])?;
        table.map(|row| rows::uuid(&row, 1)).next().transpose()
    }
}
