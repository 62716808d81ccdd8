//! One operation, ready to go: everything that needs the caller's rights or the catalog is done.

pub mod prepare;

use dialect::{FindBy, HttpRequest, Operation, Outcome, Secret};
use http_client::Endpoint;
use policy::{LimitRules, Micros};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    crypto::seal::Keys,
    store::{
        identity::Identity,
        rows::{IdempotencyHashes, MovedTo},
    },
};

/// One operation, ready to go: everything that needs the caller's rights or the catalog is done.
#[derive(Serialize, Deserialize)]
pub struct Job {
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
    /// None if no vendor is called: the session found the verification terminal or queued (it answers from
    /// the record), or the number is a test number (`local_outcome` answers).
    pub vendor_call: Option<VendorCall>,
    pub recipient_masked: Option<String>,
    /// Normalised; the worker knows it by keys alone.
    pub recipient: Option<Secret>,
    /// By which it is found: under each key of the key file, as it is when the intent is recorded; it is put down under
    /// the first. Empty, where there is no recipient. Filled by the worker, in whose order all intents are.
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
    /// Known to the worker alone: the role of the flow on record, where the session saw to it that the caller may act
    /// for it.
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
    pub rules: Option<LimitRules>,
    /// The gateway's own answer, with no call: a test number's, or the sandbox's.
    pub local_outcome: Option<Outcome>,
    /// What the user typed can be no code: it is on record, and nobody is asked.
    pub is_no_code: bool,
    /// It sends the code that was sent before.
    pub keeps_code: bool,
    /// To a test number: marked so on record, and never counted.
    pub is_test: bool,
    pub idempotency: Option<IdempotencyHashes>,
    /// The route that it was asked of: name and OID, and what the worker puts it down under.
    pub route: Option<(String, u32)>,
    #[serde(skip)]
    pub route_id: Option<Identity>,
    /// The same send through the route's other providers, in the order in which they are tried.
    pub fallbacks: Vec<Job>,
    /// Known to the worker alone: when it took the job from a session.
    #[serde(skip)]
    pub taken_at: Micros,
    /// Known to the worker alone: which queued send it is.
    #[serde(skip)]
    pub queued: Option<Requeue>,
}

/// What it takes to queue a send again.
#[derive(Clone)]
pub struct Requeue {
    /// By which the queue knows it: a provider or a route, and the role that enqueued it.
    pub line: Identity,
    pub role: Identity,
    /// The sealed payload.
    pub payload: Vec<u8>,
}

impl Job {
    /// The same through the next provider of the route, where this one certainly sends nothing.
    pub fn next_fallback(&mut self) -> Option<Self> {
        let mut fallbacks = std::mem::take(&mut self.fallbacks).into_iter();
        let mut next = fallbacks.next()?;
        next.fallbacks = fallbacks.collect();
        next.idempotency.clone_from(&self.idempotency);
        next.queued.clone_from(&self.queued);
        next.taken_at = self.taken_at;
        Some(next)
    }

    /// By which its recipient, and that of those that may follow, is found from now on.
    pub fn derive_keys(&mut self, keys: &Keys) {
        self.recipient_keys = self.recipient.as_ref().map_or_else(Vec::new, |recipient| keys.recipients(recipient));
        self.account_keys =
            self.account.as_ref().map_or_else(Vec::new, |account| keys.fingerprints("account", account.reveal()));
        self.fallbacks.iter_mut().for_each(|job| job.derive_keys(keys));
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
    pub fn with_fallbacks(&self) -> impl Iterator<Item = &Self> + Clone {
        std::iter::once(self).chain(&self.fallbacks)
    }
}

/// Which verification a job is about.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Target {
    /// A send begins this one.
    New(Uuid),
    Existing(Uuid),
    /// This one, whose send goes on to the next provider of its route.
    Failover(Uuid),
    /// The open one of this provider and reference or recipient, else a new one of this id.
    Lookup(FindBy, Uuid),
}

#[derive(Serialize, Deserialize)]
pub struct VendorCall {
    pub request: HttpRequest,
    pub cancel_first: Option<HttpRequest>,
    pub endpoint: Endpoint,
    pub secrets: Vec<Secret>,
}
