//! Rows as the worker writes and reads them.

use dialect::{Operation, Outcome};
use pgrx::{FromDatum, IntoDatum, pg_sys, spi::SpiHeapTupleData};
use policy::{BlockReason, Status, Timestamp, Verification, is_fault};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    pg::values::{Time, Transaction},
    store::{
        counted::{Begun, Cohort, EndedAttempt},
        identity::Identity,
        transaction::Failure,
    },
};

/// A verification that an attempt begins.
pub struct NewVerification {
    pub id: Uuid,
    pub provider: String,
    pub provider_id: Identity,
    pub vendor: String,
    pub role_id: Identity,
    pub created_at: Timestamp,
    pub recipient_masked: Option<String>,
    pub recipient_key: Option<Vec<u8>>,
    pub sealed: Option<Vec<u8>>,
    pub state: Verification,
    pub idempotency: Option<IdempotencyHashes>,
    pub is_test: bool,
    pub route: Option<(String, Identity)>,
    /// The calling code of the recipient's country.
    pub country: Option<i32>,
}

/// The new state of a verification; `sealed` replaces what is sealed, unless the verification has ended.
pub struct VerificationUpdate {
    pub id: Uuid,
    /// The verification's status until now.
    pub before: Status,
    /// The provider that a route's verification goes to from now on.
    pub moved_to: Option<MovedTo>,
    pub state: Verification,
    pub sealed: Option<Vec<u8>>,
}

/// A provider and its vendor.
#[derive(Clone)]
pub struct MovedTo {
    pub provider: String,
    pub provider_id: Identity,
    pub vendor: String,
}

/// A reference by which a verification is found.
pub struct NewReference<'a> {
    pub provider_id: Identity,
    pub reference: &'a str,
    pub verification: Uuid,
}

pub struct NewAttempt {
    pub id: Uuid,
    pub verification: Uuid,
    pub operation: Operation,
    /// The outcome of an attempt that ended without a call, from the record or by a rule.
    pub refused: Option<Outcome>,
    /// Why the attempt ended so, if the outcome does not say it all.
    pub why: Option<String>,
    pub provider_id: Identity,
    /// The role that asked for the attempt.
    pub role_id: Identity,
    /// The key of the account at the vendor; empty if there is none.
    pub account: Vec<u8>,
    /// The recipient whose limits the attempt counts against; None: nobody's.
    pub recipient_key: Option<Vec<u8>>,
    /// The rule that refused, or would have.
    pub reason: Option<BlockReason>,
    /// Until when to wait, if waiting helps.
    pub retry_at: Option<Timestamp>,
    pub started_at: Timestamp,
    pub cohort: Cohort,
}

/// How an attempt ended.
pub struct AttemptEnd {
    pub id: Uuid,
    pub outcome: Outcome,
    pub http_status: Option<u16>,
    pub vendor_code: Option<String>,
    pub vendor_message: Option<String>,
    /// The answer as JSON text, redacted.
    pub response: Option<String>,
    pub retry_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    pub begun: Begun,
    /// Whether a worker was there when it ended, so that it is known how long it took.
    pub is_timed: bool,
    /// As [`crate::store::counted::EndedAttempt::tells_of_provider`].
    pub tells_of_provider: bool,
    /// Until when the certificate of the host that answered is valid, if it was seen.
    pub certificate_ends_at: Option<Timestamp>,
}

/// A verification as it is on record.
pub struct StoredVerification {
    pub id: Uuid,
    pub created_at: Timestamp,
    pub provider_id: Identity,
    pub state: Verification,
    /// Whom the code goes to; None: nobody who is known, or the recipient was forgotten.
    pub recipient_key: Option<Vec<u8>>,
    /// The role that began the verification.
    pub role_id: Identity,
    /// The cohort for which its attempts count.
    pub cohort: Cohort,
}

/// A queued send whose transaction has committed, and which the worker has not taken yet.
pub struct QueuedVerification {
    pub transaction: u64,
    pub id: Uuid,
    /// The route that the send is queued for, else the provider.
    pub line: Identity,
    pub role_id: Identity,
    pub created_at: Timestamp,
    /// Whether it is still queued; else it was once.
    pub is_queued: bool,
}

