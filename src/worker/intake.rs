//! From letters to calls: what may go is put on record, durably and many at once, and then handed to the courier.

use std::collections::{HashMap, HashSet};

use dialect::{FindBy, Operation, Outcome};
use http_client::Parcel;
use policy::{Blocked, Micros, Pass, Reason, Status, Verification, admit, retryable};
use uuid::Uuid;

use crate::{
    api::idempotency,
    crypto::key_file,
    error::Misuse,
    ipc::{
        message::{Letter, Reply},
        worker::Ticket,
    },
    job::{Order, Outgoing, Target},
    pg::clock::clock,
    store::{
        Writer, erase_at,
        identity::Identity,
        rows::{Change, NewAttempt, NewReference, NewVerification, Stored, Which},
        transaction::{Durability, Failure},
    },
    worker::{
        limit_check::{Judge, NO_CODE, Verdict, words},
        state::{Desk, InFlight, done, failure_log::ATTEMPT, limit_state::Account, own_answer},
    },
};

/// What became of an order when its turn came.
pub enum Turn {
    /// It goes; `noted`: a rule that is only observed would have refused it.
    Goes {
        verification: Uuid,
        before: Status,
        state: Verification,
        created_at: Micros,
        noted: Option<Reason>,
        pass: Option<Pass>,
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

impl Turn {
    /// The verification on record that it changes.
    pub fn on_record(&self, order: &Order) -> Option<Uuid> {
        match self {
            Self::Goes { verification, .. } | Self::Ends { verification, .. } if !begins(order, *verification) => {
                Some(*verification)
            }
            _ => None,
        }
    }
}

impl Desk {
    /// Takes every letter whose turn it is.
    pub fn intend(&mut self) {
        let mut orders = Vec::new();
        let letters = std::mem::take(&mut self.pending);
        self.settle_first(letters.iter().filter_map(|(_, letter)| match letter {
            Letter::Settle(id) | Letter::Follow(id, _) => Some(*id),
            Letter::Call(order) => match order.target {
                Target::Known(id) => Some(id),
                Target::New(_) | Target::Find(..) | Target::Onward(_) => None,
            },
            Letter::Upkeep(_) | Letter::Identify(_) => None,
        }));
        for (ticket, letter) in letters {
            let subject = match &letter {
                Letter::Settle(id) => Some(*id),
                // They wait in a place of their own.
                Letter::Follow(..) | Letter::Upkeep(_) | Letter::Identify(_) => None,
                Letter::Call(order) => match order.target {
                    Target::Known(id) => Some(id),
                    // What goes on to another provider is what the verification is busy with.
                    Target::New(_) | Target::Find(..) | Target::Onward(_) => None,
                },
            };
            if let Some(waiting) = subject.and_then(|id| self.busy.get_mut(&id)) {
                waiting.push_back((ticket, letter));
                continue;
            }
            match letter {
                Letter::Settle(_) => self.reply(ticket, &Reply::Settled),
                Letter::Follow(id, which) => self.follow(ticket, id, which),
                Letter::Upkeep(upkeep) => self.keep(ticket, upkeep),
                Letter::Identify(subject) => self.identify(ticket, subject),
                Letter::Call(order) if !self.is_wanted(ticket, &order) => {}
                Letter::Call(order) => {
                    if let Some(id) = subject {
                        self.busy.entry(id).or_default();
                    }
                    orders.push((ticket, order));
                }
            }
        }
        if !orders.is_empty() {
            self.record_intents(orders);
        }
    }

    pub fn record_intents(&mut self, mut orders: Vec<(Ticket, Box<Order>)>) {
        match key_file::keys() {
            Ok(keys) => orders.iter_mut().for_each(|(_, order)| order.recognise(&keys)),
            Err(misuse) => {
                // One that goes on to the next provider of its route was recognised when it began.
                let is_known =
                    |(_, order): &(Ticket, Box<Order>)| order.recipient.is_none() || !order.recipient_keys.is_empty();
                let (known, unknown): (Vec<_>, Vec<_>) = orders.into_iter().partition(is_known);
                unknown.into_iter().for_each(|(ticket, order)| self.refuse(ticket, &order, &misuse));
                if known.is_empty() {
                    return;
                }
                orders = known;
            }
        }
        let mut needed = Vec::new();
        let may_be_left = self.may_be_left();
        let turns = self.ledger.write(Durability::Flushed, |writer| {
            let now = clock();
            orders.iter_mut().try_for_each(|(_, order)| self.identities.fill(writer, order))?;
            let flows = Flows::read(writer, &mut orders, now)?;
            let asked = orders.iter().flat_map(|(_, order)| order.with_onward());
            let judge = Judge::new(writer, asked, &mut self.standing, now)?;
            let mut batch = Batch::new(writer, &self.busy, may_be_left, now, flows, judge);
            let turns = orders.iter_mut().map(|(_, order)| batch.take(order)).collect::<Result<Vec<_>, _>>()?;
            needed = orders.iter().zip(&turns).map(|((_, order), turn)| turn.on_record(order)).collect();
            batch.write(&orders, &turns)?;
            Ok(turns)
        });
        self.identities.settle(turns.is_ok());
        self.standing.settle(turns.is_ok());
        match turns {
            Ok(turns) => {
                orders.into_iter().zip(turns).for_each(|((ticket, order), turn)| self.act(ticket, *order, turn))
            }
            Err(Failure::Gone) => {
                self.gone();
                self.put_back(orders);
            }
            Err(Failure::Busy) => match self.put_aside_orders(orders, &needed) {
                Ok(others) if others.is_empty() => {}
                Ok(others) => self.record_intents(others),
                Err(all) => {
                    self.put_back(all);
                    self.try_again_later();
                }
            },
            // One that cannot be recorded must not take the others with it.
            Err(Failure::Error(_)) if orders.len() > 1 => {
                orders.drain(..).for_each(|order| self.record_intents(vec![order]));
            }
            Err(Failure::Error(why)) => {
                self.complaints.raise(ATTEMPT, &why);
                let misuse = Misuse::internal(
                    "the attempt could not be put on record, so that nothing was sent",
                    "The server's log has the reason.",
                );
                orders.into_iter().for_each(|(ticket, order)| self.refuse(ticket, &order, &misuse));
            }
        }
    }

    pub fn refuse(&mut self, ticket: Ticket, order: &Order, misuse: &Misuse) {
        if let Target::Known(id) | Target::Onward(id) = order.target {
            self.release(id);
        }
        self.reply(ticket, &Reply::Refused(misuse.clone()));
    }

    pub fn put_back(&mut self, orders: Vec<(Ticket, Box<Order>)>) {
        for (ticket, order) in orders {
            let known = if let Target::Known(id) = order.target { Some(id) } else { None };
            if self.may_wait_on(ticket, &order) {
                self.pending.push((ticket, Letter::Call(order)));
            }
            if let Some(id) = known {
                self.release(id);
            }
        }
    }

    pub fn act(&mut self, ticket: Ticket, mut order: Order, turn: Turn) {
        match turn {
            Turn::Goes { verification, before, state, created_at, noted, pass, checks_left } => {
                self.busy.entry(verification).or_default();
                if matches!(order.target, Target::New(_) | Target::Find(..)) {
                    self.expiry.add(verification, erase_at(created_at, &state));
                }
                let account = Account::of(&order);
                let number = self.next_number();
                let is_resend = order.operation == Operation::Resend;
                let onward = order.next().map(Box::new);
                self.in_flight.insert(
                    number,
                    InFlight {
                        ticket,
                        attempt: order.attempt,
                        verification,
                        operation: order.operation,
                        provider: order.provider,
                        provider_id: order.provider_id,
                        before,
                        state,
                        code_lifetime: order.code_lifetime,
                        keeps_code: order.keeps_code,
                        created_at,
                        sealed: order.sealed.filter(|_| is_resend),
                        reference: order.reference.filter(|_| is_resend),
                        queued: order.queued,
                        onward,
                        account,
                        pass,
                        checks_left,
                        noted,
                    },
                );
                self.hand_over(number, order.operation, &order.vendor, order.local, order.outgoing);
            }
            Turn::Ends { verification, state, outcome, blocked, earlier, why, checks_left, .. } => {
                self.release(verification);
                let mut row = done(order.attempt, order.operation, verification, &state, outcome);
                row.attempts_left = row.attempts_left.min(checks_left.unwrap_or(u32::MAX));
                row.retryable = retryable(order.operation, outcome, row.attempts_left);
                row.vendor_message = why;
                row.reason = earlier.map(|earlier| earlier.reason);
                row.retry_after = earlier.and_then(|earlier| earlier.retry_after);
                if let Some(blocked) = blocked {
                    row.reason = Some(blocked.reason);
                    if order.operation == Operation::Verify {
                        // None before then, whatever the flow itself has left.
                        row.attempts_left = 0;
                    }
                    row.retry_after = blocked.retry_after;
                    row.retryable = blocked.retry_after.is_some();
                }
                // Whoever waits for a queued send does not wait for what somebody was told of a verify.
                if state.status != Status::Queued {
                    self.tell_followers(verification, &row);
                }
                self.reply(ticket, &Reply::Done(Box::new(row)));
            }
            Turn::Outdated => {
                if let Target::Known(id) | Target::Onward(id) = order.target {
                    self.release(id);
                }
                self.reply(ticket, &Reply::Again);
            }
            Turn::Waits { verification } => {
                order.target = Target::Known(verification);
                order.is_found = true;
                let letter = Letter::Call(Box::new(order));
                match self.busy.get_mut(&verification) {
                    Some(waiting) => waiting.push_back((ticket, letter)),
                    None => self.pending.push((ticket, letter)),
                }
            }
            Turn::OfAnother => {
                if let Target::Known(id) = order.target {
                    self.release(id);
                }
                let field = dialect::dialect(&order.vendor).map_or("mobile", |dialect| dialect.recipient_field().name);
                let misuse = Misuse::invalid(
                    format!("{field} belongs to the verification and cannot change"),
                    "leave it out, or give the one that the code was sent to",
                );
                self.reply(ticket, &Reply::Refused(misuse));
            }
            Turn::Missing => {
                if let Target::Known(id) | Target::Onward(id) = order.target {
                    self.release(id);
                }
                self.reply(
                    ticket,
                    &Reply::Refused(Misuse::undefined(
                        "there is no verification of that id",
                        "Give the verification_id that otp_send returned.",
                    )),
                );
            }
        }
    }
}

impl Desk {
    /// To the courier; what the gateway answers itself is there at once.
    pub fn hand_over(
        &mut self,
        number: u64,
        operation: Operation,
        vendor: &str,
        local: Option<Outcome>,
        outgoing: Option<Outgoing>,
    ) {
        if let Some(outcome) = local {
            let mut answer = own_answer(number, outcome, "answered by the gateway itself; no vendor was asked");
            // Vendors name the flow that a verify belongs to, and their fields ask for it.
            if let (Some(call), Outcome::Sent) = (self.in_flight.get(&number), outcome)
                && call.state.reference.is_none()
            {
                answer.reading.reference = Some(call.verification.to_string());
            }
            self.unrecorded.push(answer);
            return;
        }
        // Both were checked when the order was made.
        let (Some(dialect), Some(outgoing)) = (dialect::dialect(vendor), outgoing) else {
            // Whoever waits for it must not do so for ever.
            let why = "the order held no call to make; nothing was sent";
            return self.unrecorded.push(own_answer(number, Outcome::ProviderError, why));
        };
        self.courier.dispatch(Parcel {
            ticket: number,
            dialect,
            operation,
            request: outgoing.request,
            first: outgoing.first,
            route: outgoing.route,
            secrets: outgoing.secrets,
        });
    }

    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// By what an order names a flow begun elsewhere: provider, reference or recipient and role.
pub type FlowName = (Identity, Option<String>, Option<(Vec<u8>, Identity)>);

/// The flows on record that orders are about.
#[derive(Default)]
pub struct Flows {
    known: HashMap<Uuid, Stored>,
    /// By the order's attempt.
    found: HashMap<Uuid, Stored>,
    /// Orders that name another recipient than their flow's.
    of_another: HashSet<Uuid>,
}

impl Flows {
    /// Reads them, and has each order count for whom the record has, whatever its payload says.
    pub fn read(writer: &mut Writer, orders: &mut [(Ticket, Box<Order>)], now: Micros) -> Result<Self, Failure> {
        let known = |order: &Order| match order.target {
            Target::Known(id) | Target::Onward(id) => Some(id),
            Target::New(_) | Target::Find(..) => None,
        };
        let ids: Vec<Uuid> = orders.iter().filter_map(|(_, order)| known(order)).collect();
        let stored = writer.verifications(&ids)?;
        let mut flows =
            Self { known: stored.into_iter().map(|stored| (stored.id, stored)).collect(), ..Self::default() };
        for (_, order) in orders {
            let found = match order.target {
                Target::Find(by, _) => {
                    let (reference, keys) = (order.reference.as_deref(), &order.recipient_keys);
                    let found =
                        writer.latest(by, order.provider_id, &order.account_keys, reference, keys, order.role_id)?;
                    found.filter(|stored| is_the_same_flow(by, stored, now))
                }
                _ => None,
            };
            let is_new = matches!(order.target, Target::New(_) | Target::Onward(_));
            let flow = found.as_ref().or_else(|| flows.known.get(&known(order)?)).filter(|_| !is_new);
            if !is_new && !belongs(order, flow) {
                flows.of_another.insert(order.attempt);
            }
            flows.found.extend(found.map(|stored| (order.attempt, stored)));
        }
        Ok(flows)
    }
}

/// Has an order count for the recipient of the flow on record. False: it names another one.
pub fn belongs(order: &mut Order, flow: Option<&Stored>) -> bool {
    let was_sent = flow.is_some_and(|flow| flow.state.send_count > 0);
    if order.find_by == FindBy::Reference && !was_sent {
        order.is_claim = true;
        return true;
    }
    let Some(flow) = flow else { return true };
    // Where the session found it, the caller has the rights of the role that began it.
    let is_found = order.is_found || matches!(order.target, Target::Find(..));
    order.sender = Some(flow.role_id).filter(|_| !is_found);
    let Some(key) = &flow.recipient_key else {
        order.recipient_keys.clear();
        return true;
    };
    if order.recipient_keys.contains(key) {
        return true;
    }
    let is_another = is_found && !order.recipient_keys.is_empty();
    // What it knows of itself may be put down under a key that the file has lost.
    order.recipient_keys.push(key.clone());
    !is_another
}

/// A reference names one flow for good. A recipient's latest flow is the one meant while it can be; one whose checks are
/// spent stays it until its code is too old, or a new flow would give new guesses.
pub fn is_the_same_flow(by: FindBy, stored: &Stored, now: Micros) -> bool {
    by == FindBy::Reference
        || (stored.state.expires_at.is_none_or(|end| end > now)
            && (!stored.state.status.is_terminal() || stored.state.status == Status::MaxAttemptsReached))
}

/// One transaction's worth of orders.
pub struct Batch<'a, 'w, 'conn> {
    writer: &'a mut Writer<'w, 'conn>,
    busy: &'a HashMap<Uuid, std::collections::VecDeque<(Ticket, Letter)>>,
    /// What is found may have something in flight that a worker before this one left: that is settled first.
    may_be_left: bool,
    now: Micros,
    flows: Flows,
    judge: Judge<'a>,
    /// Attempts at providers of routes whose breaker is open.
    passed_over: Vec<NewAttempt>,
    /// The idempotency keys of this batch.
    keys: HashSet<Vec<u8>>,
    /// What this batch itself begins, by what a later order of it may name it: provider, reference or recipient.
    begun: HashMap<FlowName, Uuid>,
}

impl<'a, 'w, 'conn> Batch<'a, 'w, 'conn> {
    pub fn new(
        writer: &'a mut Writer<'w, 'conn>,
        busy: &'a HashMap<Uuid, std::collections::VecDeque<(Ticket, Letter)>>,
        may_be_left: bool,
        now: Micros,
        flows: Flows,
        judge: Judge<'a>,
    ) -> Self {
        let (passed_over, keys, begun) = (Vec::new(), HashSet::new(), HashMap::new());
        Self { writer, busy, may_be_left, now, flows, judge, passed_over, keys, begun }
    }

    pub fn take(&mut self, order: &mut Order) -> Result<Turn, Failure> {
        if let Target::New(id) | Target::Onward(id) = order.target {
            let passed_over = self.judge.pass_over(order, id);
            self.passed_over.extend(passed_over);
        }
        let order = &*order;
        if self.flows.of_another.contains(&order.attempt) {
            return Ok(Turn::OfAnother);
        }
        match order.target {
            Target::Onward(id) => match self.flows.known.remove(&id) {
                Some(stored) => {
                    let mut state = stored.state;
                    let refused = Verification { status: Status::Blocked, ..state.clone() };
                    state.send_count += 1;
                    state.reference.clone_from(&order.reference);
                    state.expires_at = self.end_of(order);
                    self.rule(order, id, Status::Sending, state, refused, stored.created_at)
                }
                None => Ok(Turn::Missing),
            },
            Target::New(id) => {
                if self.is_keyed_already(order)? {
                    return Ok(Turn::Outdated);
                }
                let mut state = Verification::sending(order.max_checks);
                state.reference.clone_from(&order.reference);
                state.expires_at = self.end_of(order);
                self.rule(order, id, Status::Sending, state, Verification::refused(order.max_checks), self.now)
            }
            Target::Known(id) => match self.flows.known.remove(&id) {
                Some(stored) => self.admit(order, stored),
                None => Ok(Turn::Missing),
            },
            Target::Find(by, new) => {
                if let Some(stored) = self.flows.found.remove(&order.attempt) {
                    if self.may_be_left
                        || self.busy.contains_key(&stored.id)
                        || self.begun.values().any(|id| *id == stored.id)
                    {
                        return Ok(Turn::Waits { verification: stored.id });
                    }
                    // Marks it for the rest of this batch.
                    self.begun.insert(name(by, order), stored.id);
                    return self.admit(order, stored);
                }
                if let Some(id) = self.begun.get(&name(by, order)) {
                    return Ok(Turn::Waits { verification: *id });
                }
                self.begun.insert(name(by, order), new);
                let mut state = Verification::begun_elsewhere(order.max_checks);
                state.reference.clone_from(&order.reference);
                // Its code was sent before now, so that it cannot live longer than this.
                state.expires_at = self.end_of(order);
                if order.is_no_code {
                    return Ok(self.no_code(order, new, Status::Pending, state));
                }
                let unchecked = state.clone();
                state.check_count = 1;
                self.rule(order, new, Status::Pending, state, unchecked, self.now)
            }
        }
    }

    /// The session looked, but a call of another one, since cancelled, may have been on its way here.
    pub fn is_keyed_already(&mut self, order: &Order) -> Result<bool, Failure> {
        let Some(idempotency) = &order.idempotency else { return Ok(false) };
        let is_new = self.keys.insert(idempotency.keys.first().cloned().unwrap_or_default());
        Ok(!is_new || self.writer.has_key(&idempotency.keys, idempotency::since(), order.role_id)?)
    }

    pub fn end_of(&self, order: &Order) -> Option<Micros> {
        order.code_lifetime.map(|lifetime| self.now.saturating_add(lifetime))
    }

    /// Lets it go with `state`, or blocks it and leaves the verification at `refused`.
    pub fn rule(
        &mut self,
        order: &Order,
        verification: Uuid,
        before: Status,
        state: Verification,
        refused: Verification,
        created_at: Micros,
    ) -> Result<Turn, Failure> {
        Ok(match self.judge.judge(self.writer, order)? {
            Verdict::Goes { noted, pass, checks_left } => {
                Turn::Goes { verification, before, state, created_at, noted, pass, checks_left }
            }
            Verdict::Blocked { blocked, checks_left } => Turn::Ends {
                verification,
                before,
                state: refused,
                outcome: Outcome::Blocked,
                blocked: Some(blocked),
                earlier: None,
                why: Some(words(blocked.reason).to_owned()),
                checks_left,
            },
        })
    }

    /// An empty code says nothing, to nobody: it is on record, and counts for nothing.
    pub fn no_code(&self, order: &Order, verification: Uuid, before: Status, state: Verification) -> Turn {
        Turn::Ends {
            verification,
            before,
            state,
            outcome: Outcome::InvalidCode,
            blocked: None,
            earlier: None,
            why: Some(NO_CODE.to_owned()),
            checks_left: self.judge.checks_left(order),
        }
    }

    pub fn admit(&mut self, order: &Order, stored: Stored) -> Result<Turn, Failure> {
        // Another code has been sent since: the old one's message would be about that, or end it.
        let is_other = |(reference, sends): &(Option<String>, u32)| {
            *reference != stored.state.reference || *sends != stored.state.send_count
        };
        if order.prepared_with.as_ref().is_some_and(is_other) {
            return Ok(Turn::Outdated);
        }
        let Stored { id, mut state, created_at, .. } = stored;
        let before = state.status;
        let unchanged = state.clone();
        match admit(order.operation, &mut state, self.now) {
            Err(outcome) => {
                let why = what_to_do(order.operation, before, state.status);
                let send = if before == Status::Blocked { self.writer.send_of(id, Which::Latest)? } else { None };
                let earlier = send.and_then(|send| {
                    let retry_after = send.retry_at.map(|at| at.saturating_sub(self.now).max(0));
                    Some(Blocked { reason: send.reason?, retry_after })
                });
                let (blocked, checks_left) = (None, None);
                Ok(Turn::Ends { verification: id, before, state, outcome, blocked, earlier, why, checks_left })
            }
            Ok(()) if order.is_no_code => Ok(self.no_code(order, id, before, unchanged)),
            Ok(()) if order.outgoing.is_none() && order.local.is_none() => Ok(Turn::Outdated),
            Ok(()) => {
                if order.operation == Operation::Resend {
                    state.status = Status::Sending;
                }
                self.rule(order, id, before, state, unchanged, created_at)
            }
        }
    }

    pub fn write(&mut self, orders: &[(Ticket, Box<Order>)], turns: &[Turn]) -> Result<(), Failure> {
        let mut verifications = Vec::new();
        let mut changes = Vec::new();
        let mut attempts = Vec::new();
        let mut references = Vec::new();
        for ((_, order), turn) in orders.iter().zip(turns) {
            let (verification, refused, reason, why, retry_at) = match turn {
                Turn::Goes { verification, noted, .. } => (*verification, None, *noted, &None, None),
                Turn::Ends { verification, outcome, blocked, earlier, why, .. } => {
                    let by = blocked.or(*earlier);
                    let retry_at = by.and_then(|by| by.retry_at(self.now));
                    (*verification, Some(*outcome), by.map(|by| by.reason), why, retry_at)
                }
                Turn::Waits { .. } | Turn::Missing | Turn::Outdated | Turn::OfAnother => continue,
            };
            attempts.push(NewAttempt {
                id: order.attempt,
                verification,
                operation: order.operation,
                refused,
                why: why.clone(),
                provider: order.provider.clone(),
                provider_id: order.provider_id,
                role_id: order.role_id,
                account: order.account_key().to_vec(),
                // A test number's counts for nobody, nor does what the record answered.
                recipient_key: order
                    .counted_key()
                    .filter(|_| !order.is_test && !matches!(turn, Turn::Ends { blocked: None, .. }))
                    .map(<[u8]>::to_vec),
                reason,
                retry_at,
                started_at: self.now,
            });
            match turn {
                Turn::Goes { state, .. } | Turn::Ends { state, .. } if begins(order, verification) => {
                    references.extend(new_reference(order, state, verification));
                    verifications.push(NewVerification {
                        id: verification,
                        provider: order.provider.clone(),
                        provider_id: order.provider_id,
                        vendor: order.vendor.clone(),
                        created_by: order.created_by.clone(),
                        role_id: order.role_id,
                        created_at: self.now,
                        recipient_masked: order.recipient_masked.clone(),
                        recipient_key: order.recipient_key().map(<[u8]>::to_vec),
                        sealed: order.sealed.clone().filter(|_| !state.status.is_terminal()),
                        state: state.clone(),
                        idempotency: order.idempotency.clone(),
                        is_test: order.is_test,
                        route: order.route.as_ref().map(|(name, _)| name.clone()).zip(order.route_id),
                    });
                }
                Turn::Goes { before, state, .. } | Turn::Ends { before, state, .. } => {
                    let mut change = Change {
                        id: verification,
                        before: *before,
                        moved_to: None,
                        state: state.clone(),
                        sealed: None,
                    };
                    if let Target::Onward(_) = order.target {
                        change.moved_to = Some(order.moved_to());
                        change.sealed.clone_from(&order.sealed);
                        references.extend(new_reference(order, state, verification));
                    }
                    changes.push(change);
                }
                Turn::Waits { .. } | Turn::Missing | Turn::Outdated | Turn::OfAnother => {}
            }
        }
        attempts.append(&mut self.passed_over);
        self.writer.insert_verifications(&verifications)?;
        self.writer.update_verifications(&changes)?;
        self.writer.insert_references(&references)?;
        self.writer.insert_attempts(&attempts)
    }
}

/// The reference that a verification goes by at the order's provider, if it has one.
pub fn new_reference<'a>(order: &'a Order, state: &'a Verification, verification: Uuid) -> Option<NewReference<'a>> {
    let reference = state.reference.as_deref()?;
    Some(NewReference { provider: &order.provider, provider_id: order.provider_id, reference, verification })
}

/// Whether the order begins this verification, rather than belonging to one on record.
pub fn begins(order: &Order, verification: Uuid) -> bool {
    match order.target {
        Target::New(_) => true,
        Target::Find(_, new) => new == verification,
        Target::Known(_) | Target::Onward(_) => false,
    }
}

pub fn name(by: FindBy, order: &Order) -> FlowName {
    let provider = order.provider_id;
    match by {
        // The account's, whichever of its providers.
        FindBy::Reference => (0, order.reference.clone(), Some((order.account_key().to_vec(), 0))),
        FindBy::Recipient => (provider, None, order.recipient_key().map(|key| (key.to_vec(), order.role_id))),
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
