//! One transaction: which jobs may go, by the record and the limits, and their intents put on record.

use std::collections::{HashMap, HashSet};

use dialect::{Operation, Outcome};
use policy::{BlockReason, Blocked, BreakerPermit, Micros, Status, Verification, admit};
use uuid::Uuid;

use crate::{
    api::idempotency,
    ipc::{message::Request, worker::CallId},
    job::{Job, Target},
    store::{
        StoreTransaction,
        rows::{NewAttempt, NewReference, NewVerification, StoredVerification, VerificationUpdate, WhichSend},
        transaction::Failure,
    },
    worker::{
        flow_lookup::{FlowName, Flows, name},
        limit_check::{LimitCheck, NO_CODE, Verdict, explain},
    },
};

/// What became of a job when its turn came.
pub enum Decision {
    /// It goes; `observed`: the rule that would have refused it, if the provider enforced its rules.
    Goes {
        verification: Uuid,
        before: Status,
        state: Verification,
        created_at: Micros,
        observed: Option<BlockReason>,
        breaker_permit: Option<BreakerPermit>,
        checks_left: Option<u32>,
    },
    /// It ends without a call: from the record, by a rule, or because there is no code to check.
    Ends {
        verification: Uuid,
        before: Status,
        state: Verification,
        outcome: Outcome,
        blocked: Option<Blocked>,
        /// From the record: what refused its send, then.
        earlier: Option<Blocked>,
        why: Option<String>,
        checks_left: Option<u32>,
    },
    /// It waits for the call that is under way for this verification.
    Waits { verification: Uuid },
    /// There is no such verification.
    Missing,
    /// The session read the record before it changed.
    Outdated,
    /// It names somebody else than the flow on record does.
    OfAnother,
}

impl Decision {
    /// The verification on record that it changes.
    pub fn on_record(&self, job: &Job) -> Option<Uuid> {
        match self {
            Self::Goes { verification, .. } | Self::Ends { verification, .. } if !begins(job, *verification) => {
                Some(*verification)
            }
            _ => None,
        }
    }
}

/// One transaction's worth of jobs.
pub struct Batch<'a, 'w, 'conn> {
    pub writer: &'a mut StoreTransaction<'w, 'conn>,
    pub busy: &'a HashMap<Uuid, std::collections::VecDeque<(CallId, Request)>>,
    /// What is found may have something in flight that a worker before this one left: that is settled first.
    pub may_be_left: bool,
    pub now: Micros,
    pub flows: Flows,
    pub limit_check: LimitCheck<'a>,
    /// Attempts at providers of routes whose breaker is open.
    pub passed_over: Vec<NewAttempt>,
    /// The idempotency keys of this batch.
    pub keys: HashSet<Vec<u8>>,
    /// What this batch itself begins, by what a later job of it may name it: provider, reference or recipient.
    pub begun: HashMap<FlowName, Uuid>,
}

impl<'a, 'w, 'conn> Batch<'a, 'w, 'conn> {
    pub fn new(
        writer: &'a mut StoreTransaction<'w, 'conn>,
        busy: &'a HashMap<Uuid, std::collections::VecDeque<(CallId, Request)>>,
        may_be_left: bool,
        now: Micros,
        flows: Flows,
        limit_check: LimitCheck<'a>,
    ) -> Self {
        let (passed_over, keys, begun) = (Vec::new(), HashSet::new(), HashMap::new());
        Self { writer, busy, may_be_left, now, flows, limit_check, passed_over, keys, begun }
    }

