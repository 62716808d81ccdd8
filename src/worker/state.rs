//! What is on the worker's desk: calls in flight, letters that wait for one of them, outcomes not yet on record.

pub mod expiry_heap;
pub mod failure_log;
pub mod known_identities;
pub mod limit_state;
pub mod maintenance_schedule;
pub mod recovery_progress;
pub mod send_queue;
pub mod waiting_for_locks;

use std::{
    collections::{HashMap, VecDeque},
    os::unix::net::UnixStream,
};

use dialect::{Operation, Outcome, Reading};
use http_client::{Courier, Delivery};
use pgrx::pg_sys;
use policy::{Micros, Pass, Reason, Status, Verification, retryable};
use uuid::Uuid;

use crate::{
    error::Misuse,
    gucs,
    ipc::{
        message::{self, Done, Letter, Reply},
        worker::{Ticket, WorkerSide},
        worker_registry,
    },
    job::{Order, Queued, Target},
    pg::clock::{clock, since_boot},
    store::{
        Ledger,
        identity::Identity,
        rows::{Stored, StoredAttempt},
        transaction::Failure,
    },
    worker::{
        lifecycle,
        state::{
            expiry_heap::Expiry,
            failure_log::Complaints,
            known_identities::Identities,
            limit_state::{Account, Standing},
            maintenance_schedule::Chores,
            recovery_progress::Recovery,
            send_queue::Queue,
            waiting_for_locks::Locked,
        },
    },
};

/// How long to wait before trying again what a lock or a full disk held up.
pub const AGAIN_AFTER: Micros = 100_000;

pub struct Desk {
    pub ledger: Ledger,
    pub mailbox: WorkerSide,
    pub expiry: Expiry,
    pub chores: Chores,
    pub recovery: Recovery,
    pub database: pg_sys::Oid,
    pub queue: Queue,
    /// Who waits for the end of a queued send.
    pub followers: HashMap<Uuid, Vec<Ticket>>,
    /// When there are so many, it is looked who still waits.
    pub most_followed: usize,
    pub standing: Standing,
    pub identities: Identities,
    /// Breakers that have opened (until when) or closed, and are not yet on record.
    pub turned: HashMap<Account, Option<Micros>>,
    pub courier: Courier,
    /// Letters whose turn it is.
    pub pending: Vec<(Ticket, Letter)>,
    /// Calls under way, by the number that the courier knows them by.
    pub in_flight: HashMap<u64, InFlight>,
    pub next_number: u64,
    /// Every verification with something under way, and the letters that wait for its end: one call at a time for each
    /// verification, or a code could be approved twice.
    pub busy: HashMap<Uuid, VecDeque<(Ticket, Letter)>>,
    /// Deliveries that could not be put on record yet.
    pub unrecorded: Vec<Delivery>,
    pub complaints: Complaints,
    /// What waits for a row that somebody has locked.
    pub locked: Locked,
    /// By [`since_boot`].
    pub again_at: Option<Micros>,
    pub gone: bool,
}

/// A call under way.
pub struct InFlight {
    pub ticket: Ticket,
    pub attempt: Uuid,
    pub verification: Uuid,
    pub operation: Operation,
    pub provider: String,
    pub provider_id: Identity,
    /// The verification's state before the attempt, and as its intent left it.
    pub before: Status,
    pub state: Verification,
    pub code_lifetime: Option<Micros>,
    /// It sends the code that was sent before.
    pub keeps_code: bool,
    pub created_at: Micros,
    /// For a resend: what to keep from now on, and the new reference.
    pub sealed: Option<Vec<u8>>,
    pub reference: Option<String>,
    /// Whose breaker it was, and what it gave for this call.
    pub account: Account,
    pub pass: Option<Pass>,
    /// How many wrong codes its recipient has left after this one.
    pub checks_left: Option<u32>,
    /// The rule that would have refused it.
    pub noted: Option<Reason>,
    /// For a queued send: what it takes to queue it again.
    pub queued: Option<Queued>,
    /// The same send through the other providers of its route.
    pub onward: Option<Box<Order>>,
}

impl InFlight {
    /// The line of the queue that it counts for.
    pub fn line(&self) -> Identity {
        self.queued.as_ref().map_or(self.provider_id, |queued| queued.line)
    }
}

impl Desk {
    pub fn open(database: pg_sys::Oid, ledger: Ledger) -> Self {
        lifecycle::reserve_sockets();
        let courier = lifecycle::without_signals(|| Courier::start(gucs::allowed_hosts(), lifecycle::with_own_locale))
            .unwrap_or_else(|error| pgrx::error!("otp_gateway: the courier's thread cannot be started: {error}"));
        Self {
            ledger,
            mailbox: WorkerSide::new(database.to_u32()),
            expiry: Expiry::default(),
            chores: Chores::default(),
            recovery: Recovery::default(),
            database,
            queue: Queue::default(),
            followers: HashMap::new(),
            most_followed: FOLLOWED,
            standing: Standing::default(),
            identities: Identities::default(),
            turned: HashMap::new(),
            courier,
            pending: Vec::new(),
            in_flight: HashMap::new(),
            next_number: 0,
            busy: HashMap::new(),
            unrecorded: Vec::new(),
            complaints: Complaints::default(),
            locked: Locked::default(),
            again_at: None,
            gone: false,
        }
    }

