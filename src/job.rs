//! One operation, ready to go: everything that needs the caller's rights or the catalog is done.

pub mod prepare;

use std::time::Duration;

use dialect::{FindBy, HttpRequest, Operation, Outcome, Secret};
use http_client::Endpoint;
use policy::{LimitRules, Micros, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    crypto::seal::Keys,
    pg::clock::SinceBoot,
    store::{
        counted::Cohort,
        identity::Identity,
        rows::{IdempotencyHashes, MovedTo, NewAttempt},
    },
};

/// One operation, ready to go: everything that needs the caller's rights or the catalog is done.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub attempt: Uuid,
    pub action: Action,
    pub answer: Answer,
    pub provider: String,
    /// The provider's identity, which the worker fills in by the account; without an account, as the session read it.
    pub provider_id: Identity,
    pub vendor: String,
    /// None for a route that has chosen no provider yet.
    pub account: Option<Account>,
    /// The caller's role: its OID, its name, and the identity that the worker fills in.
    pub role: u32,
    pub created_by: String,
    #[serde(skip)]
    pub role_id: Identity,
    pub recipient_masked: Option<String>,
    /// Whom the code goes to, normalised; the worker recognises recipients by keys alone.
    pub recipient: Option<Secret>,
    pub reference: Option<String>,
    /// What a later operation needs of this one; it replaces what was sealed for the send before.
    pub sealed: Option<Vec<u8>>,
    pub code_lifetime: Option<Micros>,
    pub max_checks: u32,
    /// The keys by which the recipient is found, one under each key of the key file as it is when the intent is
    /// recorded; the first is put on record. Empty if there is no recipient. The worker fills the keys in, since it
    /// records all intents in order.
    #[serde(skip)]
    pub recipient_keys: Vec<Vec<u8>>,
    /// The keys of the account: one under each key of the key file.
    #[serde(skip)]
    pub account_keys: Vec<Vec<u8>>,
    /// The fingerprint, under the first key, of what the account's calls depend on.
    #[serde(skip)]
    pub configuration: Vec<u8>,
    /// Whom the job counts for; only the worker knows.
    #[serde(skip)]
    pub counts_for: CountsFor,
    /// When the worker took the job from a session.
    #[serde(skip)]
    pub taken_at: SinceBoot,
}

/// What a job does, and to which verification.
#[derive(Serialize, Deserialize)]
pub enum Action {
    Send(Send),
    Verify(Flow),
    /// `keeps_code`: the vendor sends the code that it sent before.
    Resend {
        flow: Recorded,
        keeps_code: bool,
    },
    Cancel(Recorded),
}

/// The send that begins a verification, through one provider.
#[derive(Serialize, Deserialize)]
pub struct Send {
    pub verification: Uuid,
    /// Whether the verification is on record: the route's provider before this one has certainly sent nothing.
    pub is_failover: bool,
    pub idempotency: Option<IdempotencyHashes>,
    /// The route, if the caller named one.
    pub route: Option<Route>,
    /// The same send through the route's other providers, in the order in which they are tried.
    pub fallbacks: Vec<Job>,
    /// Which queued send this is; only the worker knows.
    #[serde(skip)]
    pub queued: Option<Requeue>,
}

/// The flow whose code is checked.
#[derive(Serialize, Deserialize)]
pub enum Flow {
    Recorded(Recorded),
    /// The open flow of this provider and reference or recipient, else a new flow of this id.
    Lookup {
        by: FindBy,
        new: Uuid,
    },
    /// The flow that a look-up led to while it was busy; only the worker makes this.
    Found {
        by: FindBy,
        id: Uuid,
    },
}

/// A verification on record, named by its id: the session has checked that the caller may act for its role.
#[derive(Serialize, Deserialize)]
pub struct Recorded {
    pub id: Uuid,
    /// How the vendor knows the code.
    pub find_by: FindBy,
    /// What the job was prepared with, unless the record answers: the reference, and how many codes had been sent by
    /// then.
    pub prepared_with: Option<(Option<String>, u32)>,
}

/// A route: its name, its OID, and the identity that the worker fills in.
#[derive(Serialize, Deserialize)]
pub struct Route {
    pub name: String,
    pub server: u32,
    #[serde(skip)]
    pub id: Identity,
}

/// An account at a vendor: the OIDs of foreign server and user mapping, whose breaker counts, and the account's name at
/// the vendor, which the worker recognises by keys alone.
#[derive(Serialize, Deserialize)]
pub struct Account {
    pub server: u32,
    pub mapping: u32,
    pub name: Secret,
    /// As [`crate::provider::Provider::configuration`].
    pub configuration: Secret,
    /// The options that name a file of the account's credentials which every user of the machine can read.
    pub open_files: Vec<String>,
}

