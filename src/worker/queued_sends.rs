//! Queued sends that have their turn: the letter is written from the sealed payload, with the provider as it is now and
//! the rights of the role that enqueued it; what may go is put on record and handed to the courier like any other call.
//! One that cannot go fails alone.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
};

use dialect::{Operation, Outcome};
use pgrx::pg_sys;
use policy::{Blocked, Micros, Pass, Reason, Status, Verification, admit};
use uuid::Uuid;

use crate::{
    crypto::{
        key_file,
        seal::{Keys, Place},
    },
    enqueue::transaction,
    error::Misuse,
    gucs,
    ipc::worker::Ticket,
    job::{Order, Queued, prepare::Wanted},
    pg::{clock::clock, foreign_servers},
    provider::{Provider, candidates::Account},
    store::{
        Writer, erase_at,
        identity::{Identity, object_of},
        rows::{Change, MovedTo, NewAttempt, Queued as Found, QueuedLetter},
        transaction::{Durability, Failure},
    },
    worker::{
        intake::new_reference,
        limit_check::{Judge, Verdict, words},
        state::{
            Desk, InFlight, done,
            failure_log::QUEUED,
            limit_state::Account as BreakerOf,
            send_queue::{Queue, Turn, UnderWay},
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
pub struct Fate {
    id: Uuid,
    turn: Turn,
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
    go: Result<Go, End>,
}

pub struct Go {
    order: Box<Order>,
    noted: Option<Reason>,
    pass: Option<Pass>,
    checks_left: Option<u32>,
}

/// How one ends, and why.
pub struct End {
    outcome: Outcome,
    status: Status,
    why: String,
    blocked: Option<Blocked>,
}

impl Desk {
    /// Reads what has been queued since the last look: what is new, whoever has had a transaction open meanwhile, and for
    /// however long.
    pub fn look_for_queued(&mut self) {
        let seen = self.queue.seen.take();
        let queue = &self.queue;
        let looked = self.ledger.write(Durability::Lazy, |writer| {
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
                crate::ipc::worker_registry::tell_of_queued(self.database);
                self.after(failure);
            }
        }
    }

    /// The rest of what one look found.
    pub fn read_queued(&mut self, mut after: (u64, Uuid), end: u64) {
        loop {
            let queue = &self.queue;
            let page = self.ledger.write(Durability::Lazy, |writer| {
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
                    return self.after(failure);
                }
            }
        }
    }

    /// One page of what was queued before the first look. False: it is all read.
    pub fn read_earlier(&mut self) -> bool {
        let Some(before) = self.queue.unread else { return false };
        let queue = &self.queue;
        let page = self.ledger.write(Durability::Lazy, |writer| {
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
            Err(failure) => self.after(failure),
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
    pub fn dispatch(&mut self) -> bool {
        let mut under_way: HashMap<Identity, UnderWay> = HashMap::new();
        for call in self.in_flight.values() {
            let under_way = under_way.entry(call.line()).or_default();
            match call.queued {
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
        self.give_turns(turns);
        true
    }

    pub fn give_turns(&mut self, mut turns: Vec<Turn>) {
        let keys = key_file::keys();
        if let Err(misuse) = &keys {
            // They wait for the file to be mended; what has waited too long needs no key to expire.
            let now = clock();
            let is_too_old = |turn: &Turn| turn.created_at.saturating_add(gucs::queue_max_age()) <= now;
            let (too_old, waiting): (Vec<Turn>, Vec<Turn>) = turns.into_iter().partition(is_too_old);
            if !waiting.is_empty() {
                misuse.clone().warn();
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
        let fates = self.ledger.write(Durability::Flushed, |writer| {
            let now = clock();
            let mut office = Office { keys: keys.as_deref(), accounts: HashMap::new(), now };
            let mut fates: Vec<Fate> = writer.letters(&ids)?.into_iter().map(|letter| office.decide(letter)).collect();
            for go in fates.iter_mut().filter_map(|fate| fate.go.as_mut().ok()) {
                self.identities.fill(writer, &mut go.order)?;
            }
            // Of the others, some were canceled, and some are locked by somebody.
            let found: HashSet<Uuid> = fates.iter().map(|fate| fate.id).collect();
            let others: Vec<Uuid> = ids.iter().copied().filter(|id| !found.contains(id)).collect();
            let mut locked = writer.verifications(&others)?;
            locked.retain(|stored| stored.state.status == Status::Queued);
            let orders = fates.iter().filter_map(|fate| fate.go.as_ref().ok()).flat_map(|go| go.order.with_onward());
            let mut judge = Judge::new(writer, orders, &mut self.standing, now)?;
            fates.iter_mut().try_for_each(|fate| fate.rule(writer, &mut judge))?;
            let (waiting, mut fates): (Vec<Fate>, Vec<Fate>) = fates.into_iter().partition(Fate::waits);
            write(writer, &mut fates, now)?;
            Ok((waiting, fates, locked))
        });
        self.identities.settle(fates.is_ok());
        self.standing.settle(fates.is_ok());
        match fates {
            Ok((waiting, fates, locked)) => {
                for turn in turns.iter().filter(|turn| locked.iter().any(|stored| stored.id == turn.id)) {
                    self.queue.wait(turn, clock() + AFTER_LOCK);
                }
                for fate in waiting {
                    self.queue.put_back(&fate.turn);
                    if let Err(End { blocked: Some(Blocked { retry_after: Some(wait), .. }), .. }) = fate.go {
                        self.queue.pause(fate.turn.provider, clock().saturating_add(wait));
                    }
                }
                fates.into_iter().for_each(|fate| self.send(fate));
            }
            Err(failure @ (Failure::Gone | Failure::Busy)) => {
                turns.iter().for_each(|turn| self.queue.put_back(turn));
                self.after(failure);
            }
            // One that cannot be decided must not take the others with it.
            Err(Failure::Error(_)) if turns.len() > 1 => {
                turns.into_iter().for_each(|turn| self.give_turns(vec![turn]));
            }
            Err(Failure::Error(why)) => turns.into_iter().for_each(|turn| self.fail(turn, &why)),
        }
    }

    /// One whose decision ends in an error of the server's.
    pub fn fail(&mut self, turn: Turn, why: &str) {
        let failed = self.ledger.write(Durability::Flushed, |writer| {
            let now = clock();
            let mut fates: Vec<Fate> = writer
                .letters(&[turn.id])?
                .into_iter()
                .map(|letter| {
                    let end = End::failed(Outcome::InvalidRequest, format!("the send could not be prepared: {why}"));
                    Fate::new(letter, Err(end))
                })
                .collect();
            write(writer, &mut fates, now)?;
            Ok(fates)
        });
        match failed {
            Ok(fates) => fates.into_iter().for_each(|fate| self.send(fate)),
            Err(Failure::Gone) => self.gone(),
            Err(_) => {
                self.complaints.raise(QUEUED, why);
                self.queue.wait(&turn, clock() + AFTER_FAULT);
            }
        }
    }

    pub fn send(&mut self, fate: Fate) {
        if let Some(places) = fate.places {
            self.queue.set_places(fate.turn.provider, places);
        }
        match fate.go {
            Err(end) => {
                let mut row = done(fate.attempt, Operation::Send, fate.id, &fate.state, end.outcome);
                row.vendor_message = Some(end.why);
                row.reason = end.blocked.map(|blocked| blocked.reason);
                row.retry_after = end.blocked.and_then(|blocked| blocked.retry_after);
                row.retryable = row.retry_after.is_some();
                self.tell_followers(fate.id, &row);
            }
            Ok(Go { mut order, noted, pass, checks_left }) => {
                let Turn { provider: line, role, .. } = fate.turn;
                order.queued = Some(Queued { line, role, payload: fate.payload });
                self.busy.entry(fate.id).or_default();
                self.expiry.add(fate.id, erase_at(fate.created_at, &fate.state));
                let account = BreakerOf::of(&order);
                let number = self.next_number();
                let onward = order.next().map(Box::new);
                self.in_flight.insert(
                    number,
                    InFlight {
                        ticket: Ticket::NOBODY,
                        attempt: fate.attempt,
                        verification: fate.id,
                        operation: Operation::Send,
                        provider: order.provider,
                        provider_id: order.provider_id,
                        before: Status::Queued,
                        state: fate.state,
                        code_lifetime: order.code_lifetime,
                        keeps_code: false,
                        created_at: fate.created_at,
                        sealed: None,
                        reference: None,
                        queued: order.queued,
                        onward,
                        account,
                        pass,
                        checks_left,
                        noted,
                    },
                );
                self.hand_over(number, Operation::Send, &order.vendor, order.local, order.outgoing);
            }
        }
    }
}

pub fn write(writer: &mut Writer, fates: &mut [Fate], now: Micros) -> Result<(), Failure> {
    let mut changes = Vec::new();
    let mut attempts = Vec::new();
    let mut references = Vec::new();
    for fate in fates {
        let sealed = fate.go.as_ref().ok().and_then(|go| go.order.sealed.clone());
        let moved_to = fate.moved_to.clone();
        attempts.append(&mut fate.passed_over);
        changes.push(Change { id: fate.id, before: Status::Queued, moved_to, state: fate.state.clone(), sealed });
        attempts.push(NewAttempt {
            id: fate.attempt,
            verification: fate.id,
            operation: Operation::Send,
            refused: fate.go.as_ref().err().map(|end| end.outcome),
            why: fate.go.as_ref().err().map(|end| end.why.clone()),
            provider: fate.asked.clone(),
            provider_id: fate.asked_id,
            role_id: fate.role_id,
            account: fate.account.clone(),
            recipient_key: fate.recipient_key.clone(),
            reason: match &fate.go {
                Ok(go) => go.noted,
                Err(end) => end.blocked.map(|blocked| blocked.reason),
            },
            retry_at: fate.go.as_ref().err().and_then(|end| end.blocked?.retry_at(now)),
            started_at: now,
        });
        if let Ok(go) = &fate.go {
            references.extend(new_reference(&go.order, &fate.state, fate.id));
        }
    }
    writer.update_verifications(&changes)?;
    writer.insert_references(&references)?;
    writer.insert_attempts(&attempts)
}

impl Fate {
    pub fn new(letter: QueuedLetter, go: Result<Go, End>) -> Self {
        let mut state = letter.stored.state;
        if let Err(end) = &go {
            state.status = end.status;
        }
        Self {
            id: letter.stored.id,
            turn: Turn {
                provider: letter.route_id.unwrap_or(letter.stored.provider_id),
                role: letter.role_id,
                id: letter.stored.id,
                created_at: letter.stored.created_at,
            },
            places: None,
            asked: letter.provider,
            asked_id: letter.stored.provider_id,
            moved_to: None,
            role_id: letter.role_id,
            attempt: Uuid::now_v7(),
            created_at: letter.stored.created_at,
            state,
            payload: letter.sealed,
            recipient_key: None,
            account: Vec::new(),
            passed_over: Vec::new(),
            go,
        }
    }

    /// Asks the provider's rules; what they refuse ends, or waits for the breaker.
    pub fn rule(&mut self, writer: &mut Writer, judge: &mut Judge) -> Result<(), Failure> {
        let Ok(go) = &mut self.go else { return Ok(()) };
        self.passed_over = judge.pass_over(&mut go.order, self.id);
        self.attempt = go.order.attempt;
        self.asked.clone_from(&go.order.provider);
        self.asked_id = go.order.provider_id;
        self.moved_to = go.order.route.as_ref().map(|_| go.order.moved_to());
        // A test number's counts for nobody.
        self.recipient_key = go.order.recipient_key().filter(|_| !go.order.is_test).map(<[u8]>::to_vec);
        self.account = go.order.account_key().to_vec();
        match judge.judge(writer, &go.order)? {
            Verdict::Goes { noted, pass, checks_left } => {
                (go.noted, go.pass, go.checks_left) = (noted, pass, checks_left);
            }
            Verdict::Blocked { blocked, .. } => {
                self.state = Verification {
                    send_count: self.state.send_count.saturating_sub(1),
                    status: Status::Blocked,
                    ..self.state.clone()
                };
                self.go = Err(End {
                    outcome: Outcome::Blocked,
                    status: Status::Blocked,
                    why: words(blocked.reason).to_owned(),
                    blocked: Some(blocked),
                });
            }
        }
        Ok(())
    }

    pub fn waits(&self) -> bool {
        matches!(&self.go, Err(End { blocked: Some(Blocked { reason: Reason::Breaker, .. }), .. }))
    }
}

/// With otp_gateway.notify: of those that nobody knew yet.
pub fn announce_new(writer: &mut Writer, queue: &Queue, found: &[Found]) -> Result<(), Failure> {
    let new = found.iter().filter(|one| one.is_queued && !queue.knows(one.line, one.role_id, one.id));
    writer.announce(|| new.map(|queued| queued.id).collect())
}

impl End {
    pub fn failed(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, status: Status::Failed, why: format!("{}; nothing was sent", why.into()), blocked: None }
    }
}

/// An account, and the role for which it was looked up.
pub type Entitled = (Rc<Account>, pg_sys::Oid);

/// What it takes to decide about many.
pub struct Office<'k> {
    keys: Result<&'k Keys, &'k Misuse>,
    accounts: HashMap<(Identity, Identity), Result<Entitled, String>>,
    now: Micros,
}

impl Office<'_> {
    pub fn decide(&mut self, letter: QueuedLetter) -> Fate {
        let attempt = Uuid::now_v7();
        let mut places = None;
        let go = self.order(&letter, attempt, &mut places);
        let mut fate = Fate { attempt, places, ..Fate::new(letter, go) };
        if let Ok(go) = &fate.go {
            // Nothing stands in the way of a queued one.
            if let Err(outcome) = admit(Operation::Send, &mut fate.state, self.now) {
                fate.go = Err(End::failed(outcome, "it was no longer queued"));
                return fate;
            }
            fate.state.status = Status::Sending;
            fate.state.reference.clone_from(&go.order.reference);
            fate.state.expires_at = go.order.code_lifetime.map(|lifetime| self.now.saturating_add(lifetime));
        }
        fate
    }

    pub fn order(&mut self, letter: &QueuedLetter, attempt: Uuid, places: &mut Option<u32>) -> Result<Go, End> {
        let max_age = gucs::queue_max_age();
        if letter.stored.created_at.saturating_add(max_age) <= self.now {
            return Err(End {
                outcome: Outcome::Expired,
                status: Status::Expired,
                why: "it was queued for longer than otp_gateway.queue_max_age; nothing was sent".to_owned(),
                blocked: None,
            });
        }
        let (account, role) = self.account(letter).map_err(|why| End::failed(Outcome::AuthFailed, why))?;
        *places = account.members.first().map(|first| first.options.max_in_flight);
        let keys = self.keys.map_err(|misuse| End::failed(Outcome::AuthFailed, misuse.message()))?;
        let payload = keys.open(&Place::Queued(letter.stored.id), &letter.sealed).map_err(|_| {
            let why = "the payload was sealed under another key, or for another database, of which this is a copy";
            End::failed(Outcome::AuthFailed, why)
        })?;
        let wanted = Wanted {
            operation: Operation::Send,
            attempt,
            verification: letter.stored.id,
            recorded: None,
            role: role.to_u32(),
            created_by: &letter.created_by,
            code: None,
            payload: &payload,
        };
        let mut order = wanted
            .send(&account, keys)
            .map_err(|misuse| End::failed(Outcome::InvalidRequest, misuse.message_for_the_record()))?;
        order.recognise(keys);
        Ok(Go { order: Box::new(order), noted: None, pass: None, checks_left: None })
    }

    /// The provider, or the route, as it is now for the role that enqueued.
    pub fn account(&mut self, letter: &QueuedLetter) -> Result<(Rc<Account>, pg_sys::Oid), String> {
        let server = letter.route_id.unwrap_or(letter.stored.provider_id);
        let (account, role) = match self.accounts.entry((server, letter.role_id)) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(place) => place.insert(find(server, &letter.provider, letter.role_id)).clone(),
        }?;
        let is_same_vendor = |member: &Provider| member.dialect.name == letter.vendor;
        if letter.route_id.is_none() && !account.members.iter().all(is_same_vendor) {
            return Err(format!("provider \"{}\" now belongs to another vendor", letter.provider));
        }
        Ok((account, role))
    }
}

pub fn find(server: Identity, name: &str, role: Identity) -> Result<(Rc<Account>, pg_sys::Oid), String> {
    let object = |id| object_of(id).map_err(|misuse| misuse.message().to_owned());
    // SAFETY: a look-up in the catalog, which gives a name or nothing.
    let exists = |role: &pg_sys::Oid| unsafe { !pg_sys::GetUserNameFromId(*role, true).is_null() };
    let role = object(role)?.filter(exists).ok_or("the role that enqueued it does not exist any more")?;
    let server = object(server)?
        .and_then(foreign_servers::server_of)
        .ok_or_else(|| format!("provider \"{name}\" does not exist any more"))?;
    let account = Account::of(server, role).map_err(|misuse| misuse.message().to_owned())?;
    Ok((Rc::new(account), role))
}
