//! Queued sends that have their turn: the job is made from the sealed payload, with the provider as it is now and
//! the rights of the role that enqueued it; what may go is put on record and given to the HTTP client like any other
//! call. One that cannot go fails alone.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
};

use dialect::{Operation, Outcome};
use pgrx::pg_sys;
use policy::{BlockReason, Blocked, BreakerPermit, Micros, Status, Verification, admit};
use uuid::Uuid;

use crate::{
    crypto::{
        key_file,
        seal::{Keys, Place},
    },
    enqueue::transaction,
    error::Error,
    gucs,
    ipc::worker::CallId,
    job::{Job, Requeue, prepare::JobSpec},
    pg::{clock::clock, foreign_servers},
    provider::{Provider, candidates::Candidates},
    store::{
        StoreTransaction,
        identity::{Identity, object_of},
        retention::erase_at,
        rows::{MovedTo, NewAttempt, QueuedPayload, QueuedVerification as Found, VerificationUpdate},
        transaction::{Durability, Failure},
    },
    worker::{
        intake::new_reference,
        limit_check::{LimitCheck, Verdict, explain},
        state::{
            InFlight, Worker, done,
            failure_log::QUEUED,
            limit_state::BreakerKey as BreakerOf,
            send_queue::{DueSend, SendQueue, UnderWay},
        },
    },
};

/// How many queued ones are read at once.
pub const PAGE: i64 = 2000;
/// How long one is left alone that somebody has locked.
pub const AFTER_LOCK: Micros = 200_000;
/// How long one is left alone that cannot even be failed.
pub const AFTER_FAULT: Micros = 10_000_000;

/// What becomes of one that has its turn.
pub struct QueuedDecision {
    id: Uuid,
    turn: DueSend,
    /// The provider's max_in_flight, as far as it was looked up.
    places: Option<u32>,
    /// The provider that it goes to, or would.
    asked: String,
    asked_id: Identity,
    /// The same with its vendor, if it is one of a route's.
    moved_to: Option<MovedTo>,
    role_id: Identity,
    attempt: Uuid,
    created_at: Micros,
    state: Verification,
    /// The sealed payload.
    payload: Vec<u8>,
    /// Whose limits it counts against.
    recipient_key: Option<Vec<u8>>,
    account: Vec<u8>,
    /// At providers of its route whose breaker is open.
    passed_over: Vec<NewAttempt>,
    /// It goes, or it ends without a call.
    go: Result<Proceed, Stop>,
}

pub struct Proceed {
    job: Box<Job>,
    noted: Option<BlockReason>,
    pass: Option<BreakerPermit>,
    checks_left: Option<u32>,
}

/// How one ends, and why.
pub struct Stop {
    outcome: Outcome,
    status: Status,
    why: String,
    blocked: Option<Blocked>,
}

impl Worker {
    /// Reads what has been queued since the last look: what is new, whoever has had a transaction open meanwhile, and
    /// for however long.
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

