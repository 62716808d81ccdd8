//! Checks jobs by the providers' rules and the record as it is now, in the very transaction that records the intents; a
//! job that has just been let go counts for the next one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use dialect::{Operation, Outcome};
use policy::{
    BlockReason, Blocked, BreakerPermit, History, LimitRules, Micros, PastCheck, Timestamp, counts_as_sent,
    may_have_compared,
};
use uuid::Uuid;

use crate::{
    gucs,
    job::{Action, Answer, Job},
    store::{
        StoreTransaction, counted::Cohort, identity::Identity, limits::RecipientEvent, rows::NewAttempt,
        transaction::Failure,
    },
    worker::state::{limit_state::LimitState, range_state::RangePass},
};

pub enum Verdict {
    Goes {
        /// The rule that would have refused the job, if the provider enforced its rules.
        observed: Option<BlockReason>,
        breaker_permit: Option<BreakerPermit>,
        range_pass: RangePass,
        /// How many wrong codes the recipient has left, after this job's if it checks one; None: they are not counted.
        checks_left: Option<u32>,
    },
    Blocked {
        blocked: Blocked,
        checks_left: Option<u32>,
    },
}

/// The key under which a recipient is put on record.
pub type RecipientKey = Vec<u8>;
/// The key under which an account at a vendor is put on record; empty: on record from before there were such keys.
pub type AccountKey = Vec<u8>;

/// What the record knows of one recipient, at all accounts and providers.
#[derive(Default)]
pub struct RecipientHistory {
    /// The checks of codes, the newest first.
    checks: BTreeMap<Reverse<(Timestamp, Uuid)>, RecordedCheck>,
    /// The roles that have sent something to the recipient, each with an account at which it did.
    senders: HashSet<(Identity, AccountKey)>,
}

impl RecipientHistory {
    /// A check on record; `account`: the one that it was made at, if that is the one that is asked about.
    fn add_check(&mut self, event: &RecipientEvent, account: Option<&[u8]>) {
        let account = account.map(<[u8]>::to_vec);
        let place = self.checks.entry(Reverse((event.started_at, event.attempt))).or_insert(RecordedCheck {
            is_right: event.outcome == Some(Outcome::Approved),
            role: event.role,
            provider: event.provider,
            account: Vec::new(),
        });
        if let Some(account) = account {
            place.account = account;
        }
    }
}

/// How much is asked of the record about one recipient.
struct Wanted {
    /// Sends through the provider.
    sends: Share,
    /// Codes that were compared, or may have been, at the account or the provider.
    checks: Share,
    /// Sends at the account, for who has sent them.
    senders: Share,
}

/// The newest of one kind: how many are still wanted, none before a time.
struct Share {
    since: Timestamp,
    left: usize,
}

impl Wanted {
    fn of(job: &Job, rules: &LimitRules, now: Timestamp) -> Self {
        let operation = job.operation();
        // Whoever sent the code that is checked has sent it within its life.
        let life = job.code_lifetime.unwrap_or(A_DAY).max(rules.check_window);
        Self {
            sends: Share {
                since: now - rules.lookback(operation),
                left: if is_send(operation) { rules.max_events(operation) } else { 0 },
            },
            checks: Share { since: now - rules.lookback(Operation::Verify), left: most(rules) },
            senders: Share { since: now - life, left: MOST_SENDERS },
        }
    }

    fn shares(&self) -> [&Share; 3] {
        [&self.sends, &self.checks, &self.senders]
    }

    /// Since when there may be something that is wanted.
    fn since(&self) -> Timestamp {
        let wanted = self.shares().into_iter().filter(|share| share.left > 0);
        wanted.map(|share| share.since).min().unwrap_or(self.senders.since)
    }

    /// Nothing that is older than this is wanted.
    fn is_over(&self, at: Timestamp) -> bool {
        self.shares().into_iter().all(|share| share.left == 0 || at <= share.since)
    }
}

impl Share {
    fn takes(&mut self, at: Timestamp) -> bool {
        let takes = self.left > 0 && at > self.since;
        self.left -= usize::from(takes);
        takes
    }
}

pub struct RecordedCheck {
    is_right: bool,
    role: Identity,
    provider: Identity,
    account: AccountKey,
}

pub struct LimitCheck<'a> {
    sends: HashMap<(Identity, RecipientKey), History>,
    known: HashMap<RecipientKey, RecipientHistory>,
    limit_state: &'a mut LimitState,
    now: Timestamp,
}

