//! The record: every statement that writes verifications and attempts, in transactions of the worker's own, many
//! attempts in one. What is durable, and when:
//!
//! 1. an intent is committed and flushed before its first byte leaves;
//! 2. an outcome is committed before the caller is told; an `approved` is flushed first, others ride on the caller's
//!    own commit, and if the server dies earlier the attempt is found in flight and becomes `unknown`.

pub mod columns;
pub mod identity;
pub mod recipient_lookup;
pub mod replica;
pub mod row_array;
pub mod rows;
pub mod scan;
pub mod session_reads;
pub mod session_writes;
pub mod statements;
pub mod transaction;

use std::collections::HashSet;

use dialect::{FindBy, Outcome};
use pgrx::{pg_sys, spi::SpiClient};
use policy::{BlockReason, Micros, Verification};
use uuid::Uuid;

use crate::{
    gucs,
    pg::{
        uuid_time::first_id_of,
        values::{self, argument, number, numbers, text, uuid, uuids},
    },
    store::{
        columns::{attempt, identity as subject_columns, reference, verification},
        identity::{Identity, Kind, Subject},
        row_array::{Columns, RowType},
        rows::{
            AttemptEnd, NewAttempt, NewReference, NewVerification, OpenVerification, QueuedPayload, QueuedVerification,
            RecipientEvent, SealedRow, StoredAttempt, StoredVerification, VerificationUpdate, WhichSend,
        },
        statements::{Statement, Statements},
        transaction::{Durability, Failure},
    },
};

/// Which transactions can be seen.
pub struct Snapshot {
    /// None from this number on.
    pub next: u64,
    /// None of these.
    pub running: Vec<u64>,
}

/// The worker's access to the tables.
pub struct Store {
    statements: Statements,
    verification: RowType,
    attempt: RowType,
    reference: RowType,
    identity: RowType,
}

/// One transaction of it.
pub struct StoreTransaction<'a, 'conn> {
    client: &'a mut SpiClient<'conn>,
    ledger: &'a Store,
}

impl Store {
    /// Prepares the statements. `Failure::NotInstalled`: the extension is not installed here. None: its
    /// tables are of another version than this library.
    pub fn open() -> Result<Option<Self>, Failure> {
        transaction::run(Durability::Deferred, |client| {
            let version = client.select(
                "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'otp_gateway'",
                Some(1),
                &[],
            )?;
            let version = version.map(|row| row.get::<String>(1)).next().transpose()?.flatten();
            if version.as_deref() != Some(env!("CARGO_PKG_VERSION")) {
                return Ok(None);
            }
            Ok(Some(Self {
                statements: Statements::prepare(client)?,
                verification: RowType::of(c"verification_record"),
                attempt: RowType::of(c"attempt_record"),
                reference: RowType::of(c"reference"),
                identity: RowType::of(c"identity"),
            }))
        })
    }

    /// Runs `body` in a transaction and commits it; on any error it is as if it never was.
    pub fn write<R>(
        &self,
        durability: Durability,
        body: impl FnOnce(&mut StoreTransaction) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        transaction::run(durability, |client| body(&mut StoreTransaction { client, ledger: self }))
    }
}

impl StoreTransaction<'_, '_> {
    fn run<T>(
        &mut self,
        statement: &Statement,
        of: &RowType,
        rows: &[T],
        fill: impl Fn(&T, &mut Columns),
    ) -> Result<(), Failure> {
        if !rows.is_empty() {
            self.client.update(statement, None, &[of.array(rows, fill)])?;
        }
        Ok(())
    }

