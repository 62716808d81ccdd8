//! What the providers' rules say of orders, by the record as it is now: asked in the very transaction that records the
//! intents, and what has just been let go counts for the next.

use std::collections::HashMap;

use policy::{Blocked, Breaker, History, Limits, Micros, Pass, Reason, Rules};
use uuid::Uuid;
use vendor::{Operation, Outcome};

use crate::{
    identity::Identity,
    ledger::{Failure, NewAttempt, Question, Writer},
    letter::Order,
};

/// What is known of this database's providers without asking the record.
#[derive(Clone, Default)]
pub struct Standing {
    /// By the OID of the foreign server: one that is made anew starts closed.
    pub breakers: HashMap<u32, Breaker>,
    /// How many sends the provider_limit lets go before they must be counted again.
    rooms: HashMap<Identity, (Limits, usize)>,
}

pub enum Verdict {
    /// `noted`: the rule that would have refused it.
    Goes {
        noted: Option<Reason>,
        pass: Option<Pass>,
    },
    Blocked(Blocked),
}

pub struct Judge<'a> {
    /// By provider and the key that the recipient is put down under.
    histories: HashMap<(Identity, Vec<u8>), History>,
    /// Sends of providers with a provider_limit that is nearly reached.
    bills: HashMap<Identity, Vec<Micros>>,
    standing: &'a mut Standing,
    now: Micros,
}

