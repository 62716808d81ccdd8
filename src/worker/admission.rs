//! One transaction that decides which jobs may go, by the record and the limits, and puts their intents on record.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use dialect::{FindBy, Operation, Outcome};
use policy::{BlockReason, Blocked, BreakerPermit, Status, Timestamp, Verification, admit};
use uuid::Uuid;

use crate::{
    api::idempotency,
    ipc::{message::Request, worker::CallId},
    job::{Action, Answer, Flow, Job, OwnAnswer, Send},
    store::{
        StoreTransaction,
        counted::Cohort,
        rows::{NewAttempt, NewReference, NewVerification, StoredVerification, VerificationUpdate, WhichSend},
        transaction::Failure,
    },
    worker::{
        flow_lookup::{FlowName, Flows},
        limit_check::{LimitCheck, NO_CODE, Verdict, explain},
        state::range_state::RangePass,
    },
};

/// The decision about a job whose turn it is.
pub enum Decision {
    Goes(Admitted),
    Ends(Ended),
    /// The job waits for the call that is under way for this verification.
    Waits {
        verification: Uuid,
    },
    /// There is no such verification.
    Missing,
    /// The session read the record before it changed.
    Outdated,
    /// The job names another recipient than the flow on record.
    OfAnother,
}

/// A job that record and rules let go.
pub struct Admitted {
    pub verification: Uuid,
    pub before: Status,
    pub state: Verification,
    pub cohort: Cohort,
    /// When the intent was put on record.
    pub started_at: Timestamp,
    /// The rule that would have refused the job, if the provider enforced its rules.
    pub observed: Option<BlockReason>,
    pub breaker_permit: Option<BreakerPermit>,
    pub range_pass: RangePass,
    pub checks_left: Option<u32>,
}

/// A job that ends without a call: by the record, by a rule, or because there is no code to check.
pub struct Ended {
    pub verification: Uuid,
    pub before: Status,
    pub state: Verification,
    pub outcome: Outcome,
    pub blocked: Option<Blocked>,
    /// From the record: what refused the flow's latest send.
    pub earlier: Option<Blocked>,
    pub why: Option<String>,
    pub checks_left: Option<u32>,
    pub cohort: Cohort,
}

impl Decision {
    /// Returns the verification that the decision changes, with its status before and its state from now on.
    fn change(&self) -> Option<(Uuid, Status, &Verification)> {
        match self {
            Self::Goes(Admitted { verification, before, state, .. })
            | Self::Ends(Ended { verification, before, state, .. }) => Some((*verification, *before, state)),
            Self::Waits { .. } | Self::Missing | Self::Outdated | Self::OfAnother => None,
        }
    }

    /// Returns the verification on record that the decision changes; None if there is none.
    pub fn on_record(&self, job: &Job) -> Option<Uuid> {
        self.change().map(|(verification, ..)| verification).filter(|verification| !job.action.begins(*verification))
    }

    /// Returns the attempt, as it is put on record with the decision.
    fn attempt(&self, job: &Job, now: Timestamp) -> Option<NewAttempt> {
        Some(match self {
            Self::Goes(Admitted { verification, observed, cohort, .. }) => {
                NewAttempt { reason: *observed, ..job.intent(*verification, *cohort, now) }
            }
            Self::Ends(Ended { verification, outcome, blocked, earlier, why, cohort, .. }) => {
                let by = blocked.or(*earlier);
                let intent = job.intent(*verification, *cohort, now);
                NewAttempt {
                    refused: Some(*outcome),
                    why: why.clone(),
                    reason: by.map(|by| by.reason),
                    retry_at: by.and_then(|by| by.retry_at(now)),
                    // An attempt that the record answered counts for nobody.
                    recipient_key: intent.recipient_key.filter(|_| blocked.is_some()),
                    ..intent
                }
            }
            Self::Waits { .. } | Self::Missing | Self::Outdated | Self::OfAnother => return None,
        })
    }
}