    pub fn insert_verifications(&mut self, rows: &[NewVerification]) -> Result<(), Failure> {
        self.run(&self.ledger.statements.insert_verifications, &self.ledger.verification, rows, |row, columns| {
            columns.uuid(verification::ID, row.id);
            columns.text(verification::PROVIDER, Some(&row.provider));
            columns.text(verification::VENDOR, Some(&row.vendor));
            columns.text(verification::RECIPIENT_MASKED, row.recipient_masked.as_deref());
            columns.bytea(verification::RECIPIENT_KEY, row.recipient_key.as_deref());
            columns.name(verification::CREATED_BY, &row.created_by);
            columns.time(verification::CREATED_AT, Some(row.created_at));
            columns.bytea(verification::SEALED, row.sealed.as_deref());
            columns.bytea(
                verification::IDEMPOTENCY_KEY,
                row.idempotency.as_ref().and_then(|one| one.keys.first()).map(Vec::as_slice),
            );
            columns.bytea(
                verification::PAYLOAD_HASH,
                row.idempotency.as_ref().and_then(|one| one.payloads.first()).map(Vec::as_slice),
            );
            columns.boolean(verification::IS_TEST, row.is_test);
            columns.text(verification::ROUTE, row.route.as_ref().map(|(name, _)| name.as_str()));
            columns.bigint(verification::PROVIDER_ID, Some(row.provider_id));
            columns.bigint(verification::ROLE_ID, Some(row.role_id));
            columns.bigint(verification::ROUTE_ID, row.route.as_ref().map(|(_, id)| *id));
            state(columns, &row.state);
        })?;
        self.announce(|| rows.iter().map(|row| row.id).collect())
    }

    /// `sealed` replaces what is there; the end of a verification erases it, whatever else happens.
    pub fn update_verifications(&mut self, rows: &[VerificationUpdate]) -> Result<(), Failure> {
        self.run(&self.ledger.statements.update_verifications, &self.ledger.verification, rows, |row, columns| {
            columns.uuid(verification::ID, row.id);
            columns.text(verification::PROVIDER, row.moved_to.as_ref().map(|to| to.provider.as_str()));
            columns.bigint(verification::PROVIDER_ID, row.moved_to.as_ref().map(|to| to.provider_id));
            columns.text(verification::VENDOR, row.moved_to.as_ref().map(|to| to.vendor.as_str()));
            columns.bytea(verification::SEALED, row.sealed.as_deref());
            state(columns, &row.state);
        })?;
        self.announce(|| rows.iter().filter(|row| row.before != row.state.status).map(|row| row.id).collect())
    }

    /// With otp_gateway.notify: NOTIFY of the status of these, at commit.
    pub fn announce(&mut self, changed: impl FnOnce() -> Vec<Uuid>) -> Result<(), Failure> {
        if gucs::notify() {
            self.client.update(&self.ledger.statements.announce, None, &[uuids(&changed())])?;
        }
        Ok(())
    }

    pub fn insert_attempts(&mut self, rows: &[NewAttempt]) -> Result<(), Failure> {
        self.run(&self.ledger.statements.insert_attempts, &self.ledger.attempt, rows, |row, columns| {
            columns.uuid(attempt::ID, row.id);
            columns.uuid(attempt::VERIFICATION_ID, row.verification);
            columns.text(attempt::OPERATION, Some(row.operation.as_str()));
            columns.text(attempt::OUTCOME, row.refused.map(Outcome::as_str));
            columns.text(attempt::VENDOR_MESSAGE, row.why.as_deref());
            columns.text(attempt::PROVIDER, Some(&row.provider));
            columns.bigint(attempt::PROVIDER_ID, Some(row.provider_id));
            columns.bigint(attempt::ROLE_ID, Some(row.role_id));
            columns.bytea(attempt::ACCOUNT, Some(row.account.as_slice()).filter(|account| !account.is_empty()));
            columns.bytea(attempt::RECIPIENT_KEY, row.recipient_key.as_deref());
            columns.text(attempt::REASON, row.reason.map(BlockReason::as_str));
            columns.time(attempt::RETRY_AT, row.retry_at);
            columns.time(attempt::STARTED_AT, Some(row.started_at));
            columns.time(attempt::FINISHED_AT, row.refused.map(|_| row.started_at));
        })
    }

    pub fn complete_attempts(&mut self, rows: &[AttemptEnd]) -> Result<(), Failure> {
        self.run(&self.ledger.statements.complete_attempts, &self.ledger.attempt, rows, |row, columns| {
            columns.uuid(attempt::ID, row.id);
            columns.text(attempt::OUTCOME, Some(row.outcome.as_str()));
            columns.integer(attempt::HTTP_STATUS, row.http_status.map(i32::from));
            columns.text(attempt::VENDOR_CODE, row.vendor_code.as_deref());
            columns.text(attempt::VENDOR_MESSAGE, row.vendor_message.as_deref());
            columns.json(attempt::RESPONSE, row.response.as_deref());
            columns.time(attempt::RETRY_AT, row.retry_at);
            columns.time(attempt::FINISHED_AT, Some(row.finished_at));
        })
    }