    /// The rest of what one look found.
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
                    // All of it is read again, in its own time.
                    self.queue.unread = Some((u64::MAX, Uuid::max()));
                    return self.on_failure(failure);
                }
            }
        }
    }

    /// One page of what was queued before the first look. False: it is all read.
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
                self.enlist(page);
            }
            Err(failure) => self.on_failure(failure),
        }
        true
    }

    pub fn enlist(&mut self, found: Vec<Found>) {
        for queued in found.into_iter().filter(|queued| queued.is_queued) {
            // Those whose turn it is just now are busy.
            if !self.is_busy(queued.id) {
                self.queue.add(queued.line, queued.role_id, queued.id, queued.created_at);
            }
        }
    }

    /// Gives those their turn that are due. False: there are none.
    pub fn send_due(&mut self) -> bool {
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
            self.queue.forget_places();
        }
        let turns = self.queue.take(clock(), gucs::queue_max_age(), of_line);
        if turns.is_empty() {
            return false;
        }
        self.decide_due(turns);
        true
    }

    pub fn decide_due(&mut self, mut turns: Vec<DueSend>) {
        let keys = key_file::keys();
        if let Err(error) = &keys {
            // They wait for the file to be mended; what has waited too long needs no key to expire.
            let now = clock();
            let is_too_old = |turn: &DueSend| turn.created_at.saturating_add(gucs::queue_max_age()) <= now;
            let (too_old, waiting): (Vec<DueSend>, Vec<DueSend>) = turns.into_iter().partition(is_too_old);
            if !waiting.is_empty() {
                error.clone().warn();
            }
            for turn in waiting {
                self.queue.wait(&turn, now.saturating_add(AFTER_FAULT));
            }
            if too_old.is_empty() {
                return;
            }
            turns = too_old;
        }
        let ids: Vec<Uuid> = turns.iter().map(|turn| turn.id).collect();
        let decisions = self.store.write(Durability::Flushed, |writer| {
            let now = clock();
            let mut queued_jobs = QueuedJobs { keys: keys.as_deref(), accounts: HashMap::new(), now };
            let mut decisions: Vec<QueuedDecision> =
                writer.queued_payloads(&ids)?.into_iter().map(|request| queued_jobs.decide(request)).collect();
            for go in decisions.iter_mut().filter_map(|decision| decision.go.as_mut().ok()) {
                self.identities.fill(writer, &mut go.job)?;
            }
            // Of the others, some were canceled, and some are locked by somebody.
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
            write(writer, &mut decisions, now)?;
            Ok((waiting, decisions, locked))
        });
        self.identities.settle(decisions.is_ok());
        self.limits.settle(decisions.is_ok());
        match decisions {
            Ok((waiting, decisions, locked)) => {
                for turn in turns.iter().filter(|turn| locked.iter().any(|stored| stored.id == turn.id)) {
                    self.queue.wait(turn, clock() + AFTER_LOCK);
                }
                for decision in waiting {
                    self.queue.put_back(&decision.turn);
                    if let Err(Stop { blocked: Some(Blocked { retry_after: Some(wait), .. }), .. }) = decision.go {
                        self.queue.pause(decision.turn.provider, clock().saturating_add(wait));
                    }
                }
                decisions.into_iter().for_each(|decision| self.send(decision));
            }
            Err(failure @ (Failure::NotInstalled | Failure::Busy)) => {
                turns.iter().for_each(|turn| self.queue.put_back(turn));
                self.on_failure(failure);
            }
            // One that cannot be decided must not take the others with it.
            Err(Failure::Error(_)) if turns.len() > 1 => {
                turns.into_iter().for_each(|turn| self.decide_due(vec![turn]));
            }
            Err(Failure::Error(why)) => turns.into_iter().for_each(|turn| self.fail(turn, &why)),
        }
    }

    /// One whose decision ends in an error of the server's.
    pub fn fail(&mut self, turn: DueSend, why: &str) {
        let failed = self.store.write(Durability::Flushed, |writer| {
            let now = clock();
            let mut decisions: Vec<QueuedDecision> = writer
                .queued_payloads(&[turn.id])?
                .into_iter()
                .map(|request| {
                    let end = Stop::failed(Outcome::InvalidRequest, format!("the send could not be prepared: {why}"));
                    QueuedDecision::new(request, Err(end))
                })
                .collect();
            write(writer, &mut decisions, now)?;
            Ok(decisions)
        });
        match failed {
            Ok(decisions) => decisions.into_iter().for_each(|decision| self.send(decision)),
            Err(Failure::NotInstalled) => self.extension_dropped(),
            Err(_) => {
                self.failures.raise(QUEUED, why);
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
                let mut row = done(decision.attempt, Operation::Send, decision.id, &decision.state, end.outcome);
                row.vendor_message = Some(end.why);
                row.reason = end.blocked.map(|blocked| blocked.reason);
                row.retry_after = end.blocked.and_then(|blocked| blocked.retry_after);
                row.retryable = row.retry_after.is_some();
                self.answer_waiters(decision.id, &row);
            }
            Ok(Proceed { mut job, noted, pass, checks_left }) => {
                let DueSend { provider: line, role, .. } = decision.turn;
                job.queued = Some(Requeue { line, role, payload: decision.payload });
                self.busy.entry(decision.id).or_default();
                self.expiry.add(decision.id, erase_at(decision.created_at, &decision.state));
                let account = BreakerOf::of(&job);
                let number = self.next_number();
                let fallbacks = job.next_fallback().map(Box::new);
                self.in_flight.insert(
                    number,
                    InFlight {
                        call_id: CallId::NONE,
                        attempt: decision.attempt,
                        verification: decision.id,
                        operation: Operation::Send,
                        provider: job.provider,
                        provider_id: job.provider_id,
                        before: Status::Queued,
                        state: decision.state,
                        code_lifetime: job.code_lifetime,
                        keeps_code: false,
                        created_at: decision.created_at,
                        sealed: None,
                        reference: None,
                        requeue: job.queued,
                        fallback: fallbacks,
                        account,
                        breaker_permit: pass,
                        checks_left,
                        observed: noted,
                    },
                );
                self.start_call(number, Operation::Send, &job.vendor, job.local_outcome, job.vendor_call);
            }
        }
    }
}

