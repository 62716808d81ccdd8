//! The worker's state: calls in flight, requests that wait for one of them, results that are not yet recorded.

pub mod expiry_heap;
pub mod failure_log;
pub mod known_identities;
pub mod limit_state;
pub mod maintenance_schedule;
pub mod provider_log;
pub mod range_state;
pub mod recovery_progress;
pub mod send_queue;
pub mod waiting_for_locks;

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    os::unix::net::UnixStream,
    rc::Rc,
};

use dialect::{CallResult, Operation, Outcome};
use http_client::{CompletedCall, HttpClient};
use pgrx::pg_sys;
use policy::{BlockReason, BreakerPermit, Micros, NumberRange, Status, Timestamp, Verification, retryable};
use uuid::Uuid;

use crate::{
    error::Error,
    gucs,
    ipc::{
        message::{self, Request, Response, ResultRow},
        statistics::{ProviderState, count::Counters},
        worker::{CallId, WorkerEnd},
        worker_registry,
        worker_report::{Chore, QueueReport, Report},
    },
    job::{Job, Requeue},
    pg::{
        background_worker,
        clock::{SinceBoot, clock, since_boot},
    },
    store::{
        Store,
        breakers::OpenBreaker,
        counted::{Begun, Cohort},
        identity::Identity,
        rows::{StoredAttempt, StoredVerification},
        transaction::Failure,
    },
    worker::state::{
        expiry_heap::ExpiryHeap,
        failure_log::FailureLog,
        known_identities::KnownIdentities,
        limit_state::{BreakerKey, LimitState},
        maintenance_schedule::MaintenanceSchedule,
        provider_log::ProviderLog,
        range_state::RangePass,
        recovery_progress::RecoveryProgress,
        send_queue::SendQueue,
        waiting_for_locks::WaitingForLocks,
    },
};

/// How long to wait before trying again what a lock or a full disk held up.
pub const AGAIN_AFTER: Micros = 100_000;
/// How many outcomes are recorded in one transaction. Half as many cost 64 sessions 8 % of their sends.
const MOST_OUTCOMES: usize = 16;

pub struct Worker {
    pub store: Store,
    pub ipc: WorkerEnd,
    pub expiry: ExpiryHeap,
    pub maintenance: MaintenanceSchedule,
    pub recovery: RecoveryProgress,
    pub database: pg_sys::Oid,
    pub queue: SendQueue,
    /// The calls that wait for the end of a queued send.
    pub waiters: HashMap<Uuid, Vec<CallId>>,
    /// When so many sends are waited for, callers that have stopped waiting are removed.
    pub most_waiters: usize,
    pub limits: LimitState,
    pub identities: KnownIdentities,
    /// The id of the key that seals, once it is on record.
    pub sealing_key: Option<String>,
    /// Breakers that have opened or closed, and are not yet on record.
    pub breaker_changes: HashMap<BreakerKey, Option<OpenBreaker>>,
    pub http: HttpClient,
    /// Requests whose turn it is.
    pub pending: Vec<(CallId, Request)>,
    /// Calls under way, by the number that the HTTP client knows them by.
    pub in_flight: HashMap<u64, InFlight>,
    /// Connection checks under way, of which nothing is on record.
    pub checks: HashMap<u64, CallId>,
    pub next_number: u64,
    /// Every verification with something under way, and the requests that wait for its end: one call at a time for each
    /// verification, or a code could be approved twice.
    pub busy: HashMap<Uuid, VecDeque<(CallId, Request)>>,
    /// Completed calls that are not on record yet.
    pub unrecorded: Vec<CompletedCall>,
    pub failures: FailureLog,
    pub provider_log: ProviderLog,
    /// What waits for a row that somebody has locked.
    pub locked: WaitingForLocks,
    /// When what a lock or a full disk held up is tried again.
    pub retry_at: Option<SinceBoot>,
    /// Since when what calls are about cannot be put on record, so that they are refused, and when that was last; None:
    /// the last one could.
    pub refused: Option<(SinceBoot, SinceBoot)>,
    pub is_extension_dropped: bool,
    /// The counters, which the store adds to, too.
    pub statistics: Rc<RefCell<Counters>>,
}

