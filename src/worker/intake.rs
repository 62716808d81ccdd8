//! From requests to calls: jobs that may go are put on record, durably and many at once, and are then given to the HTTP
//! client.

use dialect::{Operation, Outcome};
use http_client::{CompletedCall, Endpoint, OutboundCall};
use policy::{Limits, Status, retryable};
use uuid::Uuid;

use crate::{
    error::Error,
    ipc::{
        message::{Request, Response},
        worker::CallId,
    },
    job::{Action, Answer, Flow, Job, OwnAnswer},
    pg::clock::clock,
    provider::description,
    store::{
        StoreTransaction,
        identity::Kind,
        retention::erase_at,
        transaction::{Durability, Failure},
    },
    worker::{
        admission::{Admitted, Batch, Decision, Ended},
        flow_lookup::Flows,
        limit_check::LimitCheck,
        state::{InFlight, Worker, failure_log::ATTEMPT, limit_state::BreakerKey, own_answer, result_row},
    },
};

/// How many connections are checked at once, at most, for `otp_gateway.check`.
const MAX_CHECKS: usize = 16;

impl Worker {
    /// Takes every request whose turn it is.
    pub fn accept_requests(&mut self) {
        let mut jobs = Vec::new();
        let requests = std::mem::take(&mut self.pending);
        self.settle_first(requests.iter().filter_map(|(_, request)| match request {
            Request::AwaitIdle(id) | Request::AwaitSend(id, ..) => Some(*id),
            Request::Run(job) => job.action.waits_for(),
            Request::Maintain(_) | Request::Identify(_) | Request::Check(..) | Request::Budget(..) => None,
        }));
        for (call_id, request) in requests {
            let subject = match &request {
                Request::AwaitIdle(id) => Some(*id),
                // AwaitSend waits among the waiters; the other requests name no verification.
                Request::AwaitSend(..)
                | Request::Maintain(_)
                | Request::Identify(_)
                | Request::Check(..)
                | Request::Budget(..) => None,
                Request::Run(job) => job.action.waits_for(),
            };
            if let Some(waiting) = subject.and_then(|id| self.busy.get_mut(&id)) {
                waiting.push_back((call_id, request));
                continue;
            }
            match request {
                Request::AwaitIdle(_) => self.respond(call_id, &Response::Idle),
                Request::AwaitSend(id, which, read, check, taken_at) => {
                    self.follow(call_id, id, which, read, check, taken_at);
                }
                Request::Maintain(maintenance) => self.maintain(call_id, maintenance),
                Request::Identify(subject) => self.identify(call_id, subject),
                Request::Check(option, endpoint) => self.check(call_id, option, *endpoint),
                Request::Budget(server, limits) => self.tell_budget(call_id, server, &limits),
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

    /// Starts the check of a connection, of which nothing is put on record. The thread that makes the calls makes the
    /// checks beside them; so few at once do the calls no harm.
    fn check(&mut self, call_id: CallId, option: String, endpoint: Endpoint) {
        if self.checks.len() >= MAX_CHECKS {
            let error = Error::configuration_limit(
                format!("{MAX_CHECKS} connections are looked at right now, and no more at once"),
                "Call again in a moment.",
            );
            return self.respond(call_id, &Response::Error(error));
        }
        let number = self.next_number();
        self.checks.insert(number, call_id);
        self.http.start_check(number, option, endpoint);
    }

    /// Tells how long the provider's limit would have a send wait, by the very count by which a send is refused.
    fn tell_budget(&mut self, call_id: CallId, server: u32, limits: &Limits) {
        // A provider without a number has sent nothing yet.
        let Some(provider) = self.identities.known.get(&(Kind::Server, server)).copied() else {
            return self.respond(call_id, &Response::Budget(None));
        };
        let read = |writer: &mut StoreTransaction| self.limits.wait(writer, provider, limits, clock());
        let response = match self.store.write(Durability::Deferred, read) {
            Ok(wait) => Response::Budget(wait),
            Err(Failure::Busy) => Response::Error(Error::lock_not_available(
                "not looked at: the record is locked by another transaction",
                "See the row record.",
            )),
            Err(Failure::NotInstalled) => Response::Error(Error::not_installed()),
            Err(Failure::Error(why)) => {
                pgrx::log!("otp_gateway: the sends of a provider could not be counted: {why}");
                Response::Error(Error::internal("the sends could not be counted", "The server's log has the reason."))
            }
        };
        self.respond(call_id, &response);
    }

    pub fn record_intents(&mut self, jobs: Vec<(CallId, Box<Job>)>) {
        let mut jobs = self.with_keys(jobs);
        if jobs.is_empty() {
            return;
        }
        let mut needed = Vec::new();
        let may_be_left = self.may_be_left();
        let decisions = self.store.write(Durability::Flushed, |writer| {
            let now = clock();
            jobs.iter_mut().try_for_each(|(_, job)| self.identities.fill(writer, job))?;
            let flows = Flows::read(writer, &mut jobs, now)?;
            let asked = jobs.iter().flat_map(|(_, job)| job.with_fallbacks());
            let limit_check = LimitCheck::new(writer, asked, &mut self.limits, now)?;
            let mut batch = Batch::new(writer, &self.busy, may_be_left, now, flows, limit_check);
            let decisions = jobs.iter_mut().map(|(_, job)| batch.take(job)).collect::<Result<Vec<_>, _>>()?;
            needed = jobs.iter().zip(&decisions).map(|((_, job), decision)| decision.on_record(job)).collect();
            batch.write(&jobs, &decisions)?;
            Ok(decisions)
        });
        self.settle_identities(decisions.is_ok());
        self.settle_limits(decisions.is_ok());
        match decisions {
            Ok(decisions) => {
                // What was only looked up says nothing of what can be written.
                if decisions.iter().any(|decision| matches!(decision, Decision::Goes(_) | Decision::Ends(_))) {
                    self.refused = None;
                }
                jobs.into_iter()
                    .zip(decisions)
                    .for_each(|((call_id, job), decision)| self.apply_decision(call_id, *job, decision));
            }
            Err(failure) => self.on_intent_failure(jobs, &needed, failure),
        }
    }

    /// Computes the recipient keys of the jobs. Without the key file, jobs whose recipient has no keys yet are refused.
    /// Returns the other jobs.
    fn with_keys(&mut self, mut jobs: Vec<(CallId, Box<Job>)>) -> Vec<(CallId, Box<Job>)> {
        match self.keys_to_seal() {
            Ok(keys) => {
                jobs.iter_mut().for_each(|(_, job)| job.derive_keys(&keys));
                jobs
            }
            Err(error) => {
                // A job that goes on to the next provider of its route has its keys since it began.
                let is_known =
                    |(_, job): &(CallId, Box<Job>)| job.recipient.is_none() || !job.recipient_keys.is_empty();
                let (known, unknown): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_known);
                unknown.into_iter().for_each(|(call_id, job)| self.refuse(call_id, &job, &error));
                known
            }
        }
    }

    /// Handles jobs whose intents could not be put on record, so that nothing was sent; `needed` holds, for each job,
    /// the verification on record that the job is about.
    fn on_intent_failure(&mut self, mut jobs: Vec<(CallId, Box<Job>)>, needed: &[Option<Uuid>], failure: Failure) {
        match failure {
            Failure::NotInstalled => {
                self.extension_dropped();
                self.put_back(jobs);
            }
            Failure::Busy => match self.put_aside_jobs(jobs, needed) {
                Ok(others) if others.is_empty() => {}
                Ok(others) => self.record_intents(others),
                Err(all) => {
                    self.put_back(all);
                    self.try_again_later();
                }
            },
            // A job that cannot be recorded must not take the others with it.
            Failure::Error(_) if jobs.len() > 1 => {
                jobs.drain(..).for_each(|job| self.record_intents(vec![job]));
            }
            Failure::Error(why) => {
                self.failures.raise(ATTEMPT, &why);
                self.refused_one();
                let error = Error::internal(
                    "the attempt could not be put on record, so that nothing was sent",
                    "The server's log has the reason.",
                );
                for (call_id, job) in jobs {
                    if !job.action.is_failover() {
                        self.refuse(call_id, &job, &error);
                        continue;
                    }
                    // The provider before has ended, and the send with it; who waits for it would wait for ever. Put on
                    // record before the caller hears of it, or as soon as that can be done.
                    let id = job.action.verification();
                    self.unblock(id);
                    self.settle(std::iter::once(id));
                    self.respond(call_id, &Response::Error(error.clone()));
                }
            }
        }
    }

    pub fn refuse(&mut self, call_id: CallId, job: &Job, error: &Error) {
        self.end_job(call_id, job, &Response::Error(error.clone()));
    }

    /// Answers a job that comes to nothing: the requests that wait for its verification have their turn.
    fn end_job(&mut self, call_id: CallId, job: &Job, response: &Response) {
        if let Some(id) = job.action.on_record() {
            self.unblock(id);
        }
        self.respond(call_id, response);
    }

    pub fn put_back(&mut self, jobs: Vec<(CallId, Box<Job>)>) {
        for (call_id, job) in jobs {
            let known = job.action.waits_for();
            if self.may_wait_on(call_id, &job) {
                self.pending.push((call_id, Request::Run(job)));
            }
            if let Some(id) = known {
                self.unblock(id);
            }
        }
    }

    pub fn apply_decision(&mut self, call_id: CallId, job: Job, decision: Decision) {
        match decision {
            Decision::Goes(admitted) => self.begin_call(call_id, job, admitted),
            Decision::Ends(ended) => self.end_without_call(call_id, &job, ended),
            Decision::Outdated => self.end_job(call_id, &job, &Response::Retry),
            Decision::Waits { verification } => self.let_wait(call_id, job, verification),
            Decision::OfAnother => {
                let field = dialect::by_name(&job.vendor).map_or("mobile", |dialect| dialect.recipient_field().name);
                let error = Error::invalid_parameter(
                    format!("{field} belongs to the verification and cannot change"),
                    "leave it out, or give the one that the code was sent to",
                );
                self.refuse(call_id, &job, &error);
            }
            Decision::Missing => {
                let error = Error::undefined_object(
                    "there is no verification of that id",
                    "Give the verification_id that otp_send returned.",
                );
                self.refuse(call_id, &job, &error);
            }
        }
    }

    /// Begins the call of a job whose intent is on record.
    pub fn begin_call(&mut self, call_id: CallId, mut job: Job, admitted: Admitted) {
        let verification = admitted.verification;
        self.busy.entry(verification).or_default();
        if job.action.on_record().is_none() {
            self.expiry.add(verification, erase_at(admitted.cohort.begun_at, &admitted.state));
        }
        if let Some(account) = &job.account {
            self.provider_log.files(&job.provider, account);
        }
        let fallback = job.next_fallback().map(Box::new);
        let (operation, account) = (job.operation(), BreakerKey::of(&job));
        let (requeue, keeps_code) = match job.action {
            Action::Send(send) => (send.queued, false),
            Action::Resend { keeps_code, .. } => (None, keeps_code),
            Action::Verify(_) | Action::Cancel(_) => (None, false),
        };
        let is_resend = operation == Operation::Resend;
        let range = job.answer.rules().and_then(|rules| rules.range.clone());
        let number = self.next_number();
        let call = InFlight {
            call_id,
            attempt: job.attempt,
            verification,
            operation,
            provider: job.provider,
            provider_id: job.provider_id,
            before: admitted.before,
            state: admitted.state,
            code_lifetime: job.code_lifetime,
            keeps_code,
            cohort: admitted.cohort,
            started_at: admitted.started_at,
            sealed: job.sealed.filter(|_| is_resend),
            reference: job.reference.filter(|_| is_resend),
            account,
            vendor: job.vendor.clone(),
            breaker_permit: admitted.breaker_permit,
            range,
            range_pass: admitted.range_pass,
            checks_left: admitted.checks_left,
            observed: admitted.observed,
            requeue,
            fallback,
        };
        self.in_flight.insert(number, call);
        self.start_call(number, operation, &job.vendor, job.answer);
    }

    /// Answers a job that ends without a call.
    fn end_without_call(&mut self, call_id: CallId, job: &Job, ended: Ended) {
        let Ended { verification, state, outcome, blocked, earlier, why, checks_left, .. } = ended;
        // A verification that was begun elsewhere has its time to be erased, too, though nothing was sent or checked.
        if job.action.begins(verification) && !state.status.is_terminal() {
            self.expiry.add(verification, erase_at(clock(), &state));
        }
        self.unblock(verification);
        let operation = job.operation();
        let mut row = result_row(job.attempt, operation, verification, &state, outcome);
        row.attempts_left = row.attempts_left.min(checks_left.unwrap_or(u32::MAX));
        row.retryable = retryable(operation, outcome, row.attempts_left);
        row.vendor_message = why;
        row.reason = earlier.map(|earlier| earlier.reason);
        row.retry_after = earlier.and_then(|earlier| earlier.retry_after);
        if let Some(blocked) = blocked {
            row.reason = Some(blocked.reason);
            if operation == Operation::Verify {
                // No check is allowed before the wait is over, whatever the flow itself has left.
                row.attempts_left = 0;
            }
            row.retry_after = blocked.retry_after;
            row.retryable = blocked.retry_after.is_some();
        }
        // A waiter for a queued send waits for that send, not for what somebody was told of a verify.
        if state.status != Status::Queued {
            self.answer_waiters(verification, &row);
        }
        self.respond(call_id, &Response::Row(Box::new(row)));
    }

    /// Lets a job wait for the busy verification to which its look-up has led.
    fn let_wait(&mut self, call_id: CallId, mut job: Job, verification: Uuid) {
        job.action = Action::Verify(Flow::Found { by: job.action.find_by(), id: verification });
        let request = Request::Run(Box::new(job));
        match self.busy.get_mut(&verification) {
            Some(waiting) => waiting.push_back((call_id, request)),
            None => self.pending.push((call_id, request)),
        }
    }

    /// Gives a call to the HTTP client; what the gateway answers itself ends at once.
    pub fn start_call(&mut self, number: u64, operation: Operation, vendor: &str, answer: Answer) {
        let vendor_call = match answer {
            Answer::TestNumber(own) | Answer::Gateway { answer: own, .. } => {
                let completed = self.own_answer_to(number, own);
                return self.unrecorded.push(completed);
            }
            Answer::Vendor { call, .. } => Some(call),
            Answer::Record => None,
        };
        // Both are there: a job that the record answers has ended before, and the dialect was found when the job was
        // made.
        let dialect = vendor_call.as_ref().and_then(|call| match &call.description {
            Some(text) => description::read(text).ok(),
            None => dialect::by_name(vendor).cloned(),
        });
        let (Some(dialect), Some(vendor_call)) = (dialect, vendor_call) else {
            // Whoever waits for the call must not wait for ever.
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

    /// Returns the end of a call that the gateway answers itself.
    fn own_answer_to(&self, number: u64, own: OwnAnswer) -> CompletedCall {
        let outcome = match own {
            OwnAnswer::NoCode => Outcome::InvalidCode,
            OwnAnswer::Outcome(outcome) => outcome,
        };
        let mut completed = own_answer(number, outcome, "answered by the gateway itself; no vendor was asked");
        // A vendor returns a reference to the flow, which the fields of a verify ask for; so does the gateway.
        if let (Some(call), Outcome::Sent) = (self.in_flight.get(&number), outcome)
            && call.state.reference.is_none()
        {
            completed.result.reference = Some(call.verification.to_string());
        }
        completed
    }

    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}