/// A queued send with everything that is needed to make it.
pub struct QueuedPayload {
    pub stored: StoredVerification,
    pub provider: String,
    pub vendor: String,
    pub role_id: Identity,
    pub created_by: String,
    pub sealed: Vec<u8>,
    pub route_id: Option<Identity>,
}

/// An open verification: what is to be erased of it, and when.
pub struct OpenVerification {
    pub id: Uuid,
    pub erase_at: Timestamp,
    /// The beginning of the seal, which tells its key; None: nothing is sealed.
    pub begins: Option<Vec<u8>>,
    pub is_sending: bool,
}

/// What is sealed of a verification.
pub struct SealedRow {
    pub id: Uuid,
    pub is_queued: bool,
    pub sealed: Option<Vec<u8>>,
}

pub struct StoredAttempt {
    pub id: Uuid,
    pub verification: Uuid,
    pub operation: Operation,
    pub outcome: Option<Outcome>,
    pub vendor_code: Option<String>,
    pub vendor_message: Option<String>,
    pub response: Option<String>,
    pub reason: Option<BlockReason>,
    pub retry_at: Option<Timestamp>,
    pub provider_id: Identity,
    pub started_at: Timestamp,
}

impl NewAttempt {
    /// Returns the attempt as it is counted, if it ended without a call.
    pub fn ended(&self) -> Option<EndedAttempt> {
        let begun = Begun {
            provider_id: self.provider_id,
            operation: self.operation,
            reason: self.reason,
            started_at: self.started_at,
            cohort: self.cohort,
        };
        let ended_at = self.started_at;
        self.refused.map(|outcome| EndedAttempt {
            begun,
            outcome,
            ended_at,
            took: None,
            tells_of_provider: false,
            words: None,
            certificate_ends_at: None,
        })
    }
}

impl AttemptEnd {
    /// Returns the attempt as it is counted.
    pub fn ended(&self) -> EndedAttempt {
        EndedAttempt {
            begun: self.begun,
            outcome: self.outcome,
            ended_at: self.finished_at,
            took: self.is_timed.then(|| self.finished_at.since(self.begun.started_at).max(0)),
            tells_of_provider: self.tells_of_provider,
            words: is_fault(self.outcome).then(|| (self.vendor_code.clone(), self.vendor_message.clone())),
            certificate_ends_at: self.certificate_ends_at,
        }
    }
}

pub fn value<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData, column: usize) -> Result<Option<T>, Failure> {
    Ok(row.get(column)?)
}

pub fn count(row: &SpiHeapTupleData, column: usize) -> Result<u32, Failure> {
    Ok(value::<i32>(row, column)?.and_then(|count| u32::try_from(count).ok()).unwrap_or(0))
}

pub fn uuid(row: &SpiHeapTupleData, column: usize) -> Result<Uuid, Failure> {
    let uuid: Option<pgrx::datum::Uuid> = value(row, column)?;
    Ok(uuid.map_or(Uuid::nil(), |uuid| Uuid::from_bytes(*uuid.as_bytes())))
}

/// Returns a row's place in its table: the block, and the number in the block.
pub fn place(row: &SpiHeapTupleData, column: usize) -> Result<(u32, u16), Failure> {
    let place: Option<pg_sys::ItemPointerData> = value(row, column)?;
    Ok(place.map(pgrx::itemptr::item_pointer_get_both).unwrap_or_default())
}

pub fn flag(row: &SpiHeapTupleData, column: usize) -> Result<bool, Failure> {
    Ok(value(row, column)?.unwrap_or(false))
}

pub fn timestamp(row: &SpiHeapTupleData, column: usize) -> Result<Option<Timestamp>, Failure> {
    Ok(value::<Time>(row, column)?.map(|time| time.0))
}

/// Returns a transaction's full number.
pub fn transaction(row: &SpiHeapTupleData, column: usize) -> Result<u64, Failure> {
    Ok(value::<Transaction>(row, column)?.map_or(0, |transaction| transaction.0))
}

