//! Queued sends that have their turn: the job is made from the sealed payload, with the provider as it is now and the
//! rights of the role that enqueued it; what may go is put on record and given to the HTTP client like any other call.
//! A send that cannot go fails alone.

use std::collections::{HashMap, HashSet};

use dialect::{Operation, Outcome};
use policy::{Blocked, Micros, Status};
use uuid::Uuid;

use crate::{
    enqueue::transaction,
    error::Error,
    gucs,
    ipc::{worker::CallId, worker_report::Chore},
    job::{Action, Requeue},
    pg::clock::clock,
    store::{
        StoreTransaction,
        identity::Identity,
        queue_home::queue_home,
        rows::QueuedVerification as Found,
        transaction::{Durability, Failure},
    },
    worker::{
        admission::Admitted,
        limit_check::LimitCheck,
        queued_decision::{Proceed, QueuedDecision, QueuedJobs, Stop, write},
        state::{
            Worker,
            failure_log::{NOT_READY, QUEUED},
            result_row,
            send_queue::{DueSend, SendQueue, UnderWay},
        },
    },
};

/// The task that the failure log names while queued sends wait for the key file.
const SENDING: &str = "sending what is queued";
/// How many queued sends are read at once.
pub const PAGE: i64 = 2000;
/// How long a send is left alone whose row somebody has locked.
pub const AFTER_LOCK: Micros = 200_000;
/// How long a send is left alone that waits for a file, or that cannot even be put on record as failed.
pub const AFTER_FAULT: Micros = 10_000_000;
/// How long until the worker looks again whether a provider is still paused, or whether the fault behind an open
/// breaker has been mended: neither ALTER SERVER nor a new credential in a file wakes the worker.
const LOOK_AGAIN: Micros = 2_000_000;

impl Worker {
    /// Reads the sends queued since the last look: those of every transaction that has ended meanwhile, however long it
    /// had been open.
    pub fn look_for_queued(&mut self) {
        let seen = self.queue.seen.take();
        let queue = &self.queue;
        let looked = self.store.write(Durability::Deferred, |writer| {
            let now = writer.snapshot()?;
            let Some(seen) = &seen else { return Ok((now, Vec::new(), Vec::new())) };
            let ended: Vec<u64> = seen.running.iter().copied().filter(|one| !now.running.contains(one)).collect();
            let mut ranges: Vec<((u64, Uuid), u64)> =
                writer.enqueuers(&ended)?.into_iter().map(|one| ((one, Uuid::nil()), one + 1)).collect();
            ranges.push(((seen.next, Uuid::nil()), now.next));
            let mut found = Vec::new();
            let mut left = Vec::new();
            for (mut after, end) in ranges {
                let page = writer.queued(after, end, PAGE)?;
                if page.len() as i64 == PAGE {
                    after = page.last().map_or(after, |last| (last.transaction, last.id));
                    left.push((after, end));
                }
                found.extend(page);
            }
            announce_new(writer, queue, &found)?;
            Ok((now, found, left))
        });
        match looked {
            Ok((now, found, left)) => {
                if seen.is_none() {
                    self.queue.unread = Some((u64::MAX, Uuid::max()));
                }
                self.queue.seen = Some(now);
                self.enlist(found);
                left.into_iter().for_each(|(after, end)| self.read_queued(after, end));
            }
            Err(failure) => {
                self.queue.seen = seen;
                crate::ipc::worker_registry::notify_queued(self.database);
                self.on_failure(failure);
            }
        }
    }

    /// Reads the rest of the sends in a range of transactions, of which a look has read the first page.
    pub fn read_queued(&mut self, mut after: (u64, Uuid), end: u64) {
        loop {
            let queue = &self.queue;
            let page = self.store.write(Durability::Deferred, |writer| {
                let page = writer.queued(after, end, PAGE)?;
                announce_new(writer, queue, &page)?;
                Ok(page)
            });
            match page {
                Ok(page) => {
                    let Some(last) = page.last() else { return };
                    after = (last.transaction, last.id);
                    self.enlist(page);
                }
                Err(failure) => {
                    // The whole queue is read again, in its own time.
                    self.queue.unread = Some((u64::MAX, Uuid::max()));
                    return self.on_failure(failure);
                }
            }
        }
    }

    /// Reads one page of the sends queued before the first look. Returns false if all are read.
    pub fn read_earlier(&mut self) -> bool {
        let Some(before) = self.queue.unread else { return false };
        let queue = &self.queue;
        let page = self.store.write(Durability::Deferred, |writer| {
            let page = writer.once_queued(before, PAGE)?;
            announce_new(writer, queue, &page)?;
            Ok(page)
        });
        match page {
            Ok(page) => {
                self.queue.unread =
                    page.last().filter(|_| page.len() as i64 == PAGE).map(|last| (last.transaction, last.id));
                self.works_at(Chore::Queue, page.len(), self.queue.unread.is_none());
                self.enlist(page);
            }
            Err(failure) => self.on_failure(failure),
        }
        true
    }

