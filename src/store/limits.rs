//! What the limits look back on: sends and checks of one recipient, sends through one provider.

use std::ffi::CStr;

use dialect::{Operation, Outcome};
use pgrx::pg_sys;
use policy::Timestamp;
use uuid::Uuid;

use crate::{
    pg::{
        relation::of_extension,
        row::Row,
        scan::{Key, scan_latest},
        values::{self, argument, number, uuid},
    },
    store::{StoreTransaction, columns::attempt, identity::Identity, prepared::statements, rows, transaction::Failure},
};

statements! {
    // What is dated ahead was written while the clock was wrong: it would block its recipient until then.
    select_provider_sends(pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID)
      "SELECT started_at, id FROM otp_gateway_internal.attempt_record
       WHERE provider_id OPERATOR(pg_catalog.=) $1 AND started_at OPERATOR(pg_catalog.>) $2 AND reason IS NULL
         AND started_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) interval '1 minute')
         AND recipient_key IS NOT NULL AND operation IN ('send', 'resend')
         AND (outcome IS NULL OR outcome IN ({sent}))
       ORDER BY started_at DESC LIMIT $3"

    select_started_at(pg_sys::UUIDOID)
      "SELECT started_at FROM otp_gateway_internal.attempt_record WHERE id OPERATOR(pg_catalog.=) $1"
}

/// An attempt that no rule refused, or would have: it may count for its recipient.
pub struct RecipientEvent {
    pub attempt: Uuid,
    pub operation: Operation,
    pub outcome: Option<Outcome>,
    pub started_at: Timestamp,
    pub role: Identity,
    pub provider: Identity,
    /// The key of the account at the vendor.
    pub account: Option<Vec<u8>>,
}

impl RecipientEvent {
    fn read(row: Row) -> Option<Self> {
        let operation = row.get::<String>(attempt::OPERATION)?;
        Some(Self {
            attempt: row.uuid(attempt::ID)?,
            operation: Operation::ALL.into_iter().find(|one| one.as_str() == operation)?,
            outcome: row.get::<String>(attempt::OUTCOME).and_then(|label| Outcome::from_label(&label)),
            started_at: row.time(attempt::STARTED_AT)?,
            role: row.get(attempt::ROLE_ID).unwrap_or(0),
            provider: row.get(attempt::PROVIDER_ID).unwrap_or(0),
            account: row.get(attempt::ACCOUNT),
        })
    }
}

impl StoreTransaction<'_, '_> {
    /// What is on record of a recipient since then, the newest first, as long as `wants_more`. Not by SQL: it is asked
    /// for each call, and mostly there is nothing.
    pub fn events_of(
        &mut self,
        recipient_key: &[u8],
        since: Timestamp,
        mut wants_more: impl FnMut(RecipientEvent) -> bool,
    ) -> Result<(), Failure> {
        let relation = |name: &CStr| {
            of_extension(name).ok_or_else(|| Failure::Error(format!("there is no {}", name.to_string_lossy())))
        };
        let (table, index) = (relation(c"attempt_record")?, relation(c"attempt_recipient_idx")?);
        let keys = [Key::Bytea(attempt::RECIPIENT_KEY, recipient_key), Key::After(attempt::STARTED_AT, since)];
        scan_latest(table, index, keys, |row| RecipientEvent::read(row).is_none_or(&mut wants_more));
        Ok(())
    }

    /// When the newest sends through a provider began, and which they are, those after `since`, `most` of them.
    pub fn provider_sends(
        &mut self,
        provider: Identity,
        since: Timestamp,
        most: i64,
    ) -> Result<Vec<(Timestamp, Uuid)>, Failure> {
        let arguments = [number(provider), values::time(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.store.limits.select_provider_sends, None, &arguments)?;
        table.map(|row| Ok((rows::timestamp(&row, 1)?.unwrap_or_default(), rows::uuid(&row, 2)?))).collect()
    }

    /// When an attempt began, as the record has it.
    pub fn started_at(&mut self, id: Uuid) -> Result<Option<Timestamp>, Failure> {
        let table = self.client.select(&self.store.limits.select_started_at, Some(1), &[uuid(id)])?;
        Ok(table.map(|row| rows::timestamp(&row, 1)).next().transpose()?.flatten())
    }
}