    /// Notes by which references verifications are known.
    pub fn insert_references(&mut self, rows: &[NewReference]) -> Result<(), Failure> {
        self.run(&self.ledger.statements.insert_references, &self.ledger.reference, rows, |row, columns| {
            columns.text(reference::PROVIDER, Some(row.provider));
            columns.text(reference::REFERENCE, Some(row.reference));
            columns.uuid(reference::VERIFICATION_ID, row.verification);
            columns.bigint(reference::PROVIDER_ID, Some(row.provider_id));
        })
    }

    /// The verifications of these ids, as far as they exist.
    pub fn verifications(&mut self, ids: &[Uuid]) -> Result<Vec<StoredVerification>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.client.select(&self.ledger.statements.select_verifications, None, &[uuids(ids)])?;
        table.map(|row| StoredVerification::read(&row)).collect()
    }

    /// The latest verification of this provider, or account, that is known by a reference, which who has it was given,
    /// one that this role began before others'; or of a recipient, whom anybody may know, of those that this role
    /// began. Guesses are counted by the recipient, whoever makes them.
    pub fn latest(
        &mut self,
        by: FindBy,
        provider: Identity,
        account_keys: &[Vec<u8>],
        reference: Option<&str>,
        recipient_keys: &[Vec<u8>],
        role: Identity,
    ) -> Result<Option<StoredVerification>, Failure> {
        let found = match (by, reference) {
            (FindBy::Reference, Some(reference)) => self.client.select(
                &self.ledger.statements.find_by_reference,
                Some(1),
                &[number(provider), text(reference), values::byteas(account_keys), number(role)],
            )?,
            (FindBy::Recipient, _) if !recipient_keys.is_empty() => self.client.select(
                &self.ledger.statements.find_by_recipient,
                Some(1),
                &[number(provider), values::byteas(recipient_keys), number(role)],
            )?,
            _ => return Ok(None),
        };
        let Some(id) = found.map(|row| rows::uuid(&row, 1)).next().transpose()? else { return Ok(None) };
        Ok(self.verifications(&[id])?.pop())
    }

    /// Whether the key of that role, by any of its names, stands for a verification that began after `since`.
    pub fn has_key(&mut self, keys: &[Vec<u8>], since: Micros, role: Identity) -> Result<bool, Failure> {
        let arguments = [values::byteas(keys), values::time(since), number(role)];
        Ok(!self.client.select(&self.ledger.statements.find_by_idempotency_key, Some(1), &arguments)?.is_empty())
    }

    /// The `most` attempts before that one, the latest first, that began at or after `since`; with the verification of
    /// each that is in flight.
    pub fn attempts(&mut self, before: Uuid, since: Uuid, most: i64) -> Result<Vec<(Uuid, Option<Uuid>)>, Failure> {
        let arguments = [uuid(before), uuid(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.ledger.statements.select_attempts, None, &arguments)?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, Some(rows::uuid(&row, 2)?).filter(|id| !id.is_nil())))).collect()
    }

    /// Attempts of these verifications that are in flight.
    pub fn in_flight(&mut self, verifications: &[Uuid]) -> Result<Vec<StoredAttempt>, Failure> {
        let arguments = [uuids(verifications)];
        let table = self.client.select(&self.ledger.statements.select_in_flight, None, &arguments)?;
        table.map(|row| StoredAttempt::read(&row)).collect()
    }

    /// When sends to recipients through providers began, with the number of the question, from 1.
    pub fn sends(&mut self, questions: &[SendQuery]) -> Result<Vec<(usize, Micros)>, Failure> {
        let each = |value: fn(&SendQuery) -> i64| questions.iter().map(value).collect::<Vec<_>>();
        let keys: Vec<&[u8]> = questions.iter().map(|question| question.recipient_key).collect();
        let since: Vec<_> = questions.iter().map(|question| values::Time(question.since)).collect();
        let arguments = [
            argument(each(|question| question.provider), pg_sys::INT8ARRAYOID),
            argument(keys, pg_sys::BYTEAARRAYOID),
            argument(since, pg_sys::TIMESTAMPTZARRAYOID),
            argument(each(|question| question.most), pg_sys::INT8ARRAYOID),
        ];
        let table = self.client.select(&self.ledger.statements.select_sends, None, &arguments)?;
        table.map(|row| Ok((rows::question(&row)?, rows::micros(&row, 2)?.unwrap_or(0)))).collect()
    }

    /// What counts when codes are checked.
    pub fn checks(&mut self, questions: &[CheckQuery]) -> Result<Vec<RecipientEvent>, Failure> {
        let each = |value: fn(&CheckQuery) -> i64| questions.iter().map(value).collect::<Vec<_>>();
        let accounts: Vec<&[u8]> = questions.iter().map(|question| question.account).collect();
        let keys: Vec<&[u8]> = questions.iter().map(|question| question.recipient_key).collect();
        let since: Vec<_> = questions.iter().map(|question| values::Time(question.since)).collect();
        let sent_since: Vec<_> = questions.iter().map(|question| values::Time(question.sent_since)).collect();
        let arguments = [
            argument(each(|question| question.provider), pg_sys::INT8ARRAYOID),
            argument(accounts, pg_sys::BYTEAARRAYOID),
            argument(keys, pg_sys::BYTEAARRAYOID),
            argument(since, pg_sys::TIMESTAMPTZARRAYOID),
            argument(sent_since, pg_sys::TIMESTAMPTZARRAYOID),
            argument(each(|question| question.most), pg_sys::INT8ARRAYOID),
        ];
        let table = self.client.select(&self.ledger.statements.select_checks, None, &arguments)?;
        table.map(|row| RecipientEvent::read(&row)).collect()
    }

    /// The verifications of a recipient at a provider or route.
    pub fn of_recipient(&mut self, provider: &[Identity], recipient_keys: &[Vec<u8>]) -> Result<Vec<Uuid>, Failure> {
        let arguments = [numbers(provider), values::byteas(recipient_keys)];
        let table = self.client.select(&self.ledger.statements.select_of_recipient, None, &arguments)?;
        table.map(|row| rows::uuid(&row, 1)).collect()
    }

    /// Removes from these whatever leads to a person; an open one is canceled with it. What went to providers other
    /// than these goes on counting there.
    pub fn forget(&mut self, ids: &[Uuid], owned: Option<&[Identity]>) -> Result<(), Failure> {
        let open = self.verifications(ids)?;
        let open = open.iter().filter(|stored| !stored.state.status.is_terminal()).map(|stored| stored.id);
        let open: Vec<Uuid> = open.collect();
        let statements = &self.ledger.statements;
        let owned = owned.map_or_else(|| values::null(pg_sys::INT8ARRAYOID), numbers);
        self.client.update(&statements.forget_attempts, None, &[uuids(ids), owned])?;
        for statement in [&statements.forget_verifications, &statements.delete_references] {
            self.client.update(statement, None, &[uuids(ids)])?;
        }
        self.announce(|| open)
    }

    /// Removes the keys of a recipient from what is on record of it at these providers.
    pub fn forget_keys(&mut self, recipient_keys: &[Vec<u8>], providers: &[Identity]) -> Result<(), Failure> {
        let arguments = [values::byteas(recipient_keys), numbers(providers)];
        self.client.update(&self.ledger.statements.forget_keys, None, &arguments)?;
        Ok(())
    }

    /// The next `most` verifications after `from` of those that began before a time, and whether each may be deleted:
    /// it is of these providers, not on its way, and nothing has happened with it since.
    pub fn old(
        &mut self,
        from: Uuid,
        before: Micros,
        providers: Option<&[Identity]>,
        most: i64,
    ) -> Result<Vec<(Uuid, bool)>, Failure> {
        let providers = providers.map_or_else(|| values::null(pg_sys::INT8ARRAYOID), numbers);
        let arguments =
            [uuid(from), uuid(first_id_of(before)), values::time(before), providers, argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.ledger.statements.select_old, None, &arguments)?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, rows::flag(&row, 2)?))).collect()
    }

    /// Deletes verifications with all that is on record of them.
    pub fn delete(&mut self, ids: &[Uuid]) -> Result<(), Failure> {
        let statements = &self.ledger.statements;
        for statement in [&statements.delete_attempts, &statements.delete_references, &statements.delete_verifications]
        {
            self.client.update(statement, None, &[uuids(ids)])?;
        }
        Ok(())
    }

    /// When the oldest verification began.
    pub fn oldest(&mut self) -> Result<Option<Micros>, Failure> {
        let table = self.client.select(&self.ledger.statements.select_oldest, Some(1), &[])?;
        Ok(table.map(|row| rows::micros(&row, 1)).next().transpose()?.flatten())
    }

    /// The next `most` verifications after `from`, with what is sealed of each.
    pub fn sealed_rows(&mut self, from: Uuid, most: i64) -> Result<Vec<SealedRow>, Failure> {
        let arguments = [uuid(from), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.ledger.statements.select_seals, None, &arguments)?;
        table.map(|row| SealedRow::read(&row)).collect()
    }

    /// Puts other seals in the place of those that are there.
    pub fn reseal(&mut self, seals: &[(Uuid, Vec<u8>)]) -> Result<(), Failure> {
        let ids: Vec<Uuid> = seals.iter().map(|(id, _)| *id).collect();
        let sealed: Vec<Vec<u8>> = seals.iter().map(|(_, sealed)| sealed.clone()).collect();
        self.client.update(&self.ledger.statements.reseal, None, &[uuids(&ids), values::byteas(&sealed)])?;
        Ok(())
    }

    /// When the newest sends through a provider began, and which they are, those after `since`, `most` of them.
    pub fn provider_sends(
        &mut self,
        provider: Identity,
        since: Micros,
        most: i64,
    ) -> Result<Vec<(Micros, Uuid)>, Failure> {
        let arguments = [number(provider), values::time(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.ledger.statements.select_provider_sends, None, &arguments)?;
        table.map(|row| Ok((rows::micros(&row, 1)?.unwrap_or(0), rows::uuid(&row, 2)?))).collect()
    }

    /// When an attempt began, as the record has it.
    pub fn started_at(&mut self, attempt: Uuid) -> Result<Option<Micros>, Failure> {
        let table = self.client.select(&self.ledger.statements.select_started_at, Some(1), &[uuid(attempt)])?;
        Ok(table.map(|row| rows::micros(&row, 1)).next().transpose()?.flatten())
    }

    /// Makes the state of a breaker visible: open until then, or closed.
    pub fn set_breaker(&mut self, server: u32, mapping: u32, open_until: Option<Micros>) -> Result<(), Failure> {
        let oid = |oid: u32| argument(pg_sys::Oid::from(oid), pg_sys::OIDOID);
        let statements = &self.ledger.statements;
        match open_until {
            Some(until) => {
                let arguments = [oid(server), oid(mapping), values::time(until)];
                self.client.update(&statements.open_breaker, None, &arguments)?
            }
            None => self.client.update(&statements.close_breaker, None, &[oid(server), oid(mapping)])?,
        };
        Ok(())
    }

    /// They are kept in memory: a new worker's are closed.
    pub fn close_all_breakers(&mut self) -> Result<(), Failure> {
        self.client.update(&self.ledger.statements.close_all_breakers, None, &[])?;
        Ok(())
    }

    /// What can be seen now.
    pub fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        let table = self.client.select(&self.ledger.statements.select_snapshot, Some(1), &[])?;
        let read = |row: pgrx::spi::SpiHeapTupleData| {
            let running: Vec<String> = row.get(2)?.unwrap_or_default();
            let running = running.iter().filter_map(|number| number.parse().ok()).collect();
            Ok::<_, Failure>(Snapshot { next: rows::transaction(&row, 1)?, running })
        };
        table.map(read).next().unwrap_or_else(|| Err(Failure::Error("no snapshot".to_owned())))
    }

    /// Those of these transactions that enqueued something.
    pub fn enqueuers(&mut self, transactions: &[u64]) -> Result<Vec<u64>, Failure> {
        if transactions.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<String> = transactions.iter().map(u64::to_string).collect();
        let arguments = [argument(numbers, pg_sys::TEXTARRAYOID)];
        let table = self.client.select(&self.ledger.statements.select_enqueuers, None, &arguments)?;
        table.map(|row| rows::transaction(&row, 1)).collect()
    }

    /// The next `most` queued ones after the one of that transaction and id, in this order, of transactions before
    /// `end`.
    pub fn queued(&mut self, after: (u64, Uuid), end: u64, most: i64) -> Result<Vec<QueuedVerification>, Failure> {
        let arguments = [values::transaction(after.0), uuid(after.1), values::transaction(end)];
        let table = self.client.select(&self.ledger.statements.select_queued, Some(most), &arguments)?;
        table.map(|row| QueuedVerification::read(&row)).collect()
    }

    /// The `most` before that one, the latest first, of all that was ever queued.
    pub fn once_queued(&mut self, before: (u64, Uuid), most: i64) -> Result<Vec<QueuedVerification>, Failure> {
        let arguments = [values::transaction(before.0), uuid(before.1), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.ledger.statements.select_once_queued, None, &arguments)?;
        table.map(|row| QueuedVerification::read(&row)).collect()
    }

    /// Those of these that are still queued, but for what somebody else has locked just now.
    pub fn queued_payloads(&mut self, ids: &[Uuid]) -> Result<Vec<QueuedPayload>, Failure> {
        let table = self.client.select(&self.ledger.statements.select_letters, None, &[uuids(ids)])?;
        table.map(|row| QueuedPayload::read(&row)).collect()
    }

    /// Those of these verifications and attempts that somebody else has locked just now. `Failure::Busy`: a whole
    /// table.
    pub fn locked(&mut self, verifications: &[Uuid], attempts: &[Uuid]) -> Result<HashSet<Uuid>, Failure> {
        let statements = &self.ledger.statements;
        self.client.update(&statements.lock_tables, None, &[])?;
        let mut locked = HashSet::new();
        for (statement, ids) in
            [(&statements.select_locked_verifications, verifications), (&statements.select_locked_attempts, attempts)]
        {
            if !ids.is_empty() {
                for row in self.client.update(statement, None, &[uuids(ids)])? {
                    locked.insert(rows::uuid(&row, 1)?);
                }
            }
        }
        Ok(locked)
    }

    /// The latest attempt to send a verification's code.
    pub fn send_of(&mut self, verification: Uuid, which: WhichSend) -> Result<Option<StoredAttempt>, Failure> {
        let arguments = [uuid(verification), argument(which == WhichSend::Latest, pg_sys::BOOLOID)];
        let table = self.client.select(&self.ledger.statements.select_send, Some(1), &arguments)?;
        table.map(|row| StoredAttempt::read(&row)).next().transpose()
    }

    pub fn attempt(&mut self, id: Uuid) -> Result<Option<StoredAttempt>, Failure> {
        let table = self.client.select(&self.ledger.statements.select_attempt, Some(1), &[uuid(id)])?;
        table.map(|row| StoredAttempt::read(&row)).next().transpose()
    }

    /// The id of the latest attempt.
    pub fn last_attempt(&mut self) -> Result<Option<Uuid>, Failure> {
        let table = self.client.select(&self.ledger.statements.select_last_attempt, Some(1), &[])?;
        table.map(|row| rows::uuid(&row, 1)).next().transpose()
    }

    /// The `most` verifications before that one, the latest first, that began at or after `since`: what is sealed of
    /// them.
    pub fn sealed(&mut self, before: Uuid, since: Uuid, most: i64) -> Result<Vec<OpenVerification>, Failure> {
        let arguments = [uuid(before), uuid(since), argument(most, pg_sys::INT8OID)];
        let table = self.client.select(&self.ledger.statements.select_sealed, None, &arguments)?;
        table.map(|row| OpenVerification::read(&row)).collect()
    }

    /// Ends those that are past their time and still open, and erases what was sealed for them. Returns the others of
    /// `ids` that are still open, with their time.
    pub fn expire(&mut self, ids: &[Uuid], now: Micros) -> Result<Vec<(Uuid, Micros)>, Failure> {
        let arguments = [uuids(ids), values::time(now)];
        let expired = self.client.update(&self.ledger.statements.expire, None, &arguments)?;
        let expired = expired.map(|row| rows::uuid(&row, 1)).collect::<Result<Vec<_>, _>>()?;
        self.announce(|| expired)?;
        let table = self.client.select(&self.ledger.statements.select_sealed_of, None, &[uuids(ids)])?;
        table.map(|row| Ok((rows::uuid(&row, 1)?, rows::micros(&row, 2)?.unwrap_or(0)))).collect()
    }
}

