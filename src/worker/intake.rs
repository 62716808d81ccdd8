//! From requests to calls: what may go is put on record, durably and many at once, and then given to the HTTP client.

use std::collections::{HashMap, HashSet};

use dialect::{FindBy, Operation, Outcome};
use http_client::OutboundCall;
use policy::{BlockReason, Blocked, BreakerPermit, Micros, Status, Verification, admit, retryable};
use uuid::Uuid;

use crate::{
    api::idempotency,
    crypto::key_file,
    error::Error,
    ipc::{
        message::{Request, Response},
        worker::CallId,
    },
    job::{Job, Target, VendorCall},
    pg::clock::clock,
    store::{
        StoreTransaction,
        identity::Identity,
        retention::erase_at,
        rows::{NewAttempt, NewReference, NewVerification, StoredVerification, VerificationUpdate, WhichSend},
        transaction::{Durability, Failure},
    },
    worker::{
        limit_check::{LimitCheck, NO_CODE, Verdict, explain},
        state::{InFlight, Worker, done, failure_log::ATTEMPT, limit_state::BreakerKey, own_answer},
    },
};

/// What became of a job when its turn came.
pub enum Decision {
    /// It goes; `noted`: a rule that is only observed would have refused it.
    Goes {
        verification: Uuid,
        before: Status,
        state: Verification,
        created_at: Micros,
        noted: Option<BlockReason>,
        pass: Option<BreakerPermit>,
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

impl Worker {
    /// Takes every request whose turn it is.
    pub fn accept_requests(&mut self) {
        let mut jobs = Vec::new();
        let requests = std::mem::take(&mut self.pending);
        self.settle_first(requests.iter().filter_map(|(_, request)| match request {
            Request::AwaitIdle(id) | Request::AwaitSend(id, _) => Some(*id),
            Request::Run(job) => match job.target {
                Target::Existing(id) => Some(id),
                Target::New(_) | Target::Lookup(..) | Target::Failover(_) => None,
            },
            Request::Maintain(_) | Request::Identify(_) => None,
        }));
        for (call_id, request) in requests {
            let subject = match &request {
                Request::AwaitIdle(id) => Some(*id),
                // They wait in a place of their own.
                Request::AwaitSend(..) | Request::Maintain(_) | Request::Identify(_) => None,
                Request::Run(job) => match job.target {
                    Target::Existing(id) => Some(id),
                    // What goes on to another provider is what the verification is busy with.
                    Target::New(_) | Target::Lookup(..) | Target::Failover(_) => None,
                },
            };
            if let Some(waiting) = subject.and_then(|id| self.busy.get_mut(&id)) {
                waiting.push_back((call_id, request));
                continue;
            }
            match request {
                Request::AwaitIdle(_) => self.respond(call_id, &Response::Idle),
                Request::AwaitSend(id, which) => self.follow(call_id, id, which),
                Request::Maintain(upkeep) => self.maintain(call_id, upkeep),
                Request::Identify(subject) => self.identify(call_id, subject),
                Request::Run(job) if !self.is_wanted(call_id, &job) => {}
                Request::Run(job) => {
                    if let Some(id) = subject {
                        self.busy.entry(id).or_default();
                    }
                    jobs.push((call_id, job));
                }
            }
        }
        if !jobs.is_empty() {
            self.record_intents(jobs);
        }
    }

    pub fn record_intents(&mut self, mut jobs: Vec<(CallId, Box<Job>)>) {
        match key_file::keys() {
            Ok(keys) => jobs.iter_mut().for_each(|(_, job)| job.derive_keys(&keys)),
            Err(error) => {
                // One that goes on to the next provider of its route was recognised when it began.
                let is_known =
                    |(_, job): &(CallId, Box<Job>)| job.recipient.is_none() || !job.recipient_keys.is_empty();
                let (known, unknown): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_known);
                unknown.into_iter().for_each(|(call_id, job)| self.refuse(call_id, &job, &error));
                if known.is_empty() {
                    return;
                }
                jobs = known;
            }
        }
        let mut needed = Vec::new();
        let may_be_left = self.may_be_left();
        let turns = self.store.write(Durability::Flushed, |writer| {
            let now = clock();
            jobs.iter_mut().try_for_each(|(_, job)| self.identities.fill(writer, job))?;
            let flows = Flows::read(writer, &mut jobs, now)?;
            let asked = jobs.iter().flat_map(|(_, job)| job.with_fallbacks());
            let limit_check = LimitCheck::new(writer, asked, &mut self.limits, now)?;
            let mut batch = Batch::new(writer, &self.busy, may_be_left, now, flows, limit_check);
            let turns = jobs.iter_mut().map(|(_, job)| batch.take(job)).collect::<Result<Vec<_>, _>>()?;
            needed = jobs.iter().zip(&turns).map(|((_, job), turn)| turn.on_record(job)).collect();
            batch.write(&jobs, &turns)?;
            Ok(turns)
        });
        self.identities.settle(turns.is_ok());
        self.limits.settle(turns.is_ok());
        match turns {
            Ok(turns) => {
                jobs.into_iter().zip(turns).for_each(|((call_id, job), turn)| self.apply_decision(call_id, *job, turn))
            }
            Err(Failure::NotInstalled) => {
                self.extension_dropped();
                self.put_back(jobs);
            }
            Err(Failure::Busy) => match self.put_aside_orders(jobs, &needed) {
                Ok(others) if others.is_empty() => {}
                Ok(others) => self.record_intents(others),
                Err(all) => {
                    self.put_back(all);
                    self.try_again_later();
                }
            },
            // One that cannot be recorded must not take the others with it.
            Err(Failure::Error(_)) if jobs.len() > 1 => {
                jobs.drain(..).for_each(|job| self.record_intents(vec![job]));
            }
            Err(Failure::Error(why)) => {
                self.failures.raise(ATTEMPT, &why);
                let error = Error::internal(
                    "the attempt could not be put on record, so that nothing was sent",
                    "The server's log has the reason.",
                );
                jobs.into_iter().for_each(|(call_id, job)| self.refuse(call_id, &job, &error));
            }
        }
    }

    pub fn refuse(&mut self, call_id: CallId, job: &Job, error: &Error) {
        if let Target::Existing(id) | Target::Failover(id) = job.target {
            self.unblock(id);
        }
        self.respond(call_id, &Response::Error(error.clone()));
    }

    pub fn put_back(&mut self, jobs: Vec<(CallId, Box<Job>)>) {
        for (call_id, job) in jobs {
            let known = if let Target::Existing(id) = job.target { Some(id) } else { None };
            if self.may_wait_on(call_id, &job) {
                self.pending.push((call_id, Request::Run(job)));
            }
            if let Some(id) = known {
                self.unblock(id);
            }
        }
    }

    pub fn apply_decision(&mut self, call_id: CallId, mut job: Job, turn: Decision) {
        match turn {
            Decision::Goes { verification, before, state, created_at, noted, pass, checks_left } => {
                self.busy.entry(verification).or_default();
                if matches!(job.target, Target::New(_) | Target::Lookup(..)) {
                    self.expiry.add(verification, erase_at(created_at, &state));
                }
                let account = BreakerKey::of(&job);
                let number = self.next_number();
                let is_resend = job.operation == Operation::Resend;
                let fallbacks = job.next_fallback().map(Box::new);
                self.in_flight.insert(
                    number,
                    InFlight {
                        call_id,
                        attempt: job.attempt,
                        verification,
                        operation: job.operation,
                        provider: job.provider,
                        provider_id: job.provider_id,
                        before,
                        state,
                        code_lifetime: job.code_lifetime,
                        keeps_code: job.keeps_code,
                        created_at,
                        sealed: job.sealed.filter(|_| is_resend),
                        reference: job.reference.filter(|_| is_resend),
                        requeue: job.queued,
                        fallback: fallbacks,
                        account,
                        breaker_permit: pass,
                        checks_left,
                        observed: noted,
                    },
                );
                self.start_call(number, job.operation, &job.vendor, job.local_outcome, job.vendor_call);
            }
            Decision::Ends { verification, state, outcome, blocked, earlier, why, checks_left, .. } => {
                self.unblock(verification);
                let mut row = done(job.attempt, job.operation, verification, &state, outcome);
                row.attempts_left = row.attempts_left.min(checks_left.unwrap_or(u32::MAX));
                row.retryable = retryable(job.operation, outcome, row.attempts_left);
                row.vendor_message = why;
                row.reason = earlier.map(|earlier| earlier.reason);
                row.retry_after = earlier.and_then(|earlier| earlier.retry_after);
                if let Some(blocked) = blocked {
                    row.reason = Some(blocked.reason);
                    if job.operation == Operation::Verify {
                        // None before then, whatever the flow itself has left.
                        row.attempts_left = 0;
                    }
                    row.retry_after = blocked.retry_after;
                    row.retryable = blocked.retry_after.is_some();
                }
                // Whoever waits for a queued send does not wait for what somebody was told of a verify.
                if state.status != Status::Queued {
                    self.answer_waiters(verification, &row);
                }
                self.respond(call_id, &Response::Row(Box::new(row)));
            }
            Decision::Outdated => {
                if let Target::Existing(id) | Target::Failover(id) = job.target {
                    self.unblock(id);
                }
                self.respond(call_id, &Response::Retry);
            }
            Decision::Waits { verification } => {
                job.target = Target::Existing(verification);
                job.is_found = true;
                let request = Request::Run(Box::new(job));
                match self.busy.get_mut(&verification) {
                    Some(waiting) => waiting.push_back((call_id, request)),
                    None => self.pending.push((call_id, request)),
                }
            }
            Decision::OfAnother => {
                if let Target::Existing(id) = job.target {
                    self.unblock(id);
                }
                let field = dialect::by_name(&job.vendor).map_or("mobile", |dialect| dialect.recipient_field().name);
                let error = Error::invalid_parameter(
                    format!("{field} belongs to the verification and cannot change"),
                    "leave it out, or give the one that the code was sent to",
                );
                self.respond(call_id, &Response::Error(error));
            }
            Decision::Missing => {
                if let Target::Existing(id) | Target::Failover(id) = job.target {
                    self.unblock(id);
                }
                self.respond(
                    call_id,
                    &Response::Error(Error::undefined_object(
                        "there is no verification of that id",
                        "Give the verification_id that otp_send returned.",
                    )),
                );
            }
        }
    }
}

impl Worker {
    /// To the HTTP client; what the gateway answers itself is there at once.
    pub fn start_call(
        &mut self,
        number: u64,
        operation: Operation,
        vendor: &str,
        local: Option<Outcome>,
        vendor_call: Option<VendorCall>,
    ) {
        if let Some(outcome) = local {
            let mut answer = own_answer(number, outcome, "answered by the gateway itself; no vendor was asked");
            // Vendors name the flow that a verify belongs to, and their fields ask for it.
            if let (Some(call), Outcome::Sent) = (self.in_flight.get(&number), outcome)
                && call.state.reference.is_none()
            {
                answer.result.reference = Some(call.verification.to_string());
            }
            self.unrecorded.push(answer);
            return;
        }
        // Both were checked when the job was made.
        let (Some(dialect), Some(vendor_call)) = (dialect::by_name(vendor), vendor_call) else {
            // Whoever waits for it must not do so for ever.
            let why = "the job held no call to make; nothing was sent";
            return self.unrecorded.push(own_answer(number, Outcome::ProviderError, why));
        };
        self.http.start_call(OutboundCall {
            call_id: number,
            dialect,
            operation,
            request: vendor_call.request,
            first: vendor_call.cancel_first,
            endpoint: vendor_call.endpoint,
            secrets: vendor_call.secrets,
        });
    }

    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// By what a job names a flow begun elsewhere: provider, reference or recipient and role.
pub type FlowName = (Identity, Option<String>, Option<(Vec<u8>, Identity)>);

/// The flows on record that jobs are about.
#[derive(Default)]
pub struct Flows {
    known: HashMap<Uuid, StoredVerification>,
    /// By the job's attempt.
    found: HashMap<Uuid, StoredVerification>,
    /// Jobs that name another recipient than their flow's.
    of_another: HashSet<Uuid>,
}

impl Flows {
    /// Reads them, and has each job count for whom the record has, whatever its payload says.
    pub fn read(writer: &mut StoreTransaction, jobs: &mut [(CallId, Box<Job>)], now: Micros) -> Result<Self, Failure> {
        let known = |job: &Job| match job.target {
            Target::Existing(id) | Target::Failover(id) => Some(id),
            Target::New(_) | Target::Lookup(..) => None,
        };
        let ids: Vec<Uuid> = jobs.iter().filter_map(|(_, job)| known(job)).collect();
        let stored = writer.verifications(&ids)?;
        let mut flows =
            Self { known: stored.into_iter().map(|stored| (stored.id, stored)).collect(), ..Self::default() };
        for (_, job) in jobs {
            let found = match job.target {
                Target::Lookup(by, _) => {
                    let (reference, keys) = (job.reference.as_deref(), &job.recipient_keys);
                    let found = writer.latest(by, job.provider_id, &job.account_keys, reference, keys, job.role_id)?;
                    found.filter(|stored| is_the_same_flow(by, stored, now))
                }
                _ => None,
            };
            let is_new = matches!(job.target, Target::New(_) | Target::Failover(_));
            let flow = found.as_ref().or_else(|| flows.known.get(&known(job)?)).filter(|_| !is_new);
            if !is_new && !belongs(job, flow) {
                flows.of_another.insert(job.attempt);
            }
            flows.found.extend(found.map(|stored| (job.attempt, stored)));
        }
        Ok(flows)
    }
}

/// Has a job count for the recipient of the flow on record. False: it names another one.
pub fn belongs(job: &mut Job, flow: Option<&StoredVerification>) -> bool {
    let was_sent = flow.is_some_and(|flow| flow.state.send_count > 0);
    if job.find_by == FindBy::Reference && !was_sent {
        job.is_claim = true;
        return true;
    }
    let Some(flow) = flow else { return true };
    // Where the session found it, the caller has the rights of the role that began it.
    let is_found = job.is_found || matches!(job.target, Target::Lookup(..));
    job.sender = Some(flow.role_id).filter(|_| !is_found);
    let Some(key) = &flow.recipient_key else {
        job.recipient_keys.clear();
        return true;
    };
    if job.recipient_keys.contains(key) {
        return true;
    }
    let is_another = is_found && !job.recipient_keys.is_empty();
    // What it knows of itself may be put down under a key that the file has lost.
    job.recipient_keys.push(key.clone());
    !is_another
}

/// A reference names one flow for good. A recipient's latest flow is the one meant while it can be; one whose checks
/// are spent stays it until its code is too old, or a new flow would give new guesses.
pub fn is_the_same_flow(by: FindBy, stored: &StoredVerification, now: Micros) -> bool {
    by == FindBy::Reference
        || (stored.state.expires_at.is_none_or(|end| end > now)
            && (!stored.state.status.is_terminal() || stored.state.status == Status::MaxAttemptsReached))
}

/// One transaction's worth of jobs.
pub struct Batch<'a, 'w, 'conn> {
    writer: &'a mut StoreTransaction<'w, 'conn>,
    busy: &'a HashMap<Uuid, std::collections::VecDeque<(CallId, Request)>>,
    /// What is found may have something in flight that a worker before this one left: that is settled first.
    may_be_left: bool,
    now: Micros,
    flows: Flows,
    limit_check: LimitCheck<'a>,
    /// Attempts at providers of routes whose breaker is open.
    passed_over: Vec<NewAttempt>,
    /// The idempotency keys of this batch.
    keys: HashSet<Vec<u8>>,
    /// What this batch itself begins, by what a later job of it may name it: provider, reference or recipient.
    begun: HashMap<FlowName, Uuid>,
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
            Verdict::Goes { observed: noted, breaker_permit: pass, checks_left } => {
                Decision::Goes { verification, before, state, created_at, noted, pass, checks_left }
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

    pub fn write(&mut self, jobs: &[(CallId, Box<Job>)], turns: &[Decision]) -> Result<(), Failure> {
        let mut verifications = Vec::new();
        let mut changes = Vec::new();
        let mut attempts = Vec::new();
        let mut references = Vec::new();
        for ((_, job), turn) in jobs.iter().zip(turns) {
            let (verification, refused, reason, why, retry_at) = match turn {
                Decision::Goes { verification, noted, .. } => (*verification, None, *noted, &None, None),
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
                    .filter(|_| !job.is_test && !matches!(turn, Decision::Ends { blocked: None, .. }))
                    .map(<[u8]>::to_vec),
                reason,
                retry_at,
                started_at: self.now,
            });
            match turn {
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

pub fn name(by: FindBy, job: &Job) -> FlowName {
    let provider = job.provider_id;
    match by {
        // The account's, whichever of its providers.
        FindBy::Reference => (0, job.reference.clone(), Some((job.account_key().to_vec(), 0))),
        FindBy::Recipient => (provider, None, job.recipient_key().map(|key| (key.to_vec(), job.role_id))),
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
