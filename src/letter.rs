//! What a session and the worker write to each other. None of it has a `Debug`: there are numbers, codes and vendors'
//! answers in it.

use courier::Route;
use policy::{Micros, Reason, Rules, Status, Verification};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;
use vendor::{FindBy, Operation, Outcome, Request, Secret};
use zeroize::Zeroizing;

use crate::{
    identity::{Identity, Subject},
    ledger::MovedTo,
    misuse::Misuse,
    seal::Keys,
};

/// From a session.
#[derive(Serialize, Deserialize)]
pub enum Letter {
    Call(Box<Order>),
    /// Tell me when nothing is in flight for this verification.
    Settle(Uuid),
    /// Give me the row of its send once that has an outcome.
    Follow(Uuid, Which),
    /// A part of an upkeep of the record.
    Upkeep(Upkeep),
    /// Have a number for this.
    Identify(Subject),
}

/// What keeps the record in order: done in parts, so that it holds up nobody. Each reply says where the next one begins.
#[derive(Serialize, Deserialize)]
pub enum Upkeep {
    /// Deletes what began before that, of these providers (None: of all), from this verification on.
    Purge { before: Micros, providers: Option<Vec<Identity>>, from: Uuid },
    /// Removes what leads to a recipient, found by these keys, at a provider or route (under any of its numbers). What
    /// counts at providers that are not `owned` (None: all are) goes on counting.
    Forget { provider: Vec<Identity>, owned: Option<Vec<Identity>>, recipient_keys: Vec<Vec<u8>> },
    /// Seals under the first key what is sealed under another, from this verification on.
    Reseal { from: Uuid },
}

/// What came of a part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Verifications.
    pub count: u64,
    /// None: it was the last.
    pub next: Option<Uuid>,
}

/// Of several sends of one verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// As it was asked for, not a resend.
    Original,
    Latest,
}

/// One operation, ready to go: everything that needs the caller's rights or the catalog is done.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub operation: Operation,
    pub attempt: Uuid,
    pub target: Target,
    pub provider: String,
    /// Which one that is; looked up by `server` in the transaction that puts it down, unless that is 0.
    pub provider_id: Identity,
    pub vendor: String,
    /// Who asks: the OID, and what the worker puts it down under.
    pub role: u32,
    pub created_by: String,
    #[serde(skip)]
    pub role_id: Identity,
    /// None: the session found the verification terminal or queued; it answers from the record.
    pub outgoing: Option<Outgoing>,
    pub recipient_masked: Option<String>,
    /// Normalised; the worker knows it by keys alone.
    pub recipient: Option<Secret>,
    /// By which it is found: under each key of the key file, as it is when the intent is recorded; it is put down under the
    /// first. Empty, where there is no recipient. Filled by the worker, in whose order all intents are.
    #[serde(skip)]
    pub recipient_keys: Vec<Vec<u8>>,
    pub reference: Option<String>,
    /// Sealed for `target`; replaces what was sealed for the send before.
    pub sealed: Option<Vec<u8>>,
    pub code_lifetime: Option<Micros>,
    pub max_checks: u32,
    /// The OIDs of the foreign server and of the user mapping: whose breaker counts.
    pub server: u32,
    pub mapping: u32,
    /// The account at the vendor; the worker knows it by keys alone.
    pub account: Option<Secret>,
    /// As `recipient_keys`.
    #[serde(skip)]
    pub account_keys: Vec<Vec<u8>>,
    /// What the vendor knows a code by: a recipient that comes along with a reference is only claimed.
    pub find_by: FindBy,
    /// Known to the worker alone: the role of the flow on record, where the session saw to it that the caller may act for it.
    #[serde(skip)]
    pub sender: Option<Identity>,
    /// What it was prepared with, of a verification on record: the reference, and how many codes had been sent by then.
    pub prepared_with: Option<(Option<String>, u32)>,
    /// Known to the worker alone: it was the worker that found the flow on record.
    #[serde(skip)]
    pub is_found: bool,
    /// Known to the worker alone: nobody but the payload says whose the flow is. It counts for nobody.
    #[serde(skip)]
    pub is_claim: bool,
    /// None: exempt from all of them.
    pub rules: Option<Rules>,
    /// The gateway's own answer, with no call: a test number's, or the sandbox's.
    pub local: Option<Outcome>,
    /// What the user typed can be no code: it is on record, and nobody is asked.
    pub is_no_code: bool,
    /// It sends the code that was sent before.
    pub keeps_code: bool,
    /// To a test number: marked so on record, and never counted.
    pub is_test: bool,
    pub idempotency: Option<Idempotency>,
    /// The route that it was asked of: name and OID, and what the worker puts it down under.
    pub route: Option<(String, u32)>,
    #[serde(skip)]
    pub route_id: Option<Identity>,
    /// The same send through the route's other providers, in the order in which they are tried.
    pub onward: Vec<Order>,
    /// Known to the worker alone: when it took the order from a session.
    #[serde(skip)]
    pub taken_at: Micros,
    /// Known to the worker alone: which queued send it is.
    #[serde(skip)]
    pub queued: Option<Queued>,
}

