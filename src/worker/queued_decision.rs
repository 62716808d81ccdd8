//! The decision about a queued send whose turn it is: a job is made of it, with the rights of the role that enqueued
//! it, and is checked.

use std::{
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
};

use dialect::{Operation, Outcome};
use pgrx::pg_sys;
use policy::{BlockReason, Blocked, BreakerPermit, Status, Timestamp, Verification, admit};
use uuid::Uuid;

use crate::{
    crypto::seal::{Keys, Place},
    error::Error,
    gucs,
    job::{Job, prepare::JobSpec},
    pg::{foreign_servers, roles::name_of},
    provider::{Provider, candidates::Candidates},
    store::{
        StoreTransaction,
        counted::Cohort,
        identity::{Identity, object_of},
        rows::{MovedTo, NewAttempt, QueuedPayload, VerificationUpdate},
        transaction::Failure,
    },
    worker::{
        admission::new_reference,
        limit_check::{LimitCheck, Verdict, explain},
        state::{range_state::RangePass, send_queue::DueSend},
    },
};

/// The decision about one queued send.
pub struct QueuedDecision {
    pub id: Uuid,
    pub turn: DueSend,
    /// The provider's max_in_flight, as far as it was looked up.
    pub places: Option<u32>,
    /// The provider to which the send goes, or would go.
    pub asked: String,
    pub asked_id: Identity,
    /// The same provider with its vendor, if it is one of a route's.
    pub moved_to: Option<MovedTo>,
    pub role_id: Identity,
    pub attempt: Uuid,
    pub cohort: Cohort,
    /// When the decision was put on record.
    pub decided_at: Timestamp,
    pub state: Verification,
    /// The sealed payload.
    pub payload: Vec<u8>,
    /// The recipient whose limits the send counts against.
    pub recipient_key: Option<Vec<u8>>,
    pub account: Vec<u8>,
    /// The attempts at providers of the route that are paused or have an open breaker.
    pub passed_over: Vec<NewAttempt>,
    /// Ok: the send goes; Err: it ends without a call, or waits.
    pub go: Result<Proceed, Stop>,
}

pub struct Proceed {
    pub job: Box<Job>,
    pub observed: Option<BlockReason>,
    pub breaker_permit: Option<BreakerPermit>,
    pub range_pass: RangePass,
    pub checks_left: Option<u32>,
}

/// How a send ends without a call, and why.
#[derive(Clone)]
pub struct Stop {
    pub outcome: Outcome,
    pub status: Status,
    pub why: String,
    pub blocked: Option<Blocked>,
    /// The send waits instead of ending: a file of its provider's cannot be used now; somebody may be writing or
    /// mending it.
    pub is_for_now: bool,
}

impl QueuedDecision {
    pub fn new(request: QueuedPayload, go: Result<Proceed, Stop>, decided_at: Timestamp) -> Self {
        let mut state = request.stored.state;
        if let Err(end) = &go {
            state.status = end.status;
        }
        Self {
            id: request.stored.id,
            turn: DueSend {
                provider: request.route_id.unwrap_or(request.stored.provider_id),
                role: request.role_id,
                id: request.stored.id,
                created_at: request.stored.created_at,
            },
            places: None,
            asked: request.provider,
            asked_id: request.stored.provider_id,
            moved_to: None,
            role_id: request.role_id,
            attempt: Uuid::now_v7(),
            cohort: request.stored.cohort,
            decided_at,
            state,
            payload: request.sealed,
            recipient_key: None,
            account: Vec::new(),
            passed_over: Vec::new(),
            go,
        }
    }

