//! The record: every statement that writes verifications and attempts, in transactions of the worker's own, many
//! attempts in one. What is durable, and when:
//!
//! 1. an intent is committed and flushed before its first byte leaves;
//! 2. an outcome is committed before the caller is told; an `approved` is flushed first, others ride on the caller's
//!    own commit, and if the server dies earlier the attempt is found in flight and becomes `unknown`.

mod column;
mod row;
mod statements;
mod transaction;

use pgrx::{datum::DatumWithOid, spi::SpiClient};
use policy::{Micros, Verification};
pub use row::{Change, Completion, NewAttempt, NewVerification, Stored, StoredAttempt};
use statements::Statements;
pub use transaction::{Durability, Failure, clock, interrupt_commit};
use uuid::Uuid;
use vendor::FindBy;

use column::{booleans, byteas, integers, text, texts, times, uuid, uuids};

/// The worker's access to the tables.
pub struct Ledger {
    statements: Statements,
}

/// One transaction of it.
pub struct Writer<'a, 'conn> {
    client: &'a mut SpiClient<'conn>,
    statements: &'a Statements,
}

impl Ledger {
    /// Prepares the statements. `Failure::Gone`: the extension is not installed here.
    pub fn open() -> Result<Self, Failure> {
        transaction::run(Durability::Lazy, |client| Ok(Self { statements: Statements::prepare(client)? }))
    }

    /// Runs `body` in a transaction and commits it; on any error it is as if it never was.
    pub fn write<R>(
        &self,
        durability: Durability,
        body: impl FnOnce(&mut Writer) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        transaction::run(durability, |client| body(&mut Writer { client, statements: &self.statements }))
    }
}

impl Writer<'_, '_> {
    fn run(&mut self, statement: &statements::Statement, arguments: &[DatumWithOid]) -> Result<usize, Failure> {
        Ok(self.client.update(statement, None, arguments)?.len())
    }