/// The numbers of servers and roles.
impl StoreTransaction<'_, '_> {
    pub fn insert_identities(&mut self, rows: &[(Identity, Subject)]) -> Result<(), Failure> {
        self.run(&self.ledger.statements.insert_identities, &self.ledger.identity, rows, |(id, subject), columns| {
            columns.bigint(subject_columns::ID, Some(*id));
            columns.text(subject_columns::KIND, Some(subject.kind.as_str()));
            columns.oid(subject_columns::OBJECT, subject.object);
            columns.bigint(subject_columns::HOME, Some(crate::store::identity::home()));
            columns.text(subject_columns::NAME, Some(&subject.name));
            columns.text(subject_columns::VENDOR, subject.vendor.as_deref());
        })
    }

    /// Triggers, foreign keys and rights on the tables that are not the extension's.
    pub fn foreign_triggers_and_grants(&mut self) -> Result<Vec<String>, Failure> {
        let table = self.client.update(&self.ledger.statements.select_strangers, None, &[])?;
        table.map(|row| Ok(row.get::<String>(1)?.unwrap_or_default())).collect()
    }

    /// All that have an object here, in the order of their numbers.
    pub fn identities(&mut self) -> Result<Vec<(Identity, Kind, u32)>, Failure> {
        let arguments = [number(crate::store::identity::home())];
        let table = self.client.update(&self.ledger.statements.select_identities, None, &arguments)?;
        let rows = table.map(|row| {
            let kind = row.get::<String>(2)?.and_then(|label| Kind::from_label(&label));
            let object = row.get::<pg_sys::Oid>(3)?.map(|object| object.to_u32());
            Ok::<_, Failure>((row.get::<Identity>(1)?, kind, object))
        });
        rows.map(|row| row.map(|(id, kind, object)| Some((id?, kind?, object?))))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Those of these whose server or role is not there: not yet, or no more.
    pub fn missing_identities(&mut self, ids: &[Identity]) -> Result<Vec<Identity>, Failure> {
        let table = self.client.update(&self.ledger.statements.select_missing_identities, None, &[numbers(ids)])?;
        table.map(|row| Ok(row.get::<Identity>(1)?.unwrap_or(0))).collect()
    }

    /// Brings what is known of servers and roles up to date: found by name where another cluster wrote it, called what
    /// they are called now, and nobody's where they are no more; but for `new` ones, which an open transaction may be
    /// making.
    pub fn update_identities(&mut self, new: &[Identity]) -> Result<(), Failure> {
        let statements = &self.ledger.statements;
        for find in [&statements.find_servers, &statements.find_roles] {
            self.client.update(find, None, &[number(crate::store::identity::home())])?;
        }
        for name in [&statements.name_servers, &statements.name_roles] {
            self.client.update(name, None, &[])?;
        }
        self.client.update(&statements.drop_identities, None, &[numbers(new)])?;
        Ok(())
    }
}

/// What is asked of the record about sends to one recipient through one provider.
pub struct SendQuery<'a> {
    pub provider: Identity,
    pub recipient_key: &'a [u8],
    pub since: Micros,
    pub most: i64,
}

/// What is asked of the record about checks of one recipient's codes.
pub struct CheckQuery<'a> {
    pub provider: Identity,
    pub account: &'a [u8],
    pub recipient_key: &'a [u8],
    pub since: Micros,
    /// Who has sent something since then is no stranger.
    pub sent_since: Micros,
    pub most: i64,
}

/// The columns that a verification's state fills.
fn state(columns: &mut Columns, state: &Verification) {
    columns.text(verification::STATUS, Some(state.status.as_str()));
    columns.text(verification::REFERENCE, state.reference.as_deref());
    columns.time(verification::EXPIRES_AT, state.expires_at);
    columns.time(verification::APPROVED_AT, state.approved_at);
    columns.count(verification::SEND_COUNT, state.send_count);
    columns.count(verification::CHECK_COUNT, state.check_count);
    columns.count(verification::MAX_CHECKS, state.max_checks);
}

/// When what is sealed for a verification is of no more use.
pub fn erase_at(created_at: Micros, state: &Verification) -> Micros {
    state.expires_at.unwrap_or(created_at.saturating_add(NO_EXPIRY))
}

/// Where neither vendor nor provider says how long a code lives, what is sealed is kept for a day.
pub const NO_EXPIRY: Micros = 86_400_000_000;