/// What it takes to queue a send again.
#[derive(Clone)]
pub struct Queued {
    /// By which the queue knows it: a provider or a route, and the role that enqueued it.
    pub line: Identity,
    pub role: Identity,
    /// The sealed payload.
    pub payload: Vec<u8>,
}

impl Order {
    /// The same through the next provider of the route, where this one certainly sends nothing.
    pub fn next(&mut self) -> Option<Self> {
        let mut onward = std::mem::take(&mut self.onward).into_iter();
        let mut next = onward.next()?;
        next.onward = onward.collect();
        next.idempotency.clone_from(&self.idempotency);
        next.queued.clone_from(&self.queued);
        next.taken_at = self.taken_at;
        Some(next)
    }

    /// By which its recipient, and that of those that may follow, is found from now on.
    pub fn recognise(&mut self, keys: &Keys) {
        self.recipient_keys = self.recipient.as_ref().map_or_else(Vec::new, |recipient| keys.recipients(recipient));
        self.account_keys =
            self.account.as_ref().map_or_else(Vec::new, |account| keys.fingerprints("account", account.reveal()));
        self.onward.iter_mut().for_each(|order| order.recognise(keys));
    }

    /// The provider that a verification of a route goes to with it.
    pub fn moved_to(&self) -> MovedTo {
        MovedTo { provider: self.provider.clone(), provider_id: self.provider_id, vendor: self.vendor.clone() }
    }

    /// Under which its recipient is put down.
    pub fn recipient_key(&self) -> Option<&[u8]> {
        self.recipient_keys.first().map(Vec::as_slice)
    }

    /// By which whoever it counts for is found.
    pub fn counted_keys(&self) -> &[Vec<u8>] {
        if self.is_claim { &[] } else { &self.recipient_keys }
    }

    /// Under which it is put down for whom it counts.
    pub fn counted_key(&self) -> Option<&[u8]> {
        self.counted_keys().first().map(Vec::as_slice)
    }

    /// Under which its account is put down; empty: none.
    pub fn account_key(&self) -> &[u8] {
        self.account_keys.first().map_or(&[], Vec::as_slice)
    }

    /// This one and those that may follow.
    pub fn with_onward(&self) -> impl Iterator<Item = &Self> + Clone {
        std::iter::once(self).chain(&self.onward)
    }
}

/// An idempotency key and the payload that it goes with, as HMACs: either may hold a number. Under each key of the key
/// file; they are put down under the first.
#[derive(Clone, Serialize, Deserialize)]
pub struct Idempotency {
    pub keys: Vec<Vec<u8>>,
    pub payloads: Vec<Vec<u8>>,
}

/// Which verification an order is about.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Target {
    /// A send begins this one.
    New(Uuid),
    Known(Uuid),
    /// This one, whose send goes on to the next provider of its route.
    Onward(Uuid),
    /// The open one of this provider and reference or recipient, else a new one of this id.
    Find(FindBy, Uuid),
}

#[derive(Serialize, Deserialize)]
pub struct Outgoing {
    pub request: Request,
    pub first: Option<Request>,
    pub route: Route,
    pub secrets: Vec<Secret>,
}

/// From the worker.
#[derive(Serialize, Deserialize)]
pub enum Reply {
    Done(Box<Done>),
    Settled,
    Kept(Part),
    /// The record has changed since you read it, or the worker that you asked is no more: read and ask again.
    Again,
    /// A worker had your call, and what became of it cannot be found out.
    Unknown,
    Refused(Misuse),
}

/// The row that an otp_ function returns.
#[derive(Clone, Serialize, Deserialize)]
pub struct Done {
    pub verification: Uuid,
    /// None, as the outcome, while the send is queued.
    pub attempt: Option<Uuid>,
    pub status: Status,
    pub outcome: Option<Outcome>,
    pub retryable: bool,
    pub attempts_left: u32,
    pub retry_after: Option<Micros>,
    pub expires_at: Option<Micros>,
    pub reference: Option<String>,
    pub vendor_code: Option<String>,
    pub vendor_message: Option<String>,
    /// JSON text.
    pub response: Option<String>,
    /// Which rule refused, or would have.
    pub reason: Option<Reason>,
}

impl Done {
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

pub fn write<T: Serialize>(letter: &T) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(postcard::to_allocvec(letter).expect("a letter has no type that postcard cannot write"))
}

pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Misuse> {
    postcard::from_bytes(bytes).map_err(|_| {
        Misuse::internal(
            "session and worker run different builds of the library",
            "Restart the server after installing a new build.",
        )
    })
}