    /// Readable when a call has ended.
    pub fn bell(&self) -> &UnixStream {
        self.courier.bell()
    }

    pub fn settings_reloaded(&mut self) {
        self.courier.allow(gucs::allowed_hosts());
        self.chores.look_again();
    }

    /// When there is something to do though nobody calls.
    pub fn next_due(&self) -> Option<Micros> {
        let by_clock = |at: Micros| clock().saturating_add(at.saturating_sub(since_boot()));
        [
            self.again_at.map(by_clock),
            self.recovery.next_due().map(by_clock),
            self.locked.next_due().map(by_clock),
            self.complaints.next_due(),
            self.expiry.next_due(),
            self.chores.next_due(),
            self.queue.next_due(gucs::queue_max_age()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Nothing is under way, and nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.pending.is_empty()
            && self.busy.is_empty()
            && self.unrecorded.is_empty()
            && self.locked.is_empty()
            && self.followers.is_empty()
            && self.queue.is_empty()
            && self.is_recovered()
    }

    /// Its letters wait until it is not: what an attempt before this worker left of it is not on record yet.
    pub fn keep_busy(&mut self, verification: Uuid) {
        self.busy.entry(verification).or_default();
    }

    pub fn is_busy(&self, verification: Uuid) -> bool {
        self.busy.contains_key(&verification)
    }

    /// The extension was dropped.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    pub fn gone(&mut self) {
        self.gone = true;
    }

    /// One round. False: there was nothing to do.
    pub fn work(&mut self) -> bool {
        if !self.courier.is_alive() {
            pgrx::error!("otp_gateway: the courier's thread has died");
        }
        let mut worked = false;
        self.complaints.settle();
        if !self.recover_more() {
            return false;
        }
        let waiting = self.again_at.is_some_and(|at| at > since_boot());
        if !waiting {
            self.again_at = None;
        }
        if !waiting && !self.gone {
            worked |= self.retry_locked();
        }
        let mut deliveries = std::mem::take(&mut self.unrecorded);
        deliveries.extend(self.courier.fetch());
        if waiting {
            self.unrecorded = deliveries;
        } else if !deliveries.is_empty() {
            worked = true;
            self.conclude(deliveries);
        }
        for incoming in self.mailbox.collect() {
            worked = true;
            match message::read(&incoming.letter) {
                Ok(mut letter) => {
                    if let Letter::Call(order) = &mut letter {
                        order.taken_at = since_boot();
                    }
                    self.pending.push((incoming.ticket, letter));
                }
                Err(misuse) => self.reply(incoming.ticket, &Reply::Refused(misuse)),
            }
        }
        if !waiting && !self.pending.is_empty() && !self.gone {
            worked = true;
            self.intend();
        }
        if worker_registry::was_told_of_identities(self.database) {
            worked = true;
            self.update_identities();
        }
        if !waiting && !self.gone {
            // Between calls.
            worked |= self.read_left();
            worked |= self.read_earlier();
            worked |= self.load_more_expiry();
        }
        if worker_registry::was_told_of_queued(self.database) {
            worked = true;
            self.look_for_queued();
        }
        if !waiting && !self.gone {
            worked |= self.dispatch();
        }
        worked |= self.expire_due();
        if worker_registry::was_told_of_new_key(self.database) {
            self.chores.reseal();
        }
        worked || self.do_chore()
    }

    pub fn reply(&mut self, ticket: Ticket, reply: &Reply) {
        self.mailbox.reply(ticket, message::write(reply));
    }

    /// What a transaction that failed makes us do; what it was for is still on the desk.
    pub fn after(&mut self, failure: Failure) {
        match failure {
            Failure::Gone => self.gone(),
            Failure::Busy => self.try_again_later(),
            Failure::Error(why) => {
                self.complaints.raise(failure_log::READ, &why);
                self.try_again_later();
            }
        }
    }

    pub fn try_again_later(&mut self) {
        self.again_at = Some(since_boot() + AGAIN_AFTER);
    }

    /// The verification is free: whoever waits for it has their turn.
    pub fn release(&mut self, verification: Uuid) {
        if let Some(waiting) = self.busy.remove(&verification) {
            self.pending.extend(waiting);
        }
    }

    /// Lets what is under way end for so long, puts down what can be put down, and tells everybody who waits. Letters that
    /// nobody has read are the next worker's. False: there is something for it to do at once.
    pub fn close(mut self, grace: Micros) -> bool {
        let why = if self.gone {
            "the extension was dropped during the call"
        } else {
            "the server or its worker stopped before an answer came"
        };
        let mut deliveries = self.take_aside();
        let moved_on = self.refuse_waiting();
        self.courier.close();
        let until = since_boot().saturating_add(grace);
        while !self.gone && !self.in_flight.is_empty() && since_boot() < until {
            lifecycle::reset_latch();
            let waiting = self.again_at.is_some_and(|at| at > since_boot());
            self.unrecorded.extend(self.courier.fetch());
            if !waiting && !self.unrecorded.is_empty() {
                self.again_at = None;
                let deliveries = std::mem::take(&mut self.unrecorded);
                self.conclude(deliveries);
                continue;
            }
            let wake = self.again_at.filter(|_| waiting).map_or(until, |at| at.min(until));
            lifecycle::sleep(self.courier.bell(), Some(clock().saturating_add(wake.saturating_sub(since_boot()))));
        }
        deliveries.extend(self.take_aside());
        deliveries.append(&mut self.unrecorded);
        deliveries.extend(self.courier.fetch());
        let ended: Vec<u64> = deliveries.iter().map(|delivery| delivery.ticket).collect();
        deliveries
            .extend(self.in_flight.keys().filter(|number| !ended.contains(number)).map(|number| unknown(*number, why)));
        if !self.gone && !deliveries.is_empty() {
            self.conclude(deliveries);
            // Dropped, or locked by somebody, just now: what is left in flight there becomes unknown at the next start.
            deliveries = std::mem::take(&mut self.unrecorded);
            deliveries.extend(self.take_aside());
        }
        let recorded = deliveries.is_empty();
        for delivery in deliveries {
            if let Some(call) = self.in_flight.remove(&delivery.ticket) {
                let mut row = done(call.attempt, call.operation, call.verification, &call.state, Outcome::Unknown);
                row.status = Status::Unknown;
                row.vendor_message = Some(why.to_owned());
                self.reply(call.ticket, &Reply::Done(Box::new(row)));
            }
        }
        let following: Vec<Ticket> = self.followers.drain().flat_map(|(_, tickets)| tickets).collect();
        for ticket in following {
            self.reply(ticket, &Reply::Again);
        }
        let moves_on = self.refuse_waiting() || moved_on;
        self.gone || recorded && !moves_on && self.queue.is_empty() && self.is_recovered()
    }

    /// Those whose letter was read and whose turn does not come any more. True: one was on its way from one provider of a
    /// route to the next, which the next worker settles.
    pub fn refuse_waiting(&mut self) -> bool {
        let mut waiting: Vec<(Ticket, Letter)> = std::mem::take(&mut self.pending);
        waiting.extend(self.busy.values_mut().flat_map(std::mem::take));
        let is_onward =
            |letter: &Letter| matches!(letter, Letter::Call(order) if matches!(order.target, Target::Onward(_)));
        let moves_on = waiting.iter().any(|(_, letter)| is_onward(letter));
        for (ticket, letter) in waiting {
            // What asks for nothing to be sent is asked of the next worker.
            let reply = if matches!(letter, Letter::Call(_)) { stopped() } else { Reply::Again };
            self.reply(ticket, &reply);
        }
        moves_on
    }
}

pub fn unknown(number: u64, why: &str) -> Delivery {
    own_answer(number, Outcome::Unknown, why)
}

/// The end of a call that nobody else tells of.
pub fn own_answer(number: u64, outcome: Outcome, why: &str) -> Delivery {
    Delivery {
        ticket: number,
        http_status: None,
        reading: Reading::new(outcome, None, Some(why.to_owned())),
        record: None,
        voided: false,
        unbegun: false,
        is_callers_fault: false,
    }
}

pub fn stopped() -> Reply {
    Reply::Refused(Misuse::not_ready(
        "the background worker stopped before the call was made; nothing was sent",
        "Call again.",
    ))
}

/// Answers those who wait for a worker in a database where none can serve.
pub fn turn_away(database: pg_sys::Oid, why: &str, hint: &str) {
    let refused = Reply::Refused(Misuse::not_ready(format!("{why}; nothing was sent"), hint));
    WorkerSide::new(database.to_u32()).answer_all(&message::write(&refused));
}

/// The row for a caller, as far as the verification's state says it.
pub fn done(attempt: Uuid, operation: Operation, verification: Uuid, state: &Verification, outcome: Outcome) -> Done {
    Done {
        attempt: Some(attempt),
        outcome: Some(outcome),
        retryable: retryable(operation, outcome, state.attempts_left()),
        ..Done::without_attempt(verification, state)
    }
}

/// The row for a caller, from an attempt that has ended.
pub fn done_from_record(attempt: StoredAttempt, stored: &Stored, outcome: Outcome) -> Done {
    let mut row = done(attempt.id, attempt.operation, stored.id, &stored.state, outcome);
    row.vendor_code = attempt.vendor_code;
    row.vendor_message = attempt.vendor_message;
    row.response = attempt.response;
    row.reason = attempt.reason;
    // What is left of the wait.
    row.retry_after = attempt.retry_at.map(|at| at.saturating_sub(clock()).max(0));
    row.retryable |= outcome == Outcome::Blocked && row.retry_after.is_some();
    row
}

/// So many are kept before it is looked who still waits.
pub const FOLLOWED: usize = 64;