    pub fn insert_verifications(&mut self, rows: &[NewVerification]) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let now = |row: &NewVerification| Some(row.created_at);
        let arguments = [
            uuids(rows.iter().map(|row| row.id)),
            texts(rows.iter().map(|row| Some(row.provider.as_str()))),
            texts(rows.iter().map(|row| Some(row.vendor.as_str()))),
            texts(rows.iter().map(|row| Some(row.state.status.as_str()))),
            texts(rows.iter().map(|row| row.recipient_masked.as_deref())),
            byteas(rows.iter().map(|row| row.recipient_key.as_deref())),
            texts(rows.iter().map(|row| row.state.reference.as_deref())),
            texts(rows.iter().map(|row| Some(row.created_by.as_str()))),
            times(rows.iter().map(now)),
            times(rows.iter().map(|row| row.state.expires_at)),
            integers(rows.iter().map(|row| row.state.send_count)),
            integers(rows.iter().map(|row| row.state.check_count)),
            integers(rows.iter().map(|row| row.state.max_checks)),
            byteas(rows.iter().map(|row| row.sealed.as_deref())),
        ];
        let statements = self.statements;
        self.run(&statements.insert_verifications, &arguments).map(drop)
    }

    pub fn insert_attempts(&mut self, rows: &[NewAttempt]) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let arguments = [
            uuids(rows.iter().map(|row| row.id)),
            uuids(rows.iter().map(|row| row.verification)),
            texts(rows.iter().map(|row| Some(row.operation.as_str()))),
            texts(rows.iter().map(|row| row.refused.map(|outcome| outcome.as_str()))),
            times(rows.iter().map(|row| Some(row.started_at))),
            times(rows.iter().map(|row| row.refused.map(|_| row.started_at))),
        ];
        let statements = self.statements;
        self.run(&statements.insert_attempts, &arguments).map(drop)
    }

    pub fn update_verifications(&mut self, rows: &[Change]) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let arguments = [
            uuids(rows.iter().map(|row| row.id)),
            texts(rows.iter().map(|row| Some(row.state.status.as_str()))),
            texts(rows.iter().map(|row| row.state.reference.as_deref())),
            times(rows.iter().map(|row| row.state.expires_at)),
            times(rows.iter().map(|row| row.state.approved_at)),
            integers(rows.iter().map(|row| row.state.send_count)),
            integers(rows.iter().map(|row| row.state.check_count)),
            byteas(rows.iter().map(|row| row.sealed.as_deref())),
            // Erased at the end, whatever else happens.
            booleans(rows.iter().map(|row| row.state.status.is_terminal())),
        ];
        let statements = self.statements;
        self.run(&statements.update_verifications, &arguments).map(drop)
    }

    pub fn complete_attempts(&mut self, rows: &[Completion]) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let arguments = [
            uuids(rows.iter().map(|row| row.id)),
            texts(rows.iter().map(|row| Some(row.outcome.as_str()))),
            column::nullable_integers(rows.iter().map(|row| row.http_status.map(i32::from))),
            texts(rows.iter().map(|row| row.vendor_code.as_deref())),
            texts(rows.iter().map(|row| row.vendor_message.as_deref())),
            texts(rows.iter().map(|row| row.response.as_deref())),
            times(rows.iter().map(|row| Some(row.finished_at))),
        ];
        let statements = self.statements;
        self.run(&statements.complete_attempts, &arguments).map(drop)
    }

    /// Notes by which references verifications are known: provider, reference, verification.
    pub fn insert_references<'r>(
        &mut self,
        rows: impl Iterator<Item = (&'r str, &'r str, Uuid)> + Clone,
    ) -> Result<(), Failure> {
        if rows.clone().next().is_none() {
            return Ok(());
        }
        let arguments = [
            texts(rows.clone().map(|(provider, ..)| Some(provider))),
            texts(rows.clone().map(|(_, reference, _)| Some(reference))),
            uuids(rows.map(|(.., id)| id)),
        ];
        let statements = self.statements;
        self.run(&statements.insert_references, &arguments).map(drop)
    }

    /// The verifications of these ids, as far as they exist.
    pub fn verifications(&mut self, ids: &[Uuid]) -> Result<Vec<Stored>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.client.update(&self.statements.select_verifications, None, &[uuids(ids.iter().copied())])?;
        table.map(|row| Stored::read(&row)).collect()
    }

    /// The latest verification of this provider that is known by a reference, or of a recipient.
    pub fn latest(
        &mut self,
        by: FindBy,
        provider: &str,
        reference: Option<&str>,
        recipient: Option<&[u8]>,
    ) -> Result<Option<Stored>, Failure> {
        let found = match (by, reference, recipient) {
            (FindBy::Reference, Some(reference), _) => {
                self.client.update(&self.statements.find_by_reference, Some(1), &[text(provider), text(reference)])?
            }
            (FindBy::Recipient, _, Some(recipient)) => self.client.update(
                &self.statements.find_by_recipient,
                Some(1),
                &[text(provider), column::bytea(recipient)],
            )?,
            _ => return Ok(None),
        };
        let Some(id) = found.map(|row| row::uuid(&row, 1)).next().transpose()? else { return Ok(None) };
        Ok(self.verifications(&[id])?.pop())
    }

    /// Attempts in flight that began at or after `since`, an id.
    pub fn in_flight(&mut self, since: Uuid) -> Result<Vec<StoredAttempt>, Failure> {
        let table = self.client.update(&self.statements.select_in_flight, None, &[uuid(since)])?;
        table.map(|row| StoredAttempt::read(&row)).collect()
    }

    pub fn attempt(&mut self, id: Uuid) -> Result<Option<StoredAttempt>, Failure> {
        let table = self.client.update(&self.statements.select_attempt, Some(1), &[uuid(id)])?;
        table.map(|row| StoredAttempt::read(&row)).next().transpose()
    }

    /// The id of the latest attempt.
    pub fn last_attempt(&mut self) -> Result<Option<Uuid>, Failure> {
        let table = self.client.update(&self.statements.select_last_attempt, Some(1), &[])?;
        table.map(|row| row::uuid(&row, 1)).next().transpose()
    }

    /// Open verifications with something sealed, that began at or after `since`: id and when it may be erased.
    pub fn sealed(&mut self, since: Uuid) -> Result<Vec<(Uuid, Micros)>, Failure> {
        let table = self.client.update(&self.statements.select_sealed, None, &[uuid(since)])?;
        table.map(|row| Ok((row::uuid(&row, 1)?, row::micros(&row, 2)?.unwrap_or(0)))).collect()
    }

    /// Ends those that are past their time and still open, and erases what was sealed for them. Returns the others of
    /// `ids` that are still open, with their time.
    pub fn expire(&mut self, ids: &[Uuid], now: Micros) -> Result<Vec<(Uuid, Micros)>, Failure> {
        let arguments = [uuids(ids.iter().copied()), column::time(now)];
        let statements = self.statements;
        self.run(&statements.expire, &arguments)?;
        let table = self.client.update(&statements.select_sealed_of, None, &[uuids(ids.iter().copied())])?;
        table.map(|row| Ok((row::uuid(&row, 1)?, row::micros(&row, 2)?.unwrap_or(0)))).collect()
    }
}

/// When what is sealed for a verification is of no more use.
pub fn erase_at(created_at: Micros, state: &Verification) -> Micros {
    state.expires_at.unwrap_or(created_at.saturating_add(NO_EXPIRY))
}

/// Where neither vendor nor provider says how long a code lives, what is sealed is kept for a day.
pub const NO_EXPIRY: Micros = 86_400_000_000;