    /// Asks the provider's rules; a send that they refuse ends, or waits for the breaker or the end of a pause.
    pub fn rule(&mut self, writer: &mut StoreTransaction, limit_check: &mut LimitCheck) -> Result<(), Failure> {
        let Ok(go) = &mut self.go else { return Ok(()) };
        self.passed_over = limit_check.skip_closed(&mut go.job, self.id, self.cohort);
        self.attempt = go.job.attempt;
        self.asked.clone_from(&go.job.provider);
        self.asked_id = go.job.provider_id;
        let has_route = go.job.action.send().is_some_and(|send| send.route.is_some());
        self.moved_to = has_route.then(|| go.job.moved_to());
        // A send to a test number counts for nobody.
        self.recipient_key = go.job.recipient_key().filter(|_| !go.job.is_test()).map(<[u8]>::to_vec);
        self.account = go.job.account_key().to_vec();
        match limit_check.check(writer, &go.job)? {
            Verdict::Goes { observed, breaker_permit, range_pass, checks_left } => {
                (go.observed, go.breaker_permit, go.checks_left) = (observed, breaker_permit, checks_left);
                go.range_pass = range_pass;
            }
            Verdict::Blocked { blocked, .. } => {
                self.state = Verification {
                    send_count: self.state.send_count.saturating_sub(1),
                    status: Status::Blocked,
                    ..self.state.clone()
                };
                self.go = Err(Stop {
                    outcome: Outcome::Blocked,
                    status: Status::Blocked,
                    why: explain(blocked.reason).to_owned(),
                    blocked: Some(blocked),
                    is_for_now: false,
                });
            }
        }
        Ok(())
    }

    pub fn waits(&self) -> bool {
        let waits_for = [BlockReason::Breaker, BlockReason::Paused];
        let waits = |stop: &Stop| stop.is_for_now || stop.blocked.is_some_and(|by| waits_for.contains(&by.reason));
        self.go.as_ref().is_err_and(waits)
    }
}

impl Stop {
    pub fn failed(outcome: Outcome, why: impl Into<String>) -> Self {
        let why = format!("{}; nothing was sent", why.into());
        Self { outcome, status: Status::Failed, why, blocked: None, is_for_now: false }
    }
}

/// What a provider or route stands for, and the role for which it was looked up.
pub type Entitled = (Rc<Candidates>, pg_sys::Oid);

/// What it takes to decide about many queued sends.
pub struct QueuedJobs<'k> {
    pub keys: Result<&'k Keys, &'k Error>,
    /// The cluster that the payloads are sealed for.
    pub home: u64,
    pub candidates: HashMap<(Identity, Identity), Result<Entitled, Stop>>,
    pub now: Timestamp,
}

impl QueuedJobs<'_> {
    pub fn decide(&mut self, request: QueuedPayload) -> QueuedDecision {
        let attempt = Uuid::now_v7();
        let mut places = None;
        let go = self.job(&request, attempt, &mut places);
        let mut decision = QueuedDecision { attempt, places, ..QueuedDecision::new(request, go, self.now) };
        if let Ok(go) = &decision.go {
            // Nothing stands in the way of a send that is still queued.
            if let Err(outcome) = admit(Operation::Send, &mut decision.state, self.now) {
                decision.go = Err(Stop::failed(outcome, "it was no longer queued"));
                return decision;
            }
            decision.state.status = Status::Sending;
            decision.state.reference.clone_from(&go.job.reference);
            decision.state.expires_at = go.job.code_lifetime.map(|lifetime| self.now + lifetime);
        }
        decision
    }

    pub fn job(&mut self, request: &QueuedPayload, attempt: Uuid, places: &mut Option<u32>) -> Result<Proceed, Stop> {
        let max_age = gucs::queue_max_age();
        if request.stored.created_at + max_age <= self.now {
            return Err(Stop {
                outcome: Outcome::Expired,
                status: Status::Expired,
                why: "it was queued for longer than otp_gateway.queue_max_age; nothing was sent".to_owned(),
                blocked: None,
                is_for_now: false,
            });
        }
        let keys = self.keys.map_err(|error| Stop::failed(Outcome::AuthFailed, error.message()))?;
        // First: a copied database has not the credentials of the original either, but they are not what is wrong.
        let payload = keys.open(&Place::Queued(request.stored.id, self.home), &request.sealed).map_err(|_| {
            let why = "the payload was sealed under another key, or for another database, of which this is a copy";
            Stop::failed(Outcome::InvalidRequest, why)
        })?;
        let (candidates, role) = self.candidates(request)?;
        *places = candidates.members.first().map(|first| first.options.max_in_flight);
        let wanted = JobSpec {
            operation: Operation::Send,
            attempt,
            verification: request.stored.id,
            recorded: None,
            role: role.to_u32(),
            created_by: &request.created_by,
            code: None,
            payload: &payload,
            idempotency: None,
        };
        let mut job = wanted
            .send(&candidates, keys)
            .map_err(|error| Stop::failed(Outcome::InvalidRequest, error.message_for_the_record()))?;
        job.derive_keys(keys);
        let range_pass = RangePass::default();
        Ok(Proceed { job: Box::new(job), observed: None, breaker_permit: None, range_pass, checks_left: None })
    }

    /// Returns the provider, or the route, as it is now for the role that enqueued.
    pub fn candidates(&mut self, request: &QueuedPayload) -> Result<Entitled, Stop> {
        let server = request.route_id.unwrap_or(request.stored.provider_id);
        let (candidates, role) = match self.candidates.entry((server, request.role_id)) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(place) => place.insert(find(server, &request.provider, request.role_id)).clone(),
        }?;
        let is_same_vendor = |member: &Provider| member.dialect.name == request.vendor;
        if request.route_id.is_none() && !candidates.members.iter().all(is_same_vendor) {
            let why = format!("provider \"{}\" now belongs to another vendor", request.provider);
            return Err(Stop::failed(Outcome::AuthFailed, why));
        }
        Ok((candidates, role))
    }
}

