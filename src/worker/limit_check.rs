//! What the providers' rules say of orders, by the record as it is now: asked in the very transaction that records the
//! intents, and what has just been let go counts for the next.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use dialect::{Operation, Outcome};
use policy::{Blocked, Check, History, Micros, Pass, Reason, Rules};
use uuid::Uuid;

use crate::{
    job::Order,
    store::{CheckQuestion, Question, Writer, identity::Identity, rows::NewAttempt, transaction::Failure},
    worker::state::limit_state::{Account, Standing},
};

pub enum Verdict {
    Goes {
        /// The rule that would have refused it.
        noted: Option<Reason>,
        pass: Option<Pass>,
        /// How many wrong codes the recipient has left, after this one, if it may be one; None: that is not counted.
        checks_left: Option<u32>,
    },
    Blocked {
        blocked: Blocked,
        checks_left: Option<u32>,
    },
}

/// The key that a recipient is put down under.
pub type RecipientKey = Vec<u8>;
/// The key that an account at a vendor is put down under; empty: on record from before there were such keys.
pub type AccountKey = Vec<u8>;

/// What is known of one recipient, wherever it counts.
#[derive(Default)]
pub struct Known {
    /// The newest first.
    checks: BTreeMap<Reverse<(Micros, Uuid)>, Guess>,
    /// Roles that have sent something to the recipient, and at which accounts.
    senders: HashSet<(Identity, AccountKey)>,
}

pub struct Guess {
    is_right: bool,
    role: Identity,
    provider: Identity,
    account: AccountKey,
}