/// One transaction's worth of jobs.
pub struct Batch<'a, 'w, 'conn> {
    pub writer: &'a mut StoreTransaction<'w, 'conn>,
    pub busy: &'a HashMap<Uuid, std::collections::VecDeque<(CallId, Request)>>,
    /// Whether a flow that is found may have attempts in flight that an earlier worker left: those are settled first.
    pub may_be_left: bool,
    pub now: Timestamp,
    pub flows: Flows,
    pub limit_check: LimitCheck<'a>,
    /// The attempts at providers of routes that are paused or have an open breaker.
    pub passed_over: Vec<NewAttempt>,
    /// The idempotency keys of this batch.
    pub keys: HashSet<Vec<u8>>,
    /// The flows that this batch itself begins or changes, by the name that a later job of the batch may use.
    pub begun: HashMap<FlowName, Uuid>,
}

impl<'a, 'w, 'conn> Batch<'a, 'w, 'conn> {
    pub fn new(
        writer: &'a mut StoreTransaction<'w, 'conn>,
        busy: &'a HashMap<Uuid, std::collections::VecDeque<(CallId, Request)>>,
        may_be_left: bool,
        now: Timestamp,
        flows: Flows,
        limit_check: LimitCheck<'a>,
    ) -> Self {
        let (passed_over, keys, begun) = (Vec::new(), HashSet::new(), HashMap::new());
        Self { writer, busy, may_be_left, now, flows, limit_check, passed_over, keys, begun }
    }

    pub fn take(&mut self, job: &mut Job) -> Result<Decision, Failure> {
        if let Action::Send(send) = &job.action {
            let verification = send.verification;
            let stored = self.flows.known.get(&verification);
            let cohort = stored.map_or_else(|| job.cohort(self.now), |stored| stored.cohort);
            let passed_over = self.limit_check.skip_closed(job, verification, cohort);
            self.passed_over.extend(passed_over);
        }
        let job = &*job;
        if self.flows.of_another.contains(&job.attempt) {
            return Ok(Decision::OfAnother);
        }
        match &job.action {
            Action::Send(send) if send.is_failover => self.go_on(job, send.verification),
            Action::Send(send) => self.begin(job, send),
            Action::Verify(Flow::Lookup { by, new }) => self.look_up(job, *by, *new),
            Action::Verify(Flow::Recorded(_) | Flow::Found { .. }) | Action::Resend { .. } | Action::Cancel(_) => {
                match self.flows.known.remove(&job.action.verification()) {
                    Some(stored) => self.admit(job, stored),
                    None => Ok(Decision::Missing),
                }
            }
        }
    }

    /// Decides about a send that begins a verification.
    fn begin(&mut self, job: &Job, send: &Send) -> Result<Decision, Failure> {
        if self.is_keyed_already(job, send)? {
            return Ok(Decision::Outdated);
        }
        let mut state = Verification::sending(job.max_checks);
        state.reference.clone_from(&job.reference);
        state.expires_at = self.end_of(job);
        let refused = Verification::refused(job.max_checks);
        self.rule(job, send.verification, Status::Sending, state, refused, job.cohort(self.now))
    }

    /// Decides about a send that goes on to the next provider of its route.
    fn go_on(&mut self, job: &Job, verification: Uuid) -> Result<Decision, Failure> {
        let Some(stored) = self.flows.known.remove(&verification) else { return Ok(Decision::Missing) };
        let mut state = stored.state;
        let refused = Verification { status: Status::Blocked, ..state.clone() };
        state.send_count += 1;
        state.reference.clone_from(&job.reference);
        state.expires_at = self.end_of(job);
        self.rule(job, verification, Status::Sending, state, refused, stored.cohort)
    }

    /// Decides about a verify that names its flow by reference or recipient; if none is on record, it begins one of
    /// this id.
    fn look_up(&mut self, job: &Job, by: FindBy, new: Uuid) -> Result<Decision, Failure> {
        if let Some(stored) = self.flows.found.remove(&job.attempt) {
            let is_busy = self.busy.contains_key(&stored.id) || self.begun.values().any(|id| *id == stored.id);
            if self.may_be_left || is_busy {
                return Ok(Decision::Waits { verification: stored.id });
            }
            // Marks the flow for the rest of this batch.
            self.begun.insert(FlowName::of(by, job), stored.id);
            return self.admit(job, stored);
        }
        match self.begun.entry(FlowName::of(by, job)) {
            Entry::Occupied(begun) => return Ok(Decision::Waits { verification: *begun.get() }),
            Entry::Vacant(begun) => drop(begun.insert(new)),
        }
        let mut state = Verification::begun_elsewhere(job.max_checks);
        state.reference.clone_from(&job.reference);
        // The code was sent before now, so that it cannot live longer than this.
        state.expires_at = self.end_of(job);
        if job.answer.own() == Some(OwnAnswer::NoCode) {
            return Ok(self.no_code(job, new, Status::Pending, state, job.cohort(self.now)));
        }
        let unchecked = state.clone();
        state.check_count = 1;
        self.rule(job, new, Status::Pending, state, unchecked, job.cohort(self.now))
    }