/// Who answers a job, if the record does not.
#[derive(Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "most jobs call a vendor, and each is boxed as a whole")]
pub enum Answer {
    /// The record itself: when the session looked, the verification had ended, or was queued.
    Record,
    /// The gateway, for a test number: marked so on record, exempt from every rule, and counted for nobody.
    TestNumber(OwnAnswer),
    /// The gateway, under the provider's rules and within its timeout.
    Gateway { answer: OwnAnswer, rules: LimitRules, timeout: Duration },
    /// The vendor, under the provider's rules.
    Vendor { call: VendorCall, rules: LimitRules },
}

/// What the gateway answers without a call.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnAnswer {
    /// The user typed what cannot be a code: the check is put on record, and no vendor is called.
    NoCode,
    /// The outcome for a test number, or of the sandbox.
    Outcome(Outcome),
}

/// Whom a job counts for.
#[derive(Default)]
pub enum CountsFor {
    /// The recipient, as an act of the caller's role.
    #[default]
    Caller,
    /// The recipient, as an act of the role that began the flow on record.
    Role(Identity),
    /// Nobody: only the payload says whose the flow is. A recipient that comes along with a reference is only claimed.
    Nobody,
}

/// What the worker needs to queue a send again.
#[derive(Clone)]
pub struct Requeue {
    /// The queue's line of this send: a provider or a route; below it, the role that enqueued the send.
    pub line: Identity,
    pub role: Identity,
    /// The sealed payload.
    pub payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub struct VendorCall {
    pub request: HttpRequest,
    pub cancel_first: Option<HttpRequest>,
    pub endpoint: Endpoint,
    pub secrets: Vec<Secret>,
    /// The server's description of the vendor, if it has one: the answer is read by what the message was written by.
    pub description: Option<String>,
}

impl Action {
    pub fn operation(&self) -> Operation {
        match self {
            Self::Send(_) => Operation::Send,
            Self::Verify(_) => Operation::Verify,
            Self::Resend { .. } => Operation::Resend,
            Self::Cancel(_) => Operation::Cancel,
        }
    }

    /// Returns the verification that the action is about, as far as the caller can know: a look-up may lead to another
    /// one.
    pub fn verification(&self) -> Uuid {
        match self {
            Self::Send(send) => send.verification,
            Self::Verify(Flow::Recorded(flow)) | Self::Resend { flow, .. } | Self::Cancel(flow) => flow.id,
            Self::Verify(Flow::Lookup { new: id, .. } | Flow::Found { id, .. }) => *id,
        }
    }

    /// Returns the verification on record that the action is about, if it is known which.
    pub fn on_record(&self) -> Option<Uuid> {
        match self {
            Self::Send(send) if !send.is_failover => None,
            Self::Verify(Flow::Lookup { .. }) => None,
            _ => Some(self.verification()),
        }
    }

    /// Returns the verification on record that the action has to wait for while it is busy. A failover waits for none:
    /// it is what its verification is busy with.
    pub fn waits_for(&self) -> Option<Uuid> {
        self.on_record().filter(|_| !matches!(self, Self::Send(_)))
    }

    /// Returns whether the action goes on to the next provider of its route.
    pub fn is_failover(&self) -> bool {
        matches!(self, Self::Send(send) if send.is_failover)
    }

    /// Returns whether the action begins this verification, rather than belonging to one on record.
    pub fn begins(&self, verification: Uuid) -> bool {
        match self {
            Self::Send(send) => !send.is_failover,
            Self::Verify(Flow::Lookup { new, .. }) => *new == verification,
            _ => false,
        }
    }

    /// Returns how the vendor knows the code of a flow that has begun.
    pub fn find_by(&self) -> FindBy {
        match self {
            Self::Send(_) => FindBy::Recipient,
            Self::Verify(Flow::Recorded(flow)) | Self::Resend { flow, .. } | Self::Cancel(flow) => flow.find_by,
            Self::Verify(Flow::Lookup { by, .. } | Flow::Found { by, .. }) => *by,
        }
    }

    /// Returns what the job was prepared with, for a verification on record.
    pub fn prepared_with(&self) -> Option<&(Option<String>, u32)> {
        match self {
            Self::Verify(Flow::Recorded(flow)) | Self::Resend { flow, .. } | Self::Cancel(flow) => {
                flow.prepared_with.as_ref()
            }
            Self::Send(_) | Self::Verify(_) => None,
        }
    }

    pub fn send(&self) -> Option<&Send> {
        if let Self::Send(send) = self { Some(send) } else { None }
    }
}

impl Answer {
    /// Returns the rules that the job has to obey; None if it is exempt from all rules.
    pub fn rules(&self) -> Option<&LimitRules> {
        match self {
            Self::Record | Self::TestNumber(_) => None,
            Self::Gateway { rules, .. } | Self::Vendor { rules, .. } => Some(rules),
        }
    }