impl<'a> Judge<'a> {
    /// Reads, at once, what it takes to judge all of these.
    pub fn new<'o>(
        writer: &mut Writer,
        orders: impl Iterator<Item = &'o Order> + Clone,
        standing: &'a mut Standing,
        now: Micros,
    ) -> Result<Self, Failure> {
        let subjects = || {
            let subject = |order: &'o Order| order.rules.as_ref().map(|rules| (order, rules));
            orders.clone().filter_map(subject).filter(|(order, ..)| order.operation != Operation::Cancel)
        };
        let questions: Vec<Question> = subjects()
            .flat_map(|(order, rules)| {
                order.recipient_keys.iter().map(move |recipient_key| Question {
                    provider: order.provider_id,
                    recipient_key,
                    is_check: order.operation == Operation::Verify,
                    since: now.saturating_sub(rules.reach(order.operation)),
                    most: most(rules, order.operation),
                })
            })
            .collect();
        let mut histories = HashMap::new();
        let mut bills = HashMap::new();
        if !questions.is_empty() {
            let mut answers: Vec<History> = questions.iter().map(|_| History::default()).collect();
            for event in writer.events(&questions)? {
                let Some(answer) = event.question.checked_sub(1).and_then(|index| answers.get_mut(index)) else {
                    continue;
                };
                match event.operation {
                    Operation::Verify => {
                        answer.checks.push((event.started_at, event.outcome == Some(Outcome::Approved)));
                    }
                    _ => answer.sends.push(event.started_at),
                }
            }
            let mut by_key: HashMap<(Identity, &[u8]), History> = HashMap::new();
            for (question, answer) in questions.iter().zip(answers) {
                let history = by_key.entry((question.provider, question.recipient_key)).or_default();
                // The same question twice has the same answer; of two that differ in reach the longer one counts.
                if answer.sends.len() > history.sends.len() {
                    history.sends = answer.sends;
                }
                if answer.checks.len() > history.checks.len() {
                    history.checks = answer.checks;
                }
            }
            for (order, _) in subjects() {
                let Some(first) = order.recipient_key() else { continue };
                histories.entry((order.provider_id, first.to_vec())).or_insert_with(|| {
                    let names = order.recipient_keys.iter().map(|key| (order.provider_id, key.as_slice()));
                    names.filter_map(|name| by_key.remove(&name)).reduce(History::and).unwrap_or_default()
                });
            }
        }
        let mut sends: HashMap<Identity, (&Limits, usize)> = HashMap::new();
        for order in orders.filter(|order| is_send(order.operation)) {
            if let Some(limits) = order.rules.as_ref().and_then(|rules| rules.provider_limit.as_ref()) {
                sends.entry(order.provider_id).or_insert((limits, 0)).1 += 1;
            }
        }
        for (provider, (limits, wanted)) in sends {
            let room = standing.rooms.get(&provider).filter(|(of, room)| of == limits && *room >= wanted);
            if room.is_none() {
                let since = now.saturating_sub(limits.reach());
                let bill = writer.provider_sends(provider, since, limits.most() as i64)?;
                standing.rooms.insert(provider, (limits.clone(), limits.room(&bill, now)));
                bills.insert(provider, bill);
            }
        }
        Ok(Self { histories, bills, standing, now })
    }

    /// Where the breaker of a route's provider is open, the send goes on to the next one: the order becomes that one's,
    /// and what was passed over is returned, to be put on record.
    pub fn pass_over(&mut self, order: &mut Order, verification: Uuid) -> Vec<NewAttempt> {
        let mut passed_over = Vec::new();
        while !order.onward.is_empty() && self.is_open(order) {
            passed_over.push(NewAttempt {
                id: order.attempt,
                verification,
                operation: order.operation,
                refused: Some(Outcome::Blocked),
                why: Some(words(Reason::Breaker).to_owned()),
                provider: order.provider.clone(),
                provider_id: order.provider_id,
                role_id: order.role_id,
                recipient_key: order.recipient_key().map(<[u8]>::to_vec),
                reason: Some(Reason::Breaker),
                started_at: self.now,
            });
            let target = order.target;
            let Some(next) = order.next() else { break };
            *order = Order { target, ..next };
        }
        passed_over
    }

    fn is_open(&self, order: &Order) -> bool {
        let obeys = order.local.is_none() && order.rules.as_ref().is_some_and(|rules| rules.enforce);
        obeys && self.standing.breakers.get(&order.server).is_some_and(|breaker| breaker.clone().ask(self.now).is_err())
    }

    /// Whether the order may go; if so, it counts from now on.
    pub fn judge(&mut self, order: &Order) -> Verdict {
        let Some(rules) = &order.rules else { return Verdict::Goes { noted: None, pass: None } };
        let operation = order.operation;
        let key = (order.provider_id, order.recipient_key().unwrap_or_default().to_vec());
        let mut unknown = History::default();
        let history = self.histories.get_mut(&key).unwrap_or(&mut unknown);
        if let Some(bill) = self.bills.get(&order.provider_id) {
            history.provider_sends.clone_from(bill);
        }
        let refusal = rules.refuse(operation, history, self.now);
        let noted = match refusal {
            Some(blocked) if rules.enforce => return Verdict::Blocked(blocked),
            refusal => refusal.map(|blocked| blocked.reason),
        };
        let mut noted = noted;
        let mut pass = None;
        // What `on` would not have sent tells the breaker nothing, or the two would part.
        if noted.is_none() && is_send(operation) && order.local.is_none() {
            match self.standing.breakers.entry(order.server).or_default().ask(self.now) {
                Ok(let_go) => pass = Some(let_go),
                Err(retry_after) if rules.enforce => {
                    return Verdict::Blocked(Blocked { reason: Reason::Breaker, retry_after: Some(retry_after) });
                }
                Err(_) => noted = Some(Reason::Breaker),
            }
        }
        // What would have been refused does not count, so that the next decision is the one that `on` would make.
        if noted.is_none() {
            history.add(operation, self.now);
            if is_send(operation) {
                if let Some(bill) = self.bills.get_mut(&order.provider_id) {
                    bill.insert(0, self.now);
                }
                if let Some((_, room)) = self.standing.rooms.get_mut(&order.provider_id) {
                    *room = room.saturating_sub(1);
                }
            }
        }
        Verdict::Goes { noted, pass }
    }
}

fn is_send(operation: Operation) -> bool {
    matches!(operation, Operation::Send | Operation::Resend)
}

/// How many events to read: right codes among the checks do not count, but are read along.
fn most(rules: &Rules, operation: Operation) -> i64 {
    let most = rules.most(operation) as i64;
    if operation == Operation::Verify { most.saturating_mul(2).saturating_add(100) } else { most }
}

/// What the record and the caller are told of a refusal.
pub fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::AllowedPrefixes => "the recipient's prefix is not among allowed_prefixes; nothing was sent",
        Reason::ResendAfter => "the last send to this recipient is less than resend_after ago; nothing was sent",
        Reason::SendLimit => "send_limit: the recipient has had as many messages as it allows; nothing was sent",
        Reason::ProviderLimit => {
            "provider_limit: as many messages went through the provider as it allows; nothing was sent"
        }
        Reason::MaxChecks => "max_checks: the recipient has had as many wrong codes as it allows; nothing was checked",
        Reason::CheckLimit => {
            "check_limit: the recipient has had as many wrong codes as it allows; nothing was checked"
        }
        Reason::Breaker => {
            "the provider has failed several times in a row and is left alone for a while; nothing was sent"
        }
    }
}