    /// Returns whether the send's idempotency key is taken. The session has looked; but the call of another session,
    /// since cancelled, may have been on its way here.
    pub fn is_keyed_already(&mut self, job: &Job, send: &Send) -> Result<bool, Failure> {
        let Some(idempotency) = &send.idempotency else { return Ok(false) };
        let is_new = self.keys.insert(idempotency.keys.first().cloned().unwrap_or_default());
        Ok(!is_new || self.writer.has_key(&idempotency.keys, idempotency::since(), job.role_id)?)
    }

    pub fn end_of(&self, job: &Job) -> Option<Timestamp> {
        job.code_lifetime.map(|lifetime| self.now + lifetime)
    }

    /// Lets the job go with `state`, or blocks it and leaves the verification at `refused`.
    pub fn rule(
        &mut self,
        job: &Job,
        verification: Uuid,
        before: Status,
        state: Verification,
        refused: Verification,
        cohort: Cohort,
    ) -> Result<Decision, Failure> {
        Ok(match self.limit_check.check(self.writer, job)? {
            Verdict::Goes { observed, breaker_permit, range_pass, checks_left } => {
                let started_at = self.now;
                Decision::Goes(Admitted {
                    verification,
                    before,
                    state,
                    cohort,
                    started_at,
                    observed,
                    breaker_permit,
                    range_pass,
                    checks_left,
                })
            }
            Verdict::Blocked { blocked, checks_left } => Decision::Ends(Ended {
                verification,
                before,
                state: refused,
                outcome: Outcome::Blocked,
                blocked: Some(blocked),
                earlier: None,
                why: Some(explain(blocked.reason).to_owned()),
                checks_left,
                cohort,
            }),
        })
    }

    /// Ends a job without a code to check: the attempt is on record, and counts for nothing.
    pub fn no_code(
        &self,
        job: &Job,
        verification: Uuid,
        before: Status,
        state: Verification,
        cohort: Cohort,
    ) -> Decision {
        Decision::Ends(Ended {
            verification,
            before,
            state,
            outcome: Outcome::InvalidCode,
            blocked: None,
            earlier: None,
            why: Some(NO_CODE.to_owned()),
            checks_left: self.limit_check.checks_left(job),
            cohort,
        })
    }

    pub fn admit(&mut self, job: &Job, stored: StoredVerification) -> Result<Decision, Failure> {
        // Another code has been sent since the request was prepared: the request was not meant for that code, and might
        // end it.
        let is_other = |(reference, sends): &(Option<String>, u32)| {
            *reference != stored.state.reference || *sends != stored.state.send_count
        };
        if job.action.prepared_with().is_some_and(is_other) {
            return Ok(Decision::Outdated);
        }
        let StoredVerification { id, mut state, cohort, .. } = stored;
        let before = state.status;
        let unchanged = state.clone();
        match admit(job.operation(), &mut state, self.now) {
            Err(outcome) => {
                let why = what_to_do(job.operation(), before, state.status);
                let send = if before == Status::Blocked { self.writer.send_of(id, WhichSend::Latest)? } else { None };
                let earlier = send.and_then(|send| {
                    let retry_after = send.retry_at.map(|at| at.since(self.now).max(0));
                    Some(Blocked { reason: send.reason?, retry_after })
                });
                let (blocked, checks_left) = (None, None);
                Ok(Decision::Ends(Ended {
                    verification: id,
                    before,
                    state,
                    outcome,
                    blocked,
                    earlier,
                    why,
                    checks_left,
                    cohort,
                }))
            }
            Ok(()) if job.answer.own() == Some(OwnAnswer::NoCode) => {
                Ok(self.no_code(job, id, before, unchanged, cohort))
            }
            Ok(()) if matches!(job.answer, Answer::Record) => Ok(Decision::Outdated),
            Ok(()) => {
                if job.operation() == Operation::Resend {
                    state.status = Status::Sending;
                }
                self.rule(job, id, before, state, unchanged, cohort)
            }
        }
    }