/// A call under way.
pub struct InFlight {
    pub call_id: CallId,
    pub attempt: Uuid,
    pub verification: Uuid,
    pub operation: Operation,
    pub provider: String,
    pub provider_id: Identity,
    /// The verification's status before the attempt, and its state as the intent left it.
    pub before: Status,
    pub state: Verification,
    pub code_lifetime: Option<Micros>,
    /// Whether a resend sends the code that was sent before.
    pub keeps_code: bool,
    /// The cohort for which the call counts, and when its intent was put on record.
    pub cohort: Cohort,
    pub started_at: Timestamp,
    /// For a resend: the sealed value to keep from now on, and the new reference.
    pub sealed: Option<Vec<u8>>,
    pub reference: Option<String>,
    /// The account whose breaker gave the permit below.
    pub account: BreakerKey,
    pub vendor: String,
    pub breaker_permit: Option<BreakerPermit>,
    /// The recipient's range of numbers, and how the call counts there.
    pub range: Option<NumberRange>,
    pub range_pass: RangePass,
    /// How many wrong codes the recipient has left after this call; None: they are not counted.
    pub checks_left: Option<u32>,
    /// The rule that would have refused the call, if the provider enforced its rules.
    pub observed: Option<BlockReason>,
    /// For a queued send: what it takes to queue it again.
    pub requeue: Option<Requeue>,
    /// The same send through the other providers of its route.
    pub fallback: Option<Box<Job>>,
}

impl InFlight {
    /// Returns the attempt as it is known for counting.
    pub fn begun(&self) -> Begun {
        Begun {
            provider_id: self.provider_id,
            operation: self.operation,
            reason: self.observed,
            started_at: self.started_at,
            cohort: self.cohort,
        }
    }

    /// Returns the line of the queue for which the call counts.
    pub fn line(&self) -> Identity {
        self.requeue.as_ref().map_or(self.provider_id, |queued| queued.line)
    }
}

impl Worker {
    pub fn open(database: pg_sys::Oid, store: Store, statistics: Rc<RefCell<Counters>>) -> Self {
        statistics.borrow_mut().begin();
        background_worker::reserve_sockets();
        let http = background_worker::without_signals(|| {
            HttpClient::start(gucs::allowed_hosts(), background_worker::with_own_locale)
        })
        .unwrap_or_else(|error| pgrx::error!("otp_gateway: the HTTP client's thread cannot be started: {error}"));
        Self {
            store,
            ipc: WorkerEnd::new(database.to_u32()),
            expiry: ExpiryHeap::default(),
            maintenance: MaintenanceSchedule::default(),
            recovery: RecoveryProgress::default(),
            database,
            queue: SendQueue::default(),
            waiters: HashMap::new(),
            most_waiters: WAITERS_BEFORE_PRUNING,
            limits: LimitState::default(),
            identities: KnownIdentities::default(),
            sealing_key: None,
            breaker_changes: HashMap::new(),
            http,
            pending: Vec::new(),
            in_flight: HashMap::new(),
            checks: HashMap::new(),
            next_number: 0,
            busy: HashMap::new(),
            unrecorded: Vec::new(),
            failures: FailureLog::default(),
            provider_log: ProviderLog::default(),
            locked: WaitingForLocks::default(),
            retry_at: None,
            refused: None,
            is_extension_dropped: false,
            statistics,
        }
    }

    /// Returns the socket that can be read when a call has ended.
    pub fn wakeup(&self) -> &UnixStream {
        self.http.wakeup()
    }

    pub fn settings_reloaded(&mut self) {
        self.http.set_allowed_hosts(gucs::allowed_hosts());
        self.maintenance.look_again();
    }