    /// Returns the gateway's own answer, if the gateway answers.
    pub fn own(&self) -> Option<OwnAnswer> {
        match self {
            Self::TestNumber(answer) | Self::Gateway { answer, .. } => Some(*answer),
            Self::Record | Self::Vendor { .. } => None,
        }
    }

    /// Returns how long the call may take, if that is known.
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Record | Self::TestNumber(_) => None,
            Self::Gateway { timeout, .. } => Some(*timeout),
            Self::Vendor { call, .. } => Some(call.endpoint.timeout),
        }
    }
}

impl Job {
    pub fn operation(&self) -> Operation {
        self.action.operation()
    }

    pub fn is_test(&self) -> bool {
        matches!(self.answer, Answer::TestNumber(_))
    }

    /// Returns the same send through the next provider of the route, if there is one. For a provider that has certainly
    /// sent nothing.
    pub fn next_fallback(&mut self) -> Option<Self> {
        let Action::Send(send) = &mut self.action else { return None };
        let mut fallbacks = std::mem::take(&mut send.fallbacks).into_iter();
        let mut next = fallbacks.next()?;
        if let Action::Send(next) = &mut next.action {
            next.fallbacks = fallbacks.collect();
            next.idempotency.clone_from(&send.idempotency);
            next.queued.clone_from(&send.queued);
        }
        next.taken_at = self.taken_at;
        Some(next)
    }

    /// Computes the keys of this job's recipient and account, and those of its fallbacks.
    pub fn derive_keys(&mut self, keys: &Keys) {
        self.recipient_keys = self.recipient.as_ref().map_or_else(Vec::new, |recipient| keys.recipients(recipient));
        self.account_keys =
            self.account.as_ref().map_or_else(Vec::new, |account| keys.fingerprints("account", account.name.reveal()));
        self.configuration =
            self.account.as_ref().map_or_else(Vec::new, |account| keys.configuration(&account.configuration));
        if let Action::Send(send) = &mut self.action {
            send.fallbacks.iter_mut().for_each(|job| job.derive_keys(keys));
        }
    }

    /// Returns the provider that a route's verification goes to with this job.
    pub fn moved_to(&self) -> MovedTo {
        MovedTo { provider: self.provider.clone(), provider_id: self.provider_id, vendor: self.vendor.clone() }
    }

    /// Returns the key under which the recipient is put on record.
    pub fn recipient_key(&self) -> Option<&[u8]> {
        self.recipient_keys.first().map(Vec::as_slice)
    }

    /// Returns the keys by which the record finds the recipient that the job counts for; none if it counts for nobody.
    pub fn counted_keys(&self) -> &[Vec<u8>] {
        if matches!(self.counts_for, CountsFor::Nobody) { &[] } else { &self.recipient_keys }
    }

    /// Returns the key under which the recipient that the job counts for is put on record.
    pub fn counted_key(&self) -> Option<&[u8]> {
        self.counted_keys().first().map(Vec::as_slice)
    }

    /// Returns the role whose act the job is to the limits.
    pub fn acting_role(&self) -> Identity {
        if let CountsFor::Role(role) = self.counts_for { role } else { self.role_id }
    }

    /// Returns the key under which the account is put on record; empty if there is no account.
    pub fn account_key(&self) -> &[u8] {
        self.account_keys.first().map_or(&[], Vec::as_slice)
    }

    /// Returns this job and its fallbacks.
    pub fn with_fallbacks(&self) -> impl Iterator<Item = &Self> + Clone {
        std::iter::once(self).chain(self.action.send().map_or(&[][..], |send| &send.fallbacks))
    }

    /// Returns the cohort for which a flow that this job begins counts.
    pub fn cohort(&self, begun_at: Timestamp) -> Cohort {
        let send = self.action.send();
        Cohort {
            begun_at,
            role_id: self.role_id,
            route_id: send.and_then(|send| send.route.as_ref()).map(|route| route.id),
            country: self.country(),
            was_sent: send.is_some(),
            is_counted: !self.is_test(),
        }
    }

    /// Returns the calling code of the recipient's country.
    pub fn country(&self) -> Option<i32> {
        self.recipient.as_ref().and_then(|recipient| dialect::calling_code(recipient.reveal()))
    }

    /// Returns the intent of this job, to be recorded before the call. That of a test number counts for nobody.
    pub fn intent(&self, verification: Uuid, cohort: Cohort, now: Timestamp) -> NewAttempt {
        NewAttempt {
            id: self.attempt,
            verification,
            operation: self.operation(),
            refused: None,
            why: None,
            provider_id: self.provider_id,
            role_id: self.role_id,
            account: self.account_key().to_vec(),
            recipient_key: self.counted_key().filter(|_| !self.is_test()).map(<[u8]>::to_vec),
            reason: None,
            retry_at: None,
            started_at: now,
            cohort,
        }
    }
}