impl<'a> LimitCheck<'a> {
    /// Reads, at once, what it takes to check all of these jobs.
    pub fn new<'o>(
        writer: &mut StoreTransaction,
        jobs: impl Iterator<Item = &'o Job> + Clone,
        limit_state: &'a mut LimitState,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let subjects = |of: fn(Operation) -> bool| {
            let subject = move |job: &'o Job| job.answer.rules().map(|rules| (job, rules));
            jobs.clone().filter_map(subject).filter(move |(job, _)| of(job.operation()))
        };
        let mut limit_check = Self { sends: HashMap::new(), known: HashMap::new(), limit_state, now };
        for (job, rules) in subjects(|operation| operation != Operation::Cancel) {
            limit_check.read(writer, job, rules)?;
        }
        for (job, rules) in subjects(is_send) {
            if let Some(limits) = &rules.provider_limit {
                limit_check.limit_state.load_sends(writer, job.provider_id, limits, now)?;
            }
        }
        Ok(limit_check)
    }

    /// What is on record of a job's recipient: in one look for each of its keys.
    fn read(&mut self, writer: &mut StoreTransaction, job: &Job, rules: &LimitRules) -> Result<(), Failure> {
        let Some(first) = job.counted_key() else { return Ok(()) };
        let known = self.known.entry(first.to_vec()).or_default();
        let (now, account) = (self.now, job.account_key());
        let mut sends = Vec::new();
        // Under the keys of one time: what is put down of a call is put down under the same.
        for (place, recipient_key) in job.counted_keys().iter().enumerate() {
            let account_key = job.account_keys.get(place).or(job.account_keys.first()).map_or(&[][..], Vec::as_slice);
            let mut wanted = Wanted::of(job, rules, now);
            writer.events_of(recipient_key, wanted.since(), |event| {
                let at = event.started_at;
                // What is dated ahead was written while the clock was wrong: it would block its recipient until then.
                let is_ahead = at >= now + A_MINUTE;
                let is_of_provider = event.provider == job.provider_id;
                let is_of_account = event.account.as_deref().map_or(is_of_provider, |of| of == account_key);
                match event.operation {
                    Operation::Send | Operation::Resend if event.outcome.is_none_or(counts_as_sent) => {
                        if is_of_provider && !is_ahead && wanted.sends.takes(at) {
                            sends.push(at);
                        }
                        if is_of_account && wanted.senders.takes(at) {
                            // Whatever it was put down under, it is the account's.
                            known.senders.insert((event.role, account.to_vec()));
                        }
                    }
                    Operation::Verify if event.outcome.is_none_or(may_have_compared) => {
                        let counts = is_of_provider || event.account.is_some() && is_of_account;
                        if counts && !is_ahead && wanted.checks.takes(at) {
                            known.add_check(&event, is_of_account.then_some(account));
                        }
                    }
                    _ => {}
                }
                !wanted.is_over(at)
            })?;
        }
        if is_send(job.operation()) {
            sends.sort_unstable_by_key(|at| Reverse(*at));
            let history = self.sends.entry((job.provider_id, first.to_vec())).or_default();
            // Of two that differ in reach the longer one counts.
            if sends.len() > history.sends.len() {
                history.sends = sends;
            }
        }
        Ok(())
    }

    /// Moves a send of a route on to the next provider, where its own is paused or has an open breaker: the job becomes
    /// the next provider's. Returns the attempts at the providers that were passed over, to be put on record.
    pub fn skip_closed(&mut self, job: &mut Job, verification: Uuid, cohort: Cohort) -> Vec<NewAttempt> {
        let mut passed_over = Vec::new();
        let is_failover = job.action.is_failover();
        while let Some(reason) = self.closed(job) {
            let Some(mut next) = job.next_fallback() else { break };
            if let Action::Send(next) = &mut next.action {
                next.is_failover = is_failover;
            }
            passed_over.push(NewAttempt {
                refused: Some(Outcome::Blocked),
                why: Some(explain(reason).to_owned()),
                reason: Some(reason),
                ..job.intent(verification, cohort, self.now)
            });
            *job = next;
        }
        passed_over
    }

    /// Returns why nothing goes through the job's provider at present, whoever the recipient is; None if something may
    /// go.
    fn closed(&self, job: &Job) -> Option<BlockReason> {
        if job.answer.rules().is_some_and(|rules| rules.refused == Some(BlockReason::Paused)) {
            return Some(BlockReason::Paused);
        }
        let obeys = matches!(&job.answer, Answer::Vendor { rules, .. } if rules.enforce);
        let is_open = obeys && self.limit_state.breakers.is_open(job, self.now);
        is_open.then_some(BlockReason::Breaker)
    }

    /// Returns what the record knows that counts for a job.
    pub fn history(&self, job: &Job) -> History {
        if job.operation() == Operation::Verify {
            return self.checks(job);
        }
        let key = job.counted_key().unwrap_or_default().to_vec();
        self.sends.get(&(job.provider_id, key)).cloned().unwrap_or_default()
    }

    /// Returns how many wrong codes the job's recipient has left; None if they are not counted.
    pub fn checks_left(&self, job: &Job) -> Option<u32> {
        let rules = job.answer.rules().filter(|rules| rules.enforce && job.operation() != Operation::Cancel)?;
        job.counted_key().map(|_| rules.checks_left(&self.checks(job), self.now))
    }

    /// Returns what the record knows of codes that were checked for the job's recipient.
    pub fn checks(&self, job: &Job) -> History {
        let key = job.counted_key().unwrap_or_default().to_vec();
        let Some(known) = self.known.get(&key) else { return History { is_stranger: true, ..History::default() } };
        let account = job.account_key();
        let is_stranger = |role: Identity| !known.senders.iter().any(|(sender, at)| *sender == role && at == account);
        let check = |(Reverse((at, _)), check): (&Reverse<(Timestamp, Uuid)>, &RecordedCheck)| PastCheck {
            at: *at,
            is_right: check.is_right,
            of_account: check.account == account,
            of_provider: check.provider == job.provider_id,
            by_stranger: is_stranger(check.role),
        };
        History {
            checks: known.checks.iter().map(check).collect(),
            is_stranger: is_stranger(job.acting_role()),
            ..History::default()
        }
    }

    /// Decides whether the job may go. A job that goes counts from now on, unless a rule would have refused it.
    pub fn check(&mut self, writer: &mut StoreTransaction, job: &Job) -> Result<Verdict, Failure> {
        let Some(rules) = job.answer.rules() else {
            let range_pass = RangePass::default();
            return Ok(Verdict::Goes { observed: None, breaker_permit: None, range_pass, checks_left: None });
        };
        let blocked = |blocked, checks_left| Ok(Verdict::Blocked { blocked, checks_left });
        let operation = job.operation();
        if is_send(operation) && gucs::pause() {
            let refusal = Blocked { reason: BlockReason::Paused, retry_after: None };
            return blocked(refusal, self.checks_left(job));
        }
        let mut history = self.history(job);
        if let (true, Some(limits)) = (is_send(operation), &rules.provider_limit) {
            history.provider_wait = self.limit_state.wait(writer, job.provider_id, limits, self.now)?;
        }
        let mut observed = match rules.check(operation, &history, self.now) {
            // A pause is obeyed also where the limits are only observed.
            Some(refusal) if rules.enforce || refusal.reason == BlockReason::Paused => {
                return blocked(refusal, self.checks_left(job));
            }
            refusal => refusal.map(|blocked| blocked.reason),
        };
        let mut range_pass = if observed.is_none() { RangePass::Counted } else { RangePass::Uncounted };
        if observed.is_none() && operation == Operation::Send {
            match self.range(writer, job, rules)? {
                Ok(pass) => range_pass = pass,
                Err(refusal) if rules.enforce => return blocked(refusal, self.checks_left(job)),
                Err(_) => (range_pass, observed) = (RangePass::Uncounted, Some(BlockReason::MinConversion)),
            }
        }
        let mut breaker_permit = None;
        // A send that enforce `on` would have refused tells the breaker nothing, or `on` and `observe` would come to
        // differ.
        if observed.is_none() && is_send(operation) && matches!(job.answer, Answer::Vendor { .. }) {
            match self.limit_state.acquire(job, self.now) {
                Ok(let_go) => breaker_permit = Some(let_go),
                Err(retry_after) if rules.enforce => {
                    let refusal = Blocked { reason: BlockReason::Breaker, retry_after: Some(retry_after) };
                    return blocked(refusal, self.checks_left(job));
                }
                Err(_) => observed = Some(BlockReason::Breaker),
            }
        }
        // A call that would have been refused does not count, so that the next decision is the one that `on` would
        // make.
        if observed.is_none() {
            self.add(job);
        }
        Ok(Verdict::Goes { observed, breaker_permit, range_pass, checks_left: self.checks_left(job) })
    }

    /// Decides how a send goes, or how long it may have to wait, as far as the recipient's range is concerned. Without
    /// min_conversion it goes, and what min_conversion would do is noted.
    fn range(
        &mut self,
        writer: &mut StoreTransaction,
        job: &Job,
        rules: &LimitRules,
    ) -> Result<Result<RangePass, Blocked>, Failure> {
        let ranges = &mut self.limit_state.ranges;
        let Some(wait) = ranges.hold(job, rules, self.now) else { return Ok(Ok(RangePass::Counted)) };
        // A recipient that has typed a code in before is no stranger to the provider, and goes.
        if writer.was_approved(job.counted_keys(), job.provider_id)? {
            return Ok(Ok(RangePass::Counted));
        }
        if ranges.probes(job, rules, self.now) {
            return Ok(Ok(RangePass::Probe));
        }
        if rules.min_conversion.is_none() {
            return Ok(Ok(RangePass::Uncounted));
        }
        Ok(Err(Blocked { reason: BlockReason::MinConversion, retry_after: Some(wait) }))
    }

    /// Counts the job, for the decisions after it.
    pub fn add(&mut self, job: &Job) {
        let account = job.account_key().to_vec();
        if is_send(job.operation()) {
            self.limit_state.add(job, self.now);
        }
        let Some(key) = job.counted_key().map(<[u8]>::to_vec) else { return };
        match job.operation() {
            Operation::Send | Operation::Resend => {
                self.sends.entry((job.provider_id, key.clone())).or_default().sends.insert(0, self.now);
                self.known.entry(key).or_default().senders.insert((job.role_id, account));
            }
            Operation::Verify => {
                let check = RecordedCheck { is_right: false, role: job.role_id, provider: job.provider_id, account };
                self.known.entry(key).or_default().checks.insert(Reverse((self.now, job.attempt)), check);
            }
            Operation::Cancel => {}
        }
    }
}