pub fn write(writer: &mut StoreTransaction, decisions: &mut [QueuedDecision], now: Micros) -> Result<(), Failure> {
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
            provider: decision.asked.clone(),
            provider_id: decision.asked_id,
            role_id: decision.role_id,
            account: decision.account.clone(),
            recipient_key: decision.recipient_key.clone(),
            reason: match &decision.go {
                Ok(go) => go.noted,
                Err(end) => end.blocked.map(|blocked| blocked.reason),
            },
            retry_at: decision.go.as_ref().err().and_then(|end| end.blocked?.retry_at(now)),
            started_at: now,
        });
        if let Ok(go) = &decision.go {
            references.extend(new_reference(&go.job, &decision.state, decision.id));
        }
    }
    writer.update_verifications(&changes)?;
    writer.insert_references(&references)?;
    writer.insert_attempts(&attempts)
}

impl QueuedDecision {
    pub fn new(request: QueuedPayload, go: Result<Proceed, Stop>) -> Self {
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
            created_at: request.stored.created_at,
            state,
            payload: request.sealed,
            recipient_key: None,
            account: Vec::new(),
            passed_over: Vec::new(),
            go,
        }
    }

    /// Asks the provider's rules; what they refuse ends, or waits for the breaker.
    pub fn rule(&mut self, writer: &mut StoreTransaction, limit_check: &mut LimitCheck) -> Result<(), Failure> {
        let Ok(go) = &mut self.go else { return Ok(()) };
        self.passed_over = limit_check.skip_open_breakers(&mut go.job, self.id);
        self.attempt = go.job.attempt;
        self.asked.clone_from(&go.job.provider);
        self.asked_id = go.job.provider_id;
        self.moved_to = go.job.route.as_ref().map(|_| go.job.moved_to());
        // A test number's counts for nobody.
        self.recipient_key = go.job.recipient_key().filter(|_| !go.job.is_test).map(<[u8]>::to_vec);
        self.account = go.job.account_key().to_vec();
        match limit_check.check(writer, &go.job)? {
            Verdict::Goes { observed: noted, breaker_permit: pass, checks_left } => {
                (go.noted, go.pass, go.checks_left) = (noted, pass, checks_left);
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
                });
            }
        }
        Ok(())
    }

    pub fn waits(&self) -> bool {
        matches!(&self.go, Err(Stop { blocked: Some(Blocked { reason: BlockReason::Breaker, .. }), .. }))
    }
}

/// With otp_gateway.notify: of those that nobody knew yet.
pub fn announce_new(writer: &mut StoreTransaction, queue: &SendQueue, found: &[Found]) -> Result<(), Failure> {
    let new = found.iter().filter(|one| one.is_queued && !queue.knows(one.line, one.role_id, one.id));
    writer.announce(|| new.map(|queued| queued.id).collect())
}

impl Stop {
    pub fn failed(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, status: Status::Failed, why: format!("{}; nothing was sent", why.into()), blocked: None }
    }
}

/// An account, and the role for which it was looked up.
pub type Entitled = (Rc<Candidates>, pg_sys::Oid);