    pub fn take(&mut self, job: &mut Job) -> Result<Decision, Failure> {
        if let Target::New(id) | Target::Failover(id) = job.target {
            let passed_over = self.limit_check.skip_open_breakers(job, id);
            self.passed_over.extend(passed_over);
        }
        let job = &*job;
        if self.flows.of_another.contains(&job.attempt) {
            return Ok(Decision::OfAnother);
        }
        match job.target {
            Target::Failover(id) => match self.flows.known.remove(&id) {
                Some(stored) => {
                    let mut state = stored.state;
                    let refused = Verification { status: Status::Blocked, ..state.clone() };
                    state.send_count += 1;
                    state.reference.clone_from(&job.reference);
                    state.expires_at = self.end_of(job);
                    self.rule(job, id, Status::Sending, state, refused, stored.created_at)
                }
                None => Ok(Decision::Missing),
            },
            Target::New(id) => {
                if self.is_keyed_already(job)? {
                    return Ok(Decision::Outdated);
                }
                let mut state = Verification::sending(job.max_checks);
                state.reference.clone_from(&job.reference);
                state.expires_at = self.end_of(job);
                self.rule(job, id, Status::Sending, state, Verification::refused(job.max_checks), self.now)
            }
            Target::Existing(id) => match self.flows.known.remove(&id) {
                Some(stored) => self.admit(job, stored),
                None => Ok(Decision::Missing),
            },
            Target::Lookup(by, new) => {
                if let Some(stored) = self.flows.found.remove(&job.attempt) {
                    if self.may_be_left
                        || self.busy.contains_key(&stored.id)
                        || self.begun.values().any(|id| *id == stored.id)
                    {
                        return Ok(Decision::Waits { verification: stored.id });
                    }
                    // Marks it for the rest of this batch.
                    self.begun.insert(name(by, job), stored.id);
                    return self.admit(job, stored);
                }
                if let Some(id) = self.begun.get(&name(by, job)) {
                    return Ok(Decision::Waits { verification: *id });
                }
                self.begun.insert(name(by, job), new);
                let mut state = Verification::begun_elsewhere(job.max_checks);
                state.reference.clone_from(&job.reference);
                // Its code was sent before now, so that it cannot live longer than this.
                state.expires_at = self.end_of(job);
                if job.is_no_code {
                    return Ok(self.no_code(job, new, Status::Pending, state));
                }
                let unchecked = state.clone();
                state.check_count = 1;
                self.rule(job, new, Status::Pending, state, unchecked, self.now)
            }
        }
    }

    /// The session looked, but a call of another one, since cancelled, may have been on its way here.
    pub fn is_keyed_already(&mut self, job: &Job) -> Result<bool, Failure> {
        let Some(idempotency) = &job.idempotency else { return Ok(false) };
        let is_new = self.keys.insert(idempotency.keys.first().cloned().unwrap_or_default());
        Ok(!is_new || self.writer.has_key(&idempotency.keys, idempotency::since(), job.role_id)?)
    }

    pub fn end_of(&self, job: &Job) -> Option<Micros> {
        job.code_lifetime.map(|lifetime| self.now.saturating_add(lifetime))
    }

    /// Lets it go with `state`, or blocks it and leaves the verification at `refused`.
    pub fn rule(
        &mut self,
        job: &Job,
        verification: Uuid,
        before: Status,
        state: Verification,
        refused: Verification,
        created_at: Micros,
    ) -> Result<Decision, Failure> {
        Ok(match self.limit_check.check(self.writer, job)? {
            Verdict::Goes { observed, breaker_permit, checks_left } => {
                Decision::Goes { verification, before, state, created_at, observed, breaker_permit, checks_left }
            }
            Verdict::Blocked { blocked, checks_left } => Decision::Ends {
                verification,
                before,
                state: refused,
                outcome: Outcome::Blocked,
                blocked: Some(blocked),
                earlier: None,
                why: Some(explain(blocked.reason).to_owned()),
                checks_left,
            },
        })
    }

    /// An empty code says nothing, to nobody: it is on record, and counts for nothing.
    pub fn no_code(&self, job: &Job, verification: Uuid, before: Status, state: Verification) -> Decision {
        Decision::Ends {
            verification,
            before,
            state,
            outcome: Outcome::InvalidCode,
            blocked: None,
            earlier: None,
            why: Some(NO_CODE.to_owned()),
            checks_left: self.limit_check.checks_left(job),
        }
    }

    pub fn admit(&mut self, job: &Job, stored: StoredVerification) -> Result<Decision, Failure> {
        // Another code has been sent since: the old one's message would be about that, or end it.
        let is_other = |(reference, sends): &(Option<String>, u32)| {
            *reference != stored.state.reference || *sends != stored.state.send_count
        };
        if job.prepared_with.as_ref().is_some_and(is_other) {
            return Ok(Decision::Outdated);
        }
        let StoredVerification { id, mut state, created_at, .. } = stored;
        let before = state.status;
        let unchanged = state.clone();
        match admit(job.operation, &mut state, self.now) {
            Err(outcome) => {
                let why = what_to_do(job.operation, before, state.status);
                let send = if before == Status::Blocked { self.writer.send_of(id, WhichSend::Latest)? } else { None };
                let earlier = send.and_then(|send| {
                    let retry_after = send.retry_at.map(|at| at.saturating_sub(self.now).max(0));
                    Some(Blocked { reason: send.reason?, retry_after })
                });
                let (blocked, checks_left) = (None, None);
                Ok(Decision::Ends { verification: id, before, state, outcome, blocked, earlier, why, checks_left })
            }
            Ok(()) if job.is_no_code => Ok(self.no_code(job, id, before, unchanged)),
            Ok(()) if job.vendor_call.is_none() && job.local_outcome.is_none() => Ok(Decision::Outdated),
            Ok(()) => {
                if job.operation == Operation::Resend {
                    state.status = Status::Sending;
                }
                self.rule(job, id, before, state, unchanged, created_at)
            }
        }
    }