pub fn label<T: Copy>(
    row: &SpiHeapTupleData,
    column: usize,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<Option<T>, Failure> {
    let label: Option<String> = value(row, column)?;
    Ok(label.and_then(|label| all.iter().copied().find(|one| name(*one) == label)))
}

impl StoredVerification {
    pub fn read(row: &SpiHeapTupleData) -> Result<Self, Failure> {
        let (created_at, role_id) = (timestamp(row, 9)?.unwrap_or_default(), value(row, 12)?.unwrap_or(0));
        Ok(Self {
            id: uuid(row, 1)?,
            state: Verification {
                status: label(row, 2, &Status::ALL, Status::as_str)?.unwrap_or(Status::Unknown),
                reference: value(row, 3)?,
                expires_at: timestamp(row, 4)?,
                approved_at: timestamp(row, 5)?,
                send_count: count(row, 6)?,
                check_count: count(row, 7)?,
                max_checks: count(row, 8)?,
            },
            created_at,
            provider_id: value(row, 10)?.unwrap_or(0),
            recipient_key: value(row, 11)?,
            role_id,
            cohort: Cohort {
                begun_at: created_at,
                role_id,
                route_id: value(row, 13)?,
                country: value(row, 14)?,
                was_sent: count(row, 6)? > 0,
                is_counted: !flag(row, 15)?,
            },
        })
    }
}

impl QueuedVerification {
    pub fn read(row: &SpiHeapTupleData) -> Result<Self, Failure> {
        Ok(Self {
            transaction: transaction(row, 1)?,
            id: uuid(row, 2)?,
            line: value(row, 3)?.unwrap_or(0),
            created_at: timestamp(row, 4)?.unwrap_or_default(),
            role_id: value(row, 5)?.unwrap_or(0),
            is_queued: flag(row, 6)?,
        })
    }
}

impl QueuedPayload {
    pub fn read(row: &SpiHeapTupleData) -> Result<Self, Failure> {
        Ok(Self {
            stored: StoredVerification::read(row)?,
            role_id: value(row, 12)?.unwrap_or(0),
            route_id: value(row, 13)?,
            provider: value(row, 16)?.unwrap_or_default(),
            vendor: value(row, 17)?.unwrap_or_default(),
            created_by: value(row, 18)?.unwrap_or_default(),
            sealed: value(row, 19)?.unwrap_or_default(),
        })
    }
}

impl SealedRow {
    pub fn read(row: &SpiHeapTupleData) -> Result<Self, Failure> {
        Ok(Self { id: uuid(row, 1)?, is_queued: flag(row, 2)?, sealed: value(row, 3)? })
    }
}

impl OpenVerification {
    pub fn read(row: &SpiHeapTupleData) -> Result<Self, Failure> {
        Ok(Self {
            id: uuid(row, 1)?,
            erase_at: timestamp(row, 2)?.unwrap_or_default(),
            begins: value(row, 3)?,
            is_sending: flag(row, 4)?,
        })
    }
}

impl StoredAttempt {
    pub fn read(row: &SpiHeapTupleData) -> Result<Self, Failure> {
        Ok(Self {
            id: uuid(row, 1)?,
            verification: uuid(row, 2)?,
            operation: label(row, 3, &Operation::ALL, Operation::as_str)?.unwrap_or(Operation::Send),
            outcome: label(row, 4, &Outcome::ALL, Outcome::as_str)?,
            vendor_code: value(row, 5)?,
            vendor_message: value(row, 6)?,
            response: value(row, 7)?,
            reason: label(row, 8, &BlockReason::ALL, BlockReason::as_str)?,
            retry_at: timestamp(row, 9)?,
            provider_id: value(row, 10)?.unwrap_or(0),
            started_at: timestamp(row, 11)?.unwrap_or_default(),
        })
    }
}

/// Which of several sends of one verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhichSend {
    /// The send that was asked for first, not a resend.
    Original,
    Latest,
}

/// An idempotency key and the payload that it goes with, as HMACs, because either may hold a number: one under each key
/// of the key file. Those under the first key are put on record.
#[derive(Clone, Serialize, Deserialize)]
pub struct IdempotencyHashes {
    pub keys: Vec<Vec<u8>>,
    pub payloads: Vec<Vec<u8>>,
}