    /// Returns when there is something to do though nobody calls. While the worker waits to try again, or does not know
    /// yet what was left in flight, nothing else is done, whatever is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let held_up_until = self.held_up_until();
        if self.recovery.is_blind || held_up_until.is_some() {
            return [self.recovery.next_due(), held_up_until].into_iter().flatten().min().map(by_clock);
        }
        [self.due_without_leaving(), self.limits.ranges.next_due()].into_iter().flatten().min()
    }

    /// Returns until when the worker waits to try again; None: it does not, or not any more.
    fn held_up_until(&self) -> Option<SinceBoot> {
        self.retry_at.filter(|at| *at > since_boot())
    }

    /// Returns when there is something to do that a worker does not do as it leaves.
    pub fn due_without_leaving(&self) -> Option<Timestamp> {
        [
            self.retry_at.map(by_clock),
            self.identities.again_at.map(by_clock),
            self.recovery.next_due().map(by_clock),
            self.locked.next_due().map(by_clock),
            self.failures.next_due(),
            self.expiry.next_due(),
            self.maintenance.next_due(),
            self.queue.next_due(gucs::queue_max_age()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns whether nothing is under way, and nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.checks.is_empty()
            && self.pending.is_empty()
            && self.busy.is_empty()
            && self.unrecorded.is_empty()
            && self.locked.is_empty()
            && self.waiters.is_empty()
            && self.queue.is_empty()
            && self.is_recovered()
    }

    /// Reports the queue, and whether the worker is held up, for whoever looks from outside.
    pub fn report_to(&self, report: &Report) {
        let mut states: HashMap<Identity, ProviderState> = HashMap::new();
        let mut queued = QueueReport::default();
        for (provider, queue) in self.queue.reports(gucs::pause()) {
            states.entry(provider).or_default().queue = queue;
            queued = queued.and(queue);
        }
        for call in self.in_flight.values() {
            states.entry(call.provider_id).or_default().in_flight += 1;
        }
        for (provider, used) in self.limits.provider_sends.used(clock()) {
            states.entry(provider).or_default().limit_used = Some(used);
        }
        self.statistics.borrow_mut().stand(&states);
        report.queue(queued);
        report.calls(self.in_flight.len(), self.unrecorded.len() + self.locked.completed.len());
        report.commits(self.store.committed_at());
        report.is_held_up(self.retry_at.is_some() || self.recovery.next_due().is_some());
        report.refuses(self.refused);
    }

    /// Reports how much more of a long chore is done or, with `is_over`, that all of it is.
    pub fn works_at(&self, chore: Chore, done: usize, is_over: bool) {
        let Some(report) = worker_registry::report_of(self.database) else { return };
        report.works_at(chore, done as u64);
        if is_over {
            report.is_done_with(chore);
        }
    }

    /// Has the requests about a verification wait, until what an earlier worker left of it is on record.
    pub fn keep_busy(&mut self, verification: Uuid) {
        self.busy.entry(verification).or_default();
    }

    pub fn is_busy(&self, verification: Uuid) -> bool {
        self.busy.contains_key(&verification)
    }

    pub fn extension_is_dropped(&self) -> bool {
        self.is_extension_dropped
    }

    pub fn extension_dropped(&mut self) {
        self.is_extension_dropped = true;
    }

    /// Works one round. Returns false if there was nothing to do, or nothing can be done yet.
    pub fn work(&mut self) -> bool {
        if !self.http.is_alive() {
            pgrx::error!("otp_gateway: the HTTP client's thread has died");
        }
        let mut worked = false;
        self.failures.settle();
        if !self.recover_more() {
            return false;
        }
        let mut waiting = self.held_up_until().is_some();
        if !waiting {
            self.retry_at = None;
        }
        if !waiting
            && !self.is_extension_dropped
            && self.identities.may_be_updated(since_boot())
            && worker_registry::take_identities_notice(self.database)
        {
            worked = true;
            self.update_identities();
            waiting = self.retry_at.is_some();
        }
        if !waiting && !self.is_extension_dropped {
            worked |= self.retry_locked();
        }
        self.unrecorded.extend(self.http.take_completed());
        if !waiting && !self.unrecorded.is_empty() {
            worked = true;
            // Callers who are told together come back together. In rounds, those who were told first send while the
            // others' outcomes are written, instead of all waiting for all.
            let completed_calls = self.unrecorded.drain(..self.unrecorded.len().min(MOST_OUTCOMES)).collect();
            self.complete_calls(completed_calls);
        }
        worked |= self.answer_checks() | self.receive_requests();
        if !waiting && !self.pending.is_empty() && !self.is_extension_dropped {
            worked = true;
            self.accept_requests();
        }
        if !waiting && !self.is_extension_dropped {
            // The record is read page by page, between calls.
            worked |= self.read_left();
            worked |= self.read_earlier();
            worked |= self.load_more_expiry();
            worked |= self.write_ranges();
        }
        if !waiting && !self.is_extension_dropped {
            if worker_registry::take_queued_notice(self.database) {
                worked = true;
                self.look_for_queued();
            }
            worked |= self.send_due();
        }
        worked |= self.expire_due();
        if worker_registry::take_new_key_notice(self.database) {
            self.maintenance.reseal();
        }
        worked || self.maintain_when_idle()
    }

    /// Answers the connection checks that have ended. Returns false if none has.
    fn answer_checks(&mut self) -> bool {
        let all = self.http.take_checked();
        let has_some = !all.is_empty();
        for (number, check) in all {
            if let Some(call_id) = self.checks.remove(&number) {
                self.respond(call_id, &Response::Checked(check));
            }
        }
        has_some
    }

    /// Takes the requests that have come from sessions. Returns false if none has.
    fn receive_requests(&mut self) -> bool {
        let all = self.ipc.collect();
        let has_some = !all.is_empty();
        for received in all {
            match message::read(&received.request) {
                Ok(mut request) => {
                    match &mut request {
                        Request::Run(job) => job.taken_at = since_boot(),
                        Request::AwaitSend(.., taken_at) => *taken_at = since_boot(),
                        _ => {}
                    }
                    self.pending.push((received.call_id, request));
                }
                Err(error) => self.respond(received.call_id, &Response::Error(error)),
            }
        }
        has_some
    }

    pub fn respond(&mut self, call_id: CallId, response: &Response) {
        self.ipc.respond(call_id, message::write(response));
    }

    /// Reacts to a transaction that failed; the caller keeps what it was for.
    pub fn on_failure(&mut self, failure: Failure) {
        match failure {
            Failure::NotInstalled => self.extension_dropped(),
            Failure::Busy => self.try_again_later(),
            Failure::Error(why) => {
                self.failures.raise(failure_log::READ, &why);
                self.try_again_later();
            }
        }
    }

    /// Notes that what a call is about could not be put on record, which no other try will change.
    pub fn refused_one(&mut self) {
        let now = since_boot();
        self.refused = Some((self.refused.map_or(now, |(since, _)| since), now));
    }

    pub fn try_again_later(&mut self) {
        self.retry_at = Some(since_boot() + AGAIN_AFTER);
    }

    /// Frees a verification: the requests that wait for it have their turn.
    pub fn unblock(&mut self, verification: Uuid) {
        if let Some(waiting) = self.busy.remove(&verification) {
            self.pending.extend(waiting);
        }
    }
}

/// Returns when that is by the clock, as it stands now.
fn by_clock(at: SinceBoot) -> Timestamp {
    clock() + at.since(since_boot())
}

pub fn unknown(number: u64, why: &str) -> CompletedCall {
    own_answer(number, Outcome::Unknown, why)
}

/// Returns the end of a call whose outcome nobody but the worker tells.
pub fn own_answer(number: u64, outcome: Outcome, why: &str) -> CompletedCall {
    CompletedCall {
        call_id: number,
        http_status: None,
        result: CallResult::new(outcome, None, Some(why.to_owned())),
        record: None,
        voided: false,
        not_begun: false,
        is_ours: true,
        certificate_ends: None,
    }
}

pub fn stopped() -> Response {
    Response::Error(Error::not_in_prerequisite_state(
        "the background worker stopped before the call was made; nothing was sent",
        "Call again.",
    ))
}

/// Answers those who wait for a worker in a database where none can serve.
pub fn turn_away(database: pg_sys::Oid, why: &str, hint: &str) {
    let refused = Response::Error(Error::not_in_prerequisite_state(format!("{why}; nothing was sent"), hint));
    WorkerEnd::new(database.to_u32()).answer_all(&message::write(&refused));
}

/// Returns the row for a caller, as far as the verification's state tells it.
pub fn result_row(
    attempt: Uuid,
    operation: Operation,
    verification: Uuid,
    state: &Verification,
    outcome: Outcome,
) -> ResultRow {
    ResultRow {
        attempt: Some(attempt),
        outcome: Some(outcome),
        retryable: retryable(operation, outcome, state.attempts_left()),
        ..ResultRow::without_attempt(verification, state)
    }
}

/// Returns the row for a caller, from an attempt that has ended.
pub fn result_row_from_record(attempt: StoredAttempt, stored: &StoredVerification, outcome: Outcome) -> ResultRow {
    let mut row = result_row(attempt.id, attempt.operation, stored.id, &stored.state, outcome);
    row.vendor_code = attempt.vendor_code;
    row.vendor_message = attempt.vendor_message;
    row.response = attempt.response;
    row.reason = attempt.reason;
    // What is left of the wait.
    row.retry_after = attempt.retry_at.map(|at| at.since(clock()).max(0));
    row.retryable |= outcome == Outcome::Blocked && row.retry_after.is_some();
    row
}

/// How many waiters are kept before those that have stopped waiting are removed.
pub const WAITERS_BEFORE_PRUNING: usize = 64;