/// What it takes to decide about many.
pub struct QueuedJobs<'k> {
    keys: Result<&'k Keys, &'k Error>,
    accounts: HashMap<(Identity, Identity), Result<Entitled, String>>,
    now: Micros,
}

impl QueuedJobs<'_> {
    pub fn decide(&mut self, request: QueuedPayload) -> QueuedDecision {
        let attempt = Uuid::now_v7();
        let mut places = None;
        let go = self.job(&request, attempt, &mut places);
        let mut decision = QueuedDecision { attempt, places, ..QueuedDecision::new(request, go) };
        if let Ok(go) = &decision.go {
            // Nothing stands in the way of a queued one.
            if let Err(outcome) = admit(Operation::Send, &mut decision.state, self.now) {
                decision.go = Err(Stop::failed(outcome, "it was no longer queued"));
                return decision;
            }
            decision.state.status = Status::Sending;
            decision.state.reference.clone_from(&go.job.reference);
            decision.state.expires_at = go.job.code_lifetime.map(|lifetime| self.now.saturating_add(lifetime));
        }
        decision
    }

    pub fn job(&mut self, request: &QueuedPayload, attempt: Uuid, places: &mut Option<u32>) -> Result<Proceed, Stop> {
        let max_age = gucs::queue_max_age();
        if request.stored.created_at.saturating_add(max_age) <= self.now {
            return Err(Stop {
                outcome: Outcome::Expired,
                status: Status::Expired,
                why: "it was queued for longer than otp_gateway.queue_max_age; nothing was sent".to_owned(),
                blocked: None,
            });
        }
        let (account, role) = self.account(request).map_err(|why| Stop::failed(Outcome::AuthFailed, why))?;
        *places = account.members.first().map(|first| first.options.max_in_flight);
        let keys = self.keys.map_err(|error| Stop::failed(Outcome::AuthFailed, error.message()))?;
        let payload = keys.open(&Place::Queued(request.stored.id), &request.sealed).map_err(|_| {
            let why = "the payload was sealed under another key, or for another database, of which this is a copy";
            Stop::failed(Outcome::AuthFailed, why)
        })?;
        let wanted = JobSpec {
            operation: Operation::Send,
            attempt,
            verification: request.stored.id,
            recorded: None,
            role: role.to_u32(),
            created_by: &request.created_by,
            code: None,
            payload: &payload,
        };
        let mut job = wanted
            .send(&account, keys)
            .map_err(|error| Stop::failed(Outcome::InvalidRequest, error.message_for_the_record()))?;
        job.derive_keys(keys);
        Ok(Proceed { job: Box::new(job), noted: None, pass: None, checks_left: None })
    }

    /// The provider, or the route, as it is now for the role that enqueued.
    pub fn account(&mut self, request: &QueuedPayload) -> Result<(Rc<Candidates>, pg_sys::Oid), String> {
        let server = request.route_id.unwrap_or(request.stored.provider_id);
        let (account, role) = match self.accounts.entry((server, request.role_id)) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(place) => place.insert(find(server, &request.provider, request.role_id)).clone(),
        }?;
        let is_same_vendor = |member: &Provider| member.dialect.name == request.vendor;
        if request.route_id.is_none() && !account.members.iter().all(is_same_vendor) {
            return Err(format!("provider \"{}\" now belongs to another vendor", request.provider));
        }
        Ok((account, role))
    }
}

pub fn find(server: Identity, name: &str, role: Identity) -> Result<(Rc<Candidates>, pg_sys::Oid), String> {
    let object = |id| object_of(id).map_err(|error| error.message().to_owned());
    // SAFETY: a look-up in the catalog, which gives a name or nothing.
    let exists = |role: &pg_sys::Oid| unsafe { !pg_sys::GetUserNameFromId(*role, true).is_null() };
    let role = object(role)?.filter(exists).ok_or("the role that enqueued it does not exist any more")?;
    let server = object(server)?
        .and_then(foreign_servers::server_of)
        .ok_or_else(|| format!("provider \"{name}\" does not exist any more"))?;
    let account = Candidates::of(server, role).map_err(|error| error.message().to_owned())?;
    Ok((Rc::new(account), role))
}
