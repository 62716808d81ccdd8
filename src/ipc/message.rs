//! The messages between session and worker. They have no `Debug`, because numbers, codes and vendors' answers are in
//! them.

use dialect::Outcome;
use http_client::{ConnectionCheck, Endpoint};
use policy::{BlockReason, Limits, Micros, NumberRange, Status, Timestamp, Verification};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    job::Job,
    pg::clock::SinceBoot,
    store::{
        identity::{Identity, Subject},
        rows::WhichSend,
        session_reads::VerificationSnapshot,
    },
};

/// A session's request.
#[derive(Serialize, Deserialize)]
pub enum Request {
    Run(Box<Job>),
    /// Asks to be told when nothing is in flight for this verification.
    AwaitIdle(Uuid),
    /// Asks for the row of this verification's send once that has an outcome. The status is the one that the session
    /// has read. The job is a check that nobody makes: by its limits the row says how many checks are left. Last, when
    /// the worker has taken the request.
    AwaitSend(Uuid, WhichSend, Status, Option<Box<Job>>, #[serde(skip)] SinceBoot),
    /// Asks for a part of the record's maintenance.
    Maintain(Maintenance),
    /// Asks for an identity for this server or role.
    Identify(Subject),
    /// Asks how far a connection to the URL of this option comes; the endpoint has that URL as its base_url.
    Check(String, Box<Endpoint>),
    /// Asks for how long this provider_limit refuses sends through this foreign server.
    Budget(u32, Limits),
}

/// Work that keeps the record in order. It is done in parts, so that it holds up nobody; each response says where the
/// next part begins.
#[derive(Serialize, Deserialize)]
pub enum Maintenance {
    /// Deletes, from this verification on, what began before a time, of these providers (None: of all).
    Purge { before: Timestamp, providers: Option<Vec<Identity>>, from: Uuid },
    /// Removes what leads to a recipient, found by these keys, at a provider or route (under any of its identities).
    /// What counts at providers that are not among `owned` (None: all are) goes on counting.
    Forget { provider: Vec<Identity>, owned: Option<Vec<Identity>>, recipient_keys: Vec<Vec<u8>> },
    /// Opens a range of numbers again at a provider (under any of its identities).
    Release { providers: Vec<Identity>, range: NumberRange },
    /// Seals under the first key what is sealed under another key, from this verification on.
    Reseal { from: Uuid },
    /// Sets the statistics to zero: all (None), or those of these providers.
    ResetStatistics { providers: Option<Vec<Identity>> },
}

/// The result of a part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// How many verifications were changed.
    pub count: u64,
    /// Where the next part begins; None: this was the last part.
    pub next: Option<Uuid>,
}

/// The worker's response.
#[derive(Serialize, Deserialize)]
pub enum Response {
    Row(Box<ResultRow>),
    Idle,
    Progress(Progress),
    Checked(ConnectionCheck),
    /// How long the limit refuses sends, in microseconds; None: it refuses none.
    Budget(Option<Micros>),
    /// The record has changed since the session read it, or another worker has taken over: the session reads and asks
    /// again.
    Retry,
    /// A worker had the call, and what became of it cannot be found out.
    Unknown,
    Error(Error),
}

/// The row that an otp_ function returns.
#[derive(Clone, Serialize, Deserialize)]
pub struct ResultRow {
    pub verification: Uuid,
    /// None, like the outcome, while the send is queued.
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
    /// The vendor's answer, as JSON text.
    pub response: Option<String>,
    /// The rule that refused, or would have.
    pub reason: Option<BlockReason>,
}

impl ResultRow {
    /// Returns the row of a verification without an attempt to tell of (yet).
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

    /// Returns the row of a verification as it is on record while its send has no outcome.
    pub fn without_outcome(verification: Uuid, recorded: VerificationSnapshot) -> Self {
        let state = Verification::queued(recorded.max_checks);
        let state = Verification { status: recorded.status, reference: recorded.reference, ..state };
        Self::without_attempt(verification, &state)
    }

    /// Returns the row of a call of which nobody can tell what became of it, not even from the record.
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
