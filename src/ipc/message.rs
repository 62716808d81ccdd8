//! What a session and the worker write to each other. None of it has a `Debug`: there are numbers, codes and vendors'
//! answers in it.

use dialect::Outcome;
use http_client::{ConnectionCheck, Endpoint};
use policy::{BlockReason, Limits, Micros, NumberRange, Status, Timestamp, Verification};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    job::Job,
    store::{
        identity::{Identity, Subject},
        rows::WhichSend,
        session_reads::VerificationSnapshot,
    },
};

/// From a session.
#[derive(Serialize, Deserialize)]
pub enum Request {
    Run(Box<Job>),
    /// Tell me when nothing is in flight for this verification.
    AwaitIdle(Uuid),
    /// Give me the row of its send once that has an outcome. The status is what the session has read. A check of its
    /// code, which nobody makes, tells whose limits say how many checks are left.
    AwaitSend(Uuid, WhichSend, Status, Option<Box<Job>>),
    /// A part of the record's maintenance.
    Maintain(Maintenance),
    /// Give this server or role an identity.
    Identify(Subject),
    /// How far does a connection to the URL of this option come? The endpoint has it for its base_url.
    Check(String, Box<Endpoint>),
    /// How long does this provider_limit refuse sends through this foreign server?
    Budget(u32, Limits),
}

/// What keeps the record in order: done in parts, so that it holds up nobody. Each response says where the next one
/// begins.
#[derive(Serialize, Deserialize)]
pub enum Maintenance {
    /// Deletes what began before that, of these providers (None: of all), from this verification on.
    Purge { before: Timestamp, providers: Option<Vec<Identity>>, from: Uuid },
    /// Removes what leads to a recipient, found by these keys, at a provider or route (under any of its numbers). What
    /// counts at providers that are not `owned` (None: all are) goes on counting.
    Forget { provider: Vec<Identity>, owned: Option<Vec<Identity>>, recipient_keys: Vec<Vec<u8>> },
    /// Opens a range of numbers again at a provider (under any of its numbers).
    Release { providers: Vec<Identity>, range: NumberRange },
    /// Seals under the first key what is sealed under another, from this verification on.
    Reseal { from: Uuid },
    /// Begins the numbers anew: all (None), or those of these providers.
    ResetStatistics { providers: Option<Vec<Identity>> },
}

/// What came of a part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Verifications.
    pub count: u64,
    /// None: it was the last.
    pub next: Option<Uuid>,
}

/// From the worker.
#[derive(Serialize, Deserialize)]
pub enum Response {
    Row(Box<ResultRow>),
    Idle,
    Progress(Progress),
    Checked(ConnectionCheck),
    /// None: not at all.
    Budget(Option<Micros>),
    /// The record has changed since you read it, or the worker that you asked is no more: read and ask again.
    Retry,
    /// A worker had your call, and what became of it cannot be found out.
    Unknown,
    Error(Error),
}

/// The row that an otp_ function returns.
#[derive(Clone, Serialize, Deserialize)]
pub struct ResultRow {
    pub verification: Uuid,
    /// None, as the outcome, while the send is queued.
    pub attempt: Option<Uuid>,
    pub status: Status,
    pub outcome: Option<Outcome>,
    pub retryable: bool,
    pub attempts_left: u32,
    pub retry_after: Option<Micros>,
    pub expires_at: Option<Timestamp>,
    pub reference: Option<String>,
    pub vendor_code: Option<String>,
    pub vendor_message: Option<String>,
    /// JSON text.
    pub response: Option<String>,
    /// Which rule refused, or would have.
    pub reason: Option<BlockReason>,
}

impl ResultRow {
    /// A verification of which no attempt is to be told (yet).
    pub fn without_attempt(verification: Uuid, state: &Verification) -> Self {
        Self {
            verification,
            attempt: None,
            status: state.status,
            outcome: None,
            retryable: false,
            attempts_left: state.attempts_left(),
            retry_after: None,
            expires_at: state.expires_at,
            reference: state.reference.clone(),
            vendor_code: None,
            vendor_message: None,
            response: None,
            reason: None,
        }
    }

    /// A verification as it is on record while its send has no outcome.
    pub fn without_outcome(verification: Uuid, recorded: VerificationSnapshot) -> Self {
        let state = Verification::queued(recorded.max_checks);
        let state = Verification { status: recorded.status, reference: recorded.reference, ..state };
        Self::without_attempt(verification, &state)
    }

    /// A call of which nobody can tell what became of it, not even from the record.
    pub fn unknown(verification: Uuid, attempt: Uuid) -> Self {
        Self {
            attempt: Some(attempt),
            status: Status::Unknown,
            outcome: Some(Outcome::Unknown),
            attempts_left: 0,
            vendor_message: Some("the background worker ended during the call".to_owned()),
            ..Self::without_attempt(verification, &Verification::sending(0))
        }
    }
}

pub fn write<T: Serialize>(request: &T) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(postcard::to_allocvec(request).expect("a message has no type that postcard cannot write"))
}

pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|_| {
        Error::internal(
            "session and worker run different builds of the library",
            "Restart the server after installing a new build.",
        )
    })
}

pub fn unexpected() -> Error {
    Error::internal(
        "the worker's response does not fit the request",
        "Restart the server after installing a new \
    build.",
    )
}