pub struct Judge<'a> {
    sends: HashMap<(Identity, RecipientKey), History>,
    known: HashMap<RecipientKey, Known>,
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
        let subjects = |of: fn(Operation) -> bool| {
            let subject = move |order: &'o Order| order.rules.as_ref().map(|rules| (order, rules));
            orders.clone().filter_map(subject).filter(move |(order, _)| of(order.operation))
        };
        let mut judge = Self { sends: HashMap::new(), known: HashMap::new(), standing, now };
        judge.read_sends(writer, subjects(is_send))?;
        judge.read_checks(writer, subjects(|operation| operation != Operation::Cancel))?;
        for (order, rules) in subjects(is_send) {
            if let Some(limits) = &rules.provider_limit {
                judge.standing.bills.load(writer, order.provider_id, limits, now)?;
            }
        }
        Ok(judge)
    }

    pub fn read_sends<'o>(
        &mut self,
        writer: &mut Writer,
        subjects: impl Iterator<Item = (&'o Order, &'o Rules)> + Clone,
    ) -> Result<(), Failure> {
        let question = |(order, rules): (&'o Order, &'o Rules)| {
            let (provider, since) = (order.provider_id, self.now.saturating_sub(rules.reach(order.operation)));
            let most = rules.most(order.operation) as i64;
            order.counted_keys().iter().map(move |recipient_key| Question { provider, recipient_key, since, most })
        };
        let questions: Vec<Question> = subjects.clone().flat_map(question).collect();
        if questions.is_empty() {
            return Ok(());
        }
        let mut answers: Vec<History> = questions.iter().map(|_| History::default()).collect();
        for (question, started_at) in writer.sends(&questions)? {
            if let Some(answer) = question.checked_sub(1).and_then(|index| answers.get_mut(index)) {
                answer.sends.push(started_at);
            }
        }
        let mut by_key: HashMap<(Identity, &[u8]), History> = HashMap::new();
        for (question, answer) in questions.iter().zip(answers) {
            let history = by_key.entry((question.provider, question.recipient_key)).or_default();
            // The same question twice has the same answer; of two that differ in reach the longer one counts.
            if answer.sends.len() > history.sends.len() {
                history.sends = answer.sends;
            }
        }
        for (order, _) in subjects {
            let Some(first) = order.counted_key() else { continue };
            self.sends.entry((order.provider_id, first.to_vec())).or_insert_with(|| {
                let names = order.counted_keys().iter().map(|key| (order.provider_id, key.as_slice()));
                names.filter_map(|name| by_key.remove(&name)).reduce(History::and).unwrap_or_default()
            });
        }
        Ok(())
    }

    pub fn read_checks<'o>(
        &mut self,
        writer: &mut Writer,
        subjects: impl Iterator<Item = (&'o Order, &'o Rules)>,
    ) -> Result<(), Failure> {
        let mut questions = Vec::new();
        let mut of = Vec::new();
        for (order, rules) in subjects {
            let Some(first) = order.counted_key() else { continue };
            // Under the keys of one time: what is put down of a call is put down under the same.
            for (place, recipient_key) in order.counted_keys().iter().enumerate() {
                questions.push(CheckQuestion {
                    provider: order.provider_id,
                    account: order.account_keys.get(place).or(order.account_keys.first()).map_or(&[], Vec::as_slice),
                    recipient_key,
                    since: self.now.saturating_sub(rules.reach(Operation::Verify)),
                    // Whoever sent the code that is checked has sent it within its life.
                    sent_since: self.now.saturating_sub(order.code_lifetime.unwrap_or(A_DAY).max(rules.checks_reach)),
                    most: most(rules),
                });
                // Whatever it was put down under, it is the account's.
                of.push((first, order.account_key()));
            }
        }
        if questions.is_empty() {
            return Ok(());
        }
        for event in writer.checks(&questions)? {
            let Some((recipient, account)) = event.question.checked_sub(1).and_then(|index| of.get(index)) else {
                continue;
            };
            let known = self.known.entry(recipient.to_vec()).or_default();
            let at = if event.is_of_account { account.to_vec() } else { Vec::new() };
            if event.operation == Operation::Verify {
                let is_right = event.outcome == Some(Outcome::Approved);
                let guess = Guess { is_right, role: event.role, provider: event.provider, account: at };
                let place = known.checks.entry(Reverse((event.started_at, event.attempt))).or_insert(guess);
                if event.is_of_account {
                    place.account = account.to_vec();
                }
            } else {
                known.senders.insert((event.role, at));
            }
        }
        Ok(())
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
                account: order.account_key().to_vec(),
                recipient_key: order.counted_key().map(<[u8]>::to_vec),
                reason: Some(Reason::Breaker),
                retry_at: None,
                started_at: self.now,
            });
            let target = order.target;
            let Some(next) = order.next() else { break };
            *order = Order { target, ..next };
        }
        passed_over
    }

    pub fn is_open(&self, order: &Order) -> bool {
        let obeys = order.local.is_none() && order.rules.as_ref().is_some_and(|rules| rules.enforce);
        obeys && self.standing.breakers.is_open(Account::of(order), self.now)
    }

    /// What the record knows that counts for an order.
    pub fn history(&self, order: &Order) -> History {
        if order.operation == Operation::Verify {
            return self.checks(order);
        }
        let key = order.counted_key().unwrap_or_default().to_vec();
        self.sends.get(&(order.provider_id, key)).cloned().unwrap_or_default()
    }

    /// How many wrong codes its recipient has left; None: that is not counted.
    pub fn checks_left(&self, order: &Order) -> Option<u32> {
        let rules = order.rules.as_ref().filter(|rules| rules.enforce && order.operation != Operation::Cancel)?;
        order.counted_key().map(|_| rules.checks_left(&self.checks(order), self.now))
    }

    /// What the record knows of codes that were checked for its recipient.
    pub fn checks(&self, order: &Order) -> History {
        let key = order.counted_key().unwrap_or_default().to_vec();
        let Some(known) = self.known.get(&key) else { return History { is_stranger: true, ..History::default() } };
        let account = order.account_key();
        let is_stranger = |role: Identity| !known.senders.iter().any(|(sender, at)| *sender == role && at == account);
        let check = |(Reverse((at, _)), guess): (&Reverse<(Micros, Uuid)>, &Guess)| Check {
            at: *at,
            is_right: guess.is_right,
            of_account: guess.account == account,
            of_provider: guess.provider == order.provider_id,
            by_stranger: is_stranger(guess.role),
        };
        History {
            checks: known.checks.iter().map(check).collect(),
            is_stranger: is_stranger(order.sender.unwrap_or(order.role_id)),
            ..History::default()
        }
    }

    /// Whether the order may go; if so, it counts from now on.
    pub fn judge(&mut self, writer: &mut Writer, order: &Order) -> Result<Verdict, Failure> {
        let Some(rules) = &order.rules else { return Ok(Verdict::Goes { noted: None, pass: None, checks_left: None }) };
        let blocked = |blocked, checks_left| Ok(Verdict::Blocked { blocked, checks_left });
        let operation = order.operation;
        let mut history = self.history(order);
        if let (true, Some(limits)) = (is_send(operation), &rules.provider_limit) {
            history.provider_wait = self.standing.wait(writer, order.provider_id, limits, self.now)?;
        }
        let mut noted = match rules.refuse(operation, &history, self.now) {
            Some(refusal) if rules.enforce => return blocked(refusal, self.checks_left(order)),
            refusal => refusal.map(|blocked| blocked.reason),
        };
        let mut pass = None;
        // What `on` would not have sent tells the breaker nothing, or the two would part.
        if noted.is_none() && is_send(operation) && order.local.is_none() {
            match self.standing.ask(Account::of(order), self.now) {
                Ok(let_go) => pass = Some(let_go),
                Err(retry_after) if rules.enforce => {
                    let refusal = Blocked { reason: Reason::Breaker, retry_after: Some(retry_after) };
                    return blocked(refusal, self.checks_left(order));
                }
                Err(_) => noted = Some(Reason::Breaker),
            }
        }
        // What would have been refused does not count, so that the next decision is the one that `on` would make.
        if noted.is_none() {
            self.add(order);
        }
        Ok(Verdict::Goes { noted, pass, checks_left: self.checks_left(order) })
    }

    /// It counts for those after it.
    pub fn add(&mut self, order: &Order) {
        let account = order.account_key().to_vec();
        if is_send(order.operation) {
            self.standing.add(order, self.now);
        }
        let Some(key) = order.counted_key().map(<[u8]>::to_vec) else { return };
        match order.operation {
            Operation::Send | Operation::Resend => {
                self.sends.entry((order.provider_id, key.clone())).or_default().sends.insert(0, self.now);
                self.known.entry(key).or_default().senders.insert((order.role_id, account));
            }
            Operation::Verify => {
                let guess = Guess { is_right: false, role: order.role_id, provider: order.provider_id, account };
                self.known.entry(key).or_default().checks.insert(Reverse((self.now, order.attempt)), guess);
            }
            Operation::Cancel => {}
        }
    }
}

/// The longest life of a code of which nobody says how long it lives.
pub const A_DAY: Micros = 86_400_000_000;

pub fn is_send(operation: Operation) -> bool {
    matches!(operation, Operation::Send | Operation::Resend)
}

/// How many checks to read: right codes do not count, but are read along, as are those that count for something else.
pub fn most(rules: &Rules) -> i64 {
    (rules.most(Operation::Verify) as i64).saturating_mul(4).saturating_add(200)
}

/// What the record and the caller are told of a code that can be none.
pub const NO_CODE: &str = "what was typed can be no code of this vendor; nothing was checked, and no check is spent";

/// What they are told of a refusal.
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