pub fn find(server: Identity, name: &str, role: Identity) -> Result<Entitled, Stop> {
    let refused = |why: String| Stop::failed(Outcome::AuthFailed, why);
    let object = |id| object_of(id).map_err(|error| refused(error.message().to_owned()));
    let exists = |role: &pg_sys::Oid| name_of(*role).is_some();
    let role = object(role)?
        .filter(exists)
        .ok_or_else(|| refused("the role that enqueued it does not exist any more".to_owned()))?;
    let server = object(server)?
        .and_then(foreign_servers::server_of)
        .ok_or_else(|| refused(format!("provider \"{name}\" does not exist any more")))?;
    let candidates = Candidates::of(server, role)
        .map_err(|error| Stop { is_for_now: error.is_of_state(), ..refused(error.message().to_owned()) })?;
    Ok((Rc::new(candidates), role))
}

pub fn write(writer: &mut StoreTransaction, decisions: &mut [QueuedDecision]) -> Result<(), Failure> {
    let mut changes = Vec::new();
    let mut attempts = Vec::new();
    let mut references = Vec::new();
    for decision in decisions {
        let sealed = decision.go.as_ref().ok().and_then(|go| go.job.sealed.clone());
        let moved_to = decision.moved_to.clone();
        attempts.append(&mut decision.passed_over);
        changes.push(VerificationUpdate {
            id: decision.id,
            before: Status::Queued,
            moved_to,
            state: decision.state.clone(),
            sealed,
        });
        attempts.push(NewAttempt {
            id: decision.attempt,
            verification: decision.id,
            operation: Operation::Send,
            refused: decision.go.as_ref().err().map(|end| end.outcome),
            why: decision.go.as_ref().err().map(|end| end.why.clone()),
            provider_id: decision.asked_id,
            role_id: decision.role_id,
            account: decision.account.clone(),
            recipient_key: decision.recipient_key.clone(),
            reason: match &decision.go {
                Ok(go) => go.observed,
                Err(end) => end.blocked.map(|blocked| blocked.reason),
            },
            retry_at: decision.go.as_ref().err().and_then(|end| end.blocked?.retry_at(decision.decided_at)),
            started_at: decision.decided_at,
            cohort: decision.cohort,
        });
        if let Ok(go) = &decision.go {
            references.extend(new_reference(&go.job, &decision.state, decision.id));
        }
    }
    writer.update_verifications(&changes)?;
    writer.insert_references(&references);
    writer.insert_attempts(&attempts);
    Ok(())
}