/// The longest lifetime of a code whose lifetime nobody has stated.
pub const A_DAY: Micros = 86_400_000_000;
const A_MINUTE: Micros = 60_000_000;
/// Who has sent more to a recipient is known by the newest of them.
const MOST_SENDERS: usize = 1000;

pub fn is_send(operation: Operation) -> bool {
    matches!(operation, Operation::Send | Operation::Resend)
}

/// How many checks to read: right codes do not count, but are read along, as are those that count for something else.
pub fn most(rules: &LimitRules) -> usize {
    rules.max_events(Operation::Verify).saturating_mul(4).saturating_add(200)
}

/// What the record and the caller are told of a typed text that cannot be a code.
pub const NO_CODE: &str = "what was typed can be no code of this vendor; nothing was checked, and no check is spent";

/// Returns what the record and the caller are told of a refusal.
pub fn explain(reason: BlockReason) -> &'static str {
    match reason {
        BlockReason::Paused => {
            "sends are paused, by the provider's option paused or by otp_gateway.pause; nothing was sent"
        }
        BlockReason::AllowedPrefixes => {
            "the recipient's prefix, or an address's domain, is not among allowed_prefixes; nothing was sent"
        }
        BlockReason::ResendAfter => "the last send to this recipient is less than resend_after ago; nothing was sent",
        BlockReason::SendLimit => "send_limit: the recipient has had as many messages as it allows; nothing was sent",
        BlockReason::ProviderLimit => {
            "provider_limit: as many messages went through the provider as it allows; nothing was sent"
        }
        BlockReason::MinConversion => {
            "min_conversion: hardly any code to numbers that begin like this one is typed in, so that most sends to \
            them are held back; nothing was sent"
        }
        BlockReason::MaxChecks => {
            "max_checks: the recipient has had as many wrong codes as it allows; nothing was \
        checked"
        }
        BlockReason::CheckLimit => {
            "check_limit: the recipient has had as many wrong codes as it allows; nothing was checked"
        }
        BlockReason::Breaker => {
            "the provider has failed several times in a row and is left alone for a while; nothing was sent"
        }
    }
}