    pub fn write(&mut self, jobs: &[(CallId, Box<Job>)], decisions: &[Decision]) -> Result<(), Failure> {
        let decided = || jobs.iter().map(|(_, job)| &**job).zip(decisions);
        let changes = || decided().filter_map(|(job, decision)| Some((job, decision.change()?)));
        let begins = |(job, (id, ..)): &(&Job, (Uuid, Status, &Verification))| job.action.begins(*id);
        let begun: Vec<NewVerification> =
            changes().filter(begins).map(|(job, (id, _, state))| new_verification(job, id, state, self.now)).collect();
        let known: Vec<VerificationUpdate> = changes()
            .filter(|change| !begins(change))
            .map(|(job, (id, before, state))| update(job, id, before, state))
            .collect();
        let references: Vec<NewReference> = changes()
            .filter(|change| begins(change) || change.0.action.is_failover())
            .filter_map(|(job, (id, _, state))| new_reference(job, state, id))
            .collect();
        let mut attempts: Vec<NewAttempt> =
            decided().filter_map(|(job, decision)| decision.attempt(job, self.now)).collect();
        attempts.append(&mut self.passed_over);
        self.writer.insert_verifications(&begun)?;
        self.writer.update_verifications(&known)?;
        self.writer.insert_references(&references);
        self.writer.insert_attempts(&attempts);
        Ok(())
    }
}

/// Returns the row of a verification that a job begins.
fn new_verification(job: &Job, id: Uuid, state: &Verification, now: Timestamp) -> NewVerification {
    let send = job.action.send();
    NewVerification {
        id,
        provider: job.provider.clone(),
        provider_id: job.provider_id,
        vendor: job.vendor.clone(),
        role_id: job.role_id,
        created_at: now,
        recipient_masked: job.recipient_masked.clone(),
        recipient_key: job.recipient_key().map(<[u8]>::to_vec),
        sealed: job.sealed.clone().filter(|_| !state.status.is_terminal()),
        state: state.clone(),
        idempotency: send.and_then(|send| send.idempotency.clone()),
        is_test: job.is_test(),
        route: send.and_then(|send| send.route.as_ref()).map(|route| (route.name.clone(), route.id)),
        country: job.country(),
    }
}

/// Returns what a job makes of a verification on record.
fn update(job: &Job, id: Uuid, before: Status, state: &Verification) -> VerificationUpdate {
    let is_failover = job.action.is_failover();
    VerificationUpdate {
        id,
        before,
        moved_to: is_failover.then(|| job.moved_to()),
        state: state.clone(),
        sealed: job.sealed.clone().filter(|_| is_failover),
    }
}

/// Returns the reference by which a verification is found at the job's provider, if it has one.
pub fn new_reference<'a>(job: &'a Job, state: &'a Verification, verification: Uuid) -> Option<NewReference<'a>> {
    let reference = state.reference.as_deref().filter(|_| finds_by_reference(&job.vendor))?;
    Some(NewReference { provider_id: job.provider_id, reference, verification })
}

/// Returns whether the vendor's verifies may be found by a reference.
pub fn finds_by_reference(vendor: &str) -> bool {
    dialect::by_name(vendor).is_none_or(|dialect| dialect.is_found_by_reference)
}

/// Returns what the caller and the record are told of an operation that ends because of what the verification is; None:
/// nothing is said.
pub fn what_to_do(operation: Operation, before: Status, status: Status) -> Option<String> {
    let nothing = match operation {
        Operation::Resend => "nothing was sent",
        Operation::Verify => "nothing was checked",
        Operation::Send | Operation::Cancel => return None,
    };
    let over = match before {
        Status::Queued if operation == Operation::Resend => {
            return Some(
                "the code is still to be sent: otp_gateway.wait tells what comes of it; nothing was sent".to_owned(),
            );
        }
        Status::Blocked => "its code was never sent".to_owned(),
        _ if status.is_terminal() => format!("the verification is over ({})", status.as_str()),
        _ => return None,
    };
    let anew =
        "have a code sent anew, with otp_send, or otp_gateway.send_again for the row of a table with the trigger";
    Some(format!("{over}; {anew}; {nothing}"))
}