    pub fn write(&mut self, jobs: &[(CallId, Box<Job>)], decisions: &[Decision]) -> Result<(), Failure> {
        let mut verifications = Vec::new();
        let mut changes = Vec::new();
        let mut attempts = Vec::new();
        let mut references = Vec::new();
        for ((_, job), decision) in jobs.iter().zip(decisions) {
            let (verification, refused, reason, why, retry_at) = match decision {
                Decision::Goes { verification, observed, .. } => (*verification, None, *observed, &None, None),
                Decision::Ends { verification, outcome, blocked, earlier, why, .. } => {
                    let by = blocked.or(*earlier);
                    let retry_at = by.and_then(|by| by.retry_at(self.now));
                    (*verification, Some(*outcome), by.map(|by| by.reason), why, retry_at)
                }
                Decision::Waits { .. } | Decision::Missing | Decision::Outdated | Decision::OfAnother => continue,
            };
            attempts.push(NewAttempt {
                id: job.attempt,
                verification,
                operation: job.operation,
                refused,
                why: why.clone(),
                provider: job.provider.clone(),
                provider_id: job.provider_id,
                role_id: job.role_id,
                account: job.account_key().to_vec(),
                // A test number's counts for nobody, nor does what the record answered.
                recipient_key: job
                    .counted_key()
                    .filter(|_| !job.is_test && !matches!(decision, Decision::Ends { blocked: None, .. }))
                    .map(<[u8]>::to_vec),
                reason,
                retry_at,
                started_at: self.now,
            });
            match decision {
                Decision::Goes { state, .. } | Decision::Ends { state, .. } if begins(job, verification) => {
                    references.extend(new_reference(job, state, verification));
                    verifications.push(NewVerification {
                        id: verification,
                        provider: job.provider.clone(),
                        provider_id: job.provider_id,
                        vendor: job.vendor.clone(),
                        created_by: job.created_by.clone(),
                        role_id: job.role_id,
                        created_at: self.now,
                        recipient_masked: job.recipient_masked.clone(),
                        recipient_key: job.recipient_key().map(<[u8]>::to_vec),
                        sealed: job.sealed.clone().filter(|_| !state.status.is_terminal()),
                        state: state.clone(),
                        idempotency: job.idempotency.clone(),
                        is_test: job.is_test,
                        route: job.route.as_ref().map(|(name, _)| name.clone()).zip(job.route_id),
                    });
                }
                Decision::Goes { before, state, .. } | Decision::Ends { before, state, .. } => {
                    let mut change = VerificationUpdate {
                        id: verification,
                        before: *before,
                        moved_to: None,
                        state: state.clone(),
                        sealed: None,
                    };
                    if let Target::Failover(_) = job.target {
                        change.moved_to = Some(job.moved_to());
                        change.sealed.clone_from(&job.sealed);
                        references.extend(new_reference(job, state, verification));
                    }
                    changes.push(change);
                }
                Decision::Waits { .. } | Decision::Missing | Decision::Outdated | Decision::OfAnother => {}
            }
        }
        attempts.append(&mut self.passed_over);
        self.writer.insert_verifications(&verifications)?;
        self.writer.update_verifications(&changes)?;
        self.writer.insert_references(&references)?;
        self.writer.insert_attempts(&attempts)
    }
}

/// The reference that a verification goes by at the job's provider, if it has one.
pub fn new_reference<'a>(job: &'a Job, state: &'a Verification, verification: Uuid) -> Option<NewReference<'a>> {
    let reference = state.reference.as_deref()?;
    Some(NewReference { provider: &job.provider, provider_id: job.provider_id, reference, verification })
}

/// Whether the job begins this verification, rather than belonging to one on record.
pub fn begins(job: &Job, verification: Uuid) -> bool {
    match job.target {
        Target::New(_) => true,
        Target::Lookup(_, new) => new == verification,
        Target::Existing(_) | Target::Failover(_) => false,
    }
}

/// What the caller and the record are told of an operation that ends because of what the verification is.
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