    pub fn enlist(&mut self, found: Vec<Found>) {
        for queued in found.into_iter().filter(|queued| queued.is_queued) {
            self.queue.add(queued.line, queued.role_id, queued.id, queued.created_at);
        }
    }

    /// Starts the queued sends that are due. Returns false if there were none.
    pub fn send_due(&mut self) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let mut under_way: HashMap<Identity, UnderWay> = HashMap::new();
        for call in self.in_flight.values() {
            let under_way = under_way.entry(call.line()).or_default();
            match call.requeue {
                Some(_) => under_way.queued += 1,
                None => under_way.immediate += 1,
            }
        }
        let of_line = |line: Identity| under_way.get(&line).copied().unwrap_or_default();
        if transaction::catalog_has_changed() {
            self.queue.options_changed();
        }
        let turns = self.queue.take(clock(), gucs::queue_max_age(), gucs::pause(), of_line);
        if turns.is_empty() {
            return false;
        }
        self.decide_due(turns);
        true
    }

    pub fn decide_due(&mut self, mut turns: Vec<DueSend>) {
        // One call at a time for each flow: a cancel, say, that waits for the lock of the flow's row comes first.
        for busy in turns.extract_if(.., |turn| self.is_busy(turn.id)).collect::<Vec<_>>() {
            self.queue.wait(&busy, clock() + AFTER_LOCK);
        }
        let keys = self.keys_to_seal();
        if let Err(error) = &keys {
            turns = self.let_wait_for_keys(turns, error);
        } else {
            self.failures.note(SENDING, None);
        }
        if turns.is_empty() {
            return;
        }
        let ids: Vec<Uuid> = turns.iter().map(|turn| turn.id).collect();
        let decided = self.store.write(Durability::Flushed, |writer| {
            let now = clock();
            let home = queue_home().map_err(|error| Failure::Error(error.message().to_owned()))?;
            let mut queued_jobs = QueuedJobs { keys: keys.as_deref(), home, candidates: HashMap::new(), now };
            let mut decisions: Vec<QueuedDecision> =
                writer.queued_payloads(&ids)?.into_iter().map(|request| queued_jobs.decide(request)).collect();
            for go in decisions.iter_mut().filter_map(|decision| decision.go.as_mut().ok()) {
                self.identities.fill(writer, &mut go.job)?;
            }
            // Of the sends not found, some were canceled, and some are locked by somebody.
            let found: HashSet<Uuid> = decisions.iter().map(|decision| decision.id).collect();
            let others: Vec<Uuid> = ids.iter().copied().filter(|id| !found.contains(id)).collect();
            let mut locked = writer.verifications(&others)?;
            locked.retain(|stored| stored.state.status == Status::Queued);
            let jobs = decisions
                .iter()
                .filter_map(|decision| decision.go.as_ref().ok())
                .flat_map(|go| go.job.with_fallbacks());
            let mut limit_check = LimitCheck::new(writer, jobs, &mut self.limits, now)?;
            decisions.iter_mut().try_for_each(|decision| decision.rule(writer, &mut limit_check))?;
            let (waiting, mut decisions): (Vec<QueuedDecision>, Vec<QueuedDecision>) =
                decisions.into_iter().partition(QueuedDecision::waits);
            write(writer, &mut decisions)?;
            Ok((waiting, decisions, locked))
        });
        self.settle_identities(decided.is_ok());
        self.settle_limits(decided.is_ok());
        match decided {
            Ok((waiting, decisions, locked)) => {
                for turn in turns.iter().filter(|turn| locked.iter().any(|stored| stored.id == turn.id)) {
                    self.queue.wait(turn, clock() + AFTER_LOCK);
                }
                waiting.into_iter().for_each(|decision| self.keep_waiting(&decision));
                decisions.into_iter().for_each(|decision| self.send(decision));
            }
            Err(failure) => self.on_decision_failure(turns, failure),
        }
    }

    /// Lets sends wait until the key file is mended. Returns the sends that have waited too long: they need no key to
    /// expire.
    fn let_wait_for_keys(&mut self, turns: Vec<DueSend>, error: &Error) -> Vec<DueSend> {
        let now = clock();
        let is_too_old = |turn: &DueSend| turn.created_at + gucs::queue_max_age() <= now;
        let (too_old, waiting): (Vec<DueSend>, Vec<DueSend>) = turns.into_iter().partition(is_too_old);
        self.failures.note(SENDING, Some(&Failure::Error(error.message().to_owned())));
        for turn in waiting {
            self.queue.wait(&turn, now + AFTER_FAULT);
        }
        too_old
    }

    /// Puts a send back that has to wait. If its provider is paused, or has an open breaker, the whole line waits. A
    /// send that waits for a file waits alone: another role's credentials are in another file.
    fn keep_waiting(&mut self, decision: &QueuedDecision) {
        match &decision.go {
            Err(Stop { is_for_now: true, why, .. }) => {
                let provider = &decision.asked;
                if self.failures.is_news(NOT_READY, &format!("{provider}: {why}"), AFTER_FAULT) {
                    pgrx::log!("otp_gateway: what is queued at provider \"{provider}\" waits: {why}");
                }
                self.queue.wait(&decision.turn, clock() + AFTER_FAULT);
            }
            Err(Stop { blocked: Some(Blocked { retry_after, .. }), .. }) => {
                self.queue.put_back(&decision.turn);
                let wait = retry_after.map_or(LOOK_AGAIN, |wait| wait.min(LOOK_AGAIN));
                self.queue.pause(decision.turn.provider, clock() + wait);
            }
            _ => self.queue.put_back(&decision.turn),
        }
    }

    /// Handles sends whose decisions could not be put on record.
    fn on_decision_failure(&mut self, turns: Vec<DueSend>, failure: Failure) {
        match failure {
            Failure::NotInstalled | Failure::Busy => {
                turns.iter().for_each(|turn| self.queue.put_back(turn));
                self.on_failure(failure);
            }
            // A send that cannot be decided must not take the others with it.
            Failure::Error(_) if turns.len() > 1 => {
                turns.into_iter().for_each(|turn| self.decide_due(vec![turn]));
            }
            Failure::Error(why) => turns.into_iter().for_each(|turn| self.fail(turn, &why)),
        }
    }

    /// Fails a queued send whose decision raised a Postgres error.
    pub fn fail(&mut self, turn: DueSend, why: &str) {
        let failed = self.store.write(Durability::Flushed, |writer| {
            let now = clock();
            let mut decisions: Vec<QueuedDecision> = writer
                .queued_payloads(&[turn.id])?
                .into_iter()
                .map(|request| {
                    let end = Stop::failed(Outcome::InvalidRequest, format!("the send could not be prepared: {why}"));
                    QueuedDecision::new(request, Err(end), now)
                })
                .collect();
            write(writer, &mut decisions)?;
            Ok(decisions)
        });
        match failed {
            Ok(decisions) => decisions.into_iter().for_each(|decision| self.send(decision)),
            Err(Failure::NotInstalled) => self.extension_dropped(),
            Err(_) => {
                self.failures.raise(QUEUED, why);
                self.refused_one();
                self.queue.wait(&turn, clock() + AFTER_FAULT);
            }
        }
    }

    pub fn send(&mut self, decision: QueuedDecision) {
        if let Some(places) = decision.places {
            self.queue.set_places(decision.turn.provider, places);
        }
        match decision.go {
            Err(end) => {
                let mut row = result_row(decision.attempt, Operation::Send, decision.id, &decision.state, end.outcome);
                row.vendor_message = Some(end.why);
                row.reason = end.blocked.map(|blocked| blocked.reason);
                row.retry_after = end.blocked.and_then(|blocked| blocked.retry_after);
                row.retryable = row.retry_after.is_some();
                self.answer_waiters(decision.id, &row);
            }
            Ok(Proceed { mut job, observed, breaker_permit, range_pass, checks_left }) => {
                if let Action::Send(send) = &mut job.action {
                    let DueSend { provider: line, role, .. } = decision.turn;
                    send.queued = Some(Requeue { line, role, payload: decision.payload });
                }
                let admitted = Admitted {
                    verification: decision.id,
                    before: Status::Queued,
                    state: decision.state,
                    cohort: decision.cohort,
                    started_at: decision.decided_at,
                    observed,
                    breaker_permit,
                    range_pass,
                    checks_left,
                };
                self.begin_call(CallId::NONE, *job, admitted);
            }
        }
    }
}

/// Announces, if otp_gateway.notify is on, those of the found sends that the queue does not know yet.
pub fn announce_new(writer: &mut StoreTransaction, queue: &SendQueue, found: &[Found]) -> Result<(), Failure> {
    let new = found.iter().filter(|one| one.is_queued && !queue.knows(one.line, one.role_id, one.id));
    writer.announce(|| new.map(|queued| queued.id).collect())
}
