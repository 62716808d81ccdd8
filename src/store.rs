//! The record: the statements that write verifications and attempts, in transactions of the worker's own, many attempts
//! in one. What is durable, and when:
//!
//! 1. an intent is committed and flushed before its first byte leaves;
//! 2. an outcome is committed before the caller is told; an `approved` is flushed first, others ride on the caller's
//!    own commit, and if the server dies earlier the attempt is found in flight and becomes `unknown`.

pub mod announcements;
pub mod attempts;
pub mod breakers;
pub mod columns;
pub mod counted;
pub mod glance;
pub mod hours;
pub mod identities;
pub mod identity;
pub mod limits;
pub mod prepared;
pub mod queue;
pub mod queue_home;
pub mod ranges;
pub mod recipient_lookup;
pub mod record_locks;
pub mod replica;
pub mod retention;
pub mod rows;
pub mod scan;
pub mod sealing_key;
pub mod session_reads;
pub mod session_writes;
pub mod transaction;
pub mod verifications;

use std::{
    cell::{Cell, RefCell},
    ffi::CStr,
};

use pgrx::spi::SpiClient;
use policy::Timestamp;

use crate::{
    pg::{clock::clock, relation::of_extension, row_array::RowType},
    store::transaction::{Durability, Failure},
};

/// The version of the schema that this library works with: the version of the newest SQL script, and `default_version`
/// of the control file. A release without a script of its own keeps the previous version.
pub const SCHEMA_VERSION: &str = "0.7.0";

/// What counts attempts.
type Count = Box<dyn Fn(&[counted::EndedAttempt])>;

/// The worker's access to the tables.
pub struct Store {
    verifications: verifications::Statements,
    announcements: announcements::Statements,
    attempts: attempts::Statements,
    queue: queue::Statements,
    limits: limits::Statements,
    retention: retention::Statements,
    breakers: breakers::Statements,
    identities: identities::Statements,
    sealing_key: sealing_key::Statements,
    queue_home: queue_home::Statements,
    ranges: ranges::Statements,
    verification: RowType,
    attempt: RowType,
    reference: RowType,
    identity: RowType,
    hourly: RowType,
    /// Told of each attempt whose end is on record, once.
    count: Count,
    hour_statements: hours::Statements,
    hours: RefCell<hours::KnownHours>,
    committed_at: Cell<Timestamp>,
}

/// One transaction of the worker, with its statements.
pub struct StoreTransaction<'a, 'conn> {
    client: &'a mut SpiClient<'conn>,
    store: &'a Store,
    /// Attempts that end with it.
    ended: Vec<counted::EndedAttempt>,
}

impl Store {
    /// Prepares the statements. Fails with `Failure::NotInstalled` if the extension is not installed here. Returns None
    /// if its tables are of another version than this library's.
    pub fn open(count: impl Fn(&[counted::EndedAttempt]) + 'static) -> Result<Option<Self>, Failure> {
        transaction::run(Durability::Deferred, |client| {
            let version = client.select(
                "SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'otp_gateway'",
                Some(1),
                &[],
            )?;
            let version = version.map(|row| row.get::<String>(1)).next().transpose()?.flatten();
            if version.as_deref() != Some(SCHEMA_VERSION) {
                return Ok(None);
            }
            Ok(Some(Self {
                verifications: verifications::Statements::prepare(client)?,
                announcements: announcements::Statements::prepare(client)?,
                attempts: attempts::Statements::prepare(client)?,
                queue: queue::Statements::prepare(client)?,
                limits: limits::Statements::prepare(client)?,
                retention: retention::Statements::prepare(client)?,
                breakers: breakers::Statements::prepare(client)?,
                identities: identities::Statements::prepare(client)?,
                sealing_key: sealing_key::Statements::prepare(client)?,
                queue_home: queue_home::Statements::prepare(client)?,
                ranges: ranges::Statements::prepare(client)?,
                verification: row_type(c"verification_record")?,
                attempt: row_type(c"attempt_record")?,
                reference: row_type(c"reference")?,
                identity: row_type(c"identity")?,
                hourly: row_type(c"hourly_record")?,
                count: Box::new(count),
                hour_statements: hours::Statements::prepare(client)?,
                hours: RefCell::default(),
                committed_at: Cell::new(clock()),
            }))
        })
    }

    /// Returns when the last transaction was committed.
    pub fn committed_at(&self) -> Timestamp {
        self.committed_at.get()
    }

    /// Runs `body` in a transaction and commits it; an error undoes the whole transaction.
    pub fn write<R>(
        &self,
        durability: Durability,
        body: impl FnOnce(&mut StoreTransaction) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let mut ended = Vec::new();
        let result = transaction::run(durability, |client| {
            let mut writer = StoreTransaction { client, store: self, ended: Vec::new() };
            let result = body(&mut writer)?;
            writer.count_hours()?;
            ended = writer.ended;
            Ok(result)
        });
        self.hours.borrow_mut().settle(result.is_ok());
        if result.is_ok() {
            self.committed_at.set(clock());
        }
        if result.is_ok() && !ended.is_empty() {
            (self.count)(&ended);
        }
        result
    }
}

fn row_type(table: &CStr) -> Result<RowType, Failure> {
    of_extension(table).map(RowType::of).ok_or(Failure::NotInstalled)
}
