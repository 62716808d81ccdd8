//! Ranges of numbers, provider by provider, and what of them is not on record yet. Counts are written every few
//! seconds, beside the outcomes and not with them: a crash costs those few seconds, and no commit waits for a range's
//! row. What a transaction that fails has asked here is not taken back: one more of those that were held back harms
//! nobody.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use policy::{Hold, LimitRules, Micros, MinConversion, NumberRange, Ranges, Slump, Timestamp};
use uuid::Uuid;

use crate::{
    job::Job,
    store::{
        identity::Identity,
        ranges::{CountedRange, LowConversion},
    },
};

/// How long a change waits for others, to be written with them.
const GATHER: Micros = 10_000_000;
/// How many counts are written at once: a few milliseconds' work.
const PAGE: usize = 500;
/// How long, and how many, codes that went out are remembered one by one, to see whether they are typed in.
const OPEN: Micros = 3_600_000_000;
const MOST_OPEN: usize = 50_000;

/// How a send goes as far as its range is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangePass {
    #[default]
    Counted,
    /// The range is held back, and this send tells whether it still has to be.
    Probe,
    /// The range would be held back: this send is not counted, as if it had not gone.
    Uncounted,
}

/// A send, as far as it counts: its provider, its range, and when it went out.
pub struct Send {
    pub provider: Identity,
    pub range: NumberRange,
    pub at: Timestamp,
}

#[derive(Default)]
struct OfProvider {
    name: String,
    ranges: Ranges,
    /// Whether ranges are held back, or only would be, as the last send found it.
    is_enforced: bool,
    changed: HashSet<NumberRange>,
}

#[derive(Default)]
pub struct RangeState {
    providers: HashMap<Identity, OfProvider>,
    /// Sends whose codes went out and are not typed in yet, by verification.
    open: HashMap<Uuid, (Send, RangePass)>,
    in_order: VecDeque<(Timestamp, Uuid)>,
    /// What is on record of the ranges and providers that convert too seldom.
    written: BTreeMap<(Identity, String), LowConversion>,
    due: Option<Timestamp>,
}

/// The changes to be written.
pub struct Unwritten {
    pub counts: Vec<CountedRange>,
    pub low: Vec<LowConversion>,
    pub ended: Vec<(Identity, String)>,
    /// False: there are more counts, which are left for another time.
    is_all: bool,
}

impl RangeState {
    /// Returns for how long, at most, a send's range is held back, or would be; None if it is not.
    pub fn hold(&mut self, job: &Job, rules: &LimitRules, now: Timestamp) -> Option<Micros> {
        let range = rules.range.as_ref()?;
        let known = self.providers.get_mut(&job.provider_id)?;
        known.name.clone_from(&job.provider);
        known.is_enforced = rules.enforce && rules.min_conversion.is_some();
        let before = known.ranges.holds_back(range);
        let hold = known.ranges.hold(range, rules.min_conversion.unwrap_or_default(), now).cloned();
        if before != hold.is_some() {
            known.changed.insert(range.clone());
            self.due = Some(now);
        }
        match &hold {
            Some(hold) if !before => known.say_held(range, hold),
            None if before => known.say_open(range),
            _ => {}
        }
        hold.map(|hold| hold.until().since(now))
    }

    /// Counts a send to a range that is held back. Returns true if it goes all the same, to see whether its code is
    /// typed in.
    pub fn probes(&mut self, job: &Job, rules: &LimitRules, now: Timestamp) -> bool {
        let known = self.providers.get_mut(&job.provider_id).zip(rules.range.as_ref());
        self.due.get_or_insert(now + GATHER);
        known.is_none_or(|(known, range)| known.ranges.probes(range, now))
    }

    /// Counts a code that went out, or may have.
    pub fn sent(&mut self, send: Send, name: &str, verification: Uuid, pass: RangePass) {
        let now = send.at;
        let is_past = |(at, _): &(Timestamp, Uuid)| *at <= now - OPEN;
        while self.in_order.len() >= MOST_OPEN || self.in_order.front().is_some_and(is_past) {
            let Some((_, id)) = self.in_order.pop_front() else { break };
            self.open.remove(&id);
        }
        self.in_order.push_back((now, verification));
        if pass != RangePass::Uncounted {
            let known = self.providers.entry(send.provider).or_default();
            name.clone_into(&mut known.name);
            known.ranges.sent(&send.range, (pass == RangePass::Probe).then(|| verification.as_u128()), now);
            known.changed.insert(send.range.clone());
            self.due.get_or_insert(now + GATHER);
        }
        self.open.insert(verification, (send, pass));
    }

    /// Counts a code that was typed in. `begun`: its send, as far as it is known, if the worker before this one has
    /// made it.
    pub fn converted(&mut self, verification: Uuid, begun: Option<Send>, now: Timestamp) {
        let send = match self.open.remove(&verification) {
            Some((_, RangePass::Uncounted)) => return,
            Some((send, _)) => Some(send),
            None => begun,
        };
        let Some((send, known)) = send.and_then(|send| {
            let known = self.providers.get_mut(&send.provider)?;
            Some((send, known))
        }) else {
            return;
        };
        self.due.get_or_insert(now + GATHER);
        if known.ranges.converted(&send.range, Some(verification.as_u128()), send.at) {
            self.due = Some(now);
            known.say_open(&send.range);
        }
        known.changed.insert(send.range);
    }

    /// Opens a range again, because somebody says that it is well. Returns false if it is not held back.
    pub fn release(&mut self, provider: Identity, range: &NumberRange, now: Timestamp) -> bool {
        let Some(known) = self.providers.get_mut(&provider) else { return false };
        let was_held = known.ranges.release(range);
        if was_held {
            known.changed.insert(range.clone());
            self.due = Some(now);
        }
        was_held
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Returns what has changed, or a part of it; None if it is not time to write it.
    pub fn unwritten(&mut self, now: Timestamp, at_once: bool) -> Option<Unwritten> {
        if self.due.is_none_or(|due| due > now && !at_once) {
            return None;
        }
        for known in self.providers.values_mut() {
            for range in known.ranges.pass_time(now) {
                known.say_open(&range);
                known.changed.insert(range);
            }
        }
        let all =
            self.providers.iter().flat_map(|(id, known)| known.changed.iter().map(move |range| (*id, known, range)));
        let page: Vec<CountedRange> = all
            .take(if at_once { usize::MAX } else { PAGE })
            .map(|(provider, known, range)| CountedRange {
                provider,
                range: range.as_str().to_owned(),
                hours: known.ranges.counts(range, now),
            })
            .collect();
        let is_all = page.len() < PAGE;
        let low = self.low_conversions();
        let ended = self.written.keys().filter(|key| !low.contains_key(*key)).cloned().collect();
        let is_new = |low: &LowConversion| self.written.get(&(low.provider, low.range.clone())) != Some(low);
        Some(Unwritten { counts: page, low: low.into_values().filter(is_new).collect(), ended, is_all })
    }

    /// Notes whether the changes have been written; if not, they are written later.
    pub fn settle(&mut self, unwritten: Unwritten, is_written: bool, now: Timestamp) {
        if !is_written {
            self.due = Some(now + GATHER);
            return;
        }
        self.due = (!unwritten.is_all).then_some(now);
        for counted in unwritten.counts {
            if let (Some(known), Some(range)) =
                (self.providers.get_mut(&counted.provider), NumberRange::read(&counted.range))
            {
                known.changed.remove(&range);
            }
        }
        for key in unwritten.ended {
            self.written.remove(&key);
        }
        self.written.extend(unwritten.low.into_iter().map(|low| ((low.provider, low.range.clone()), low)));
    }

    /// Restores the ranges as the worker before has put them on record.
    pub fn restore(&mut self, counts: Vec<CountedRange>, low: Vec<(String, LowConversion)>, now: Timestamp) {
        for counted in counts {
            if let Some(range) = NumberRange::read(&counted.range) {
                self.providers.entry(counted.provider).or_default().ranges.restore(range, &counted.hours);
            }
        }
        for (name, one) in low {
            let known = self.providers.entry(one.provider).or_default();
            known.name = name;
            match (NumberRange::read(&one.range), MinConversion::of_percent(one.percent)) {
                (Some(range), Some(min)) => {
                    known.is_enforced |= one.is_enforced;
                    let hold = Hold::restored(now, one.since, one.counts, min, one.usual);
                    known.ranges.restore_hold(range, hold.counted(one.blocked, one.passed));
                }
                _ => known.ranges.restore_slump(Slump {
                    since: one.since,
                    counts: one.counts,
                    usual: one.usual,
                    seen: one.until - Slump::KNOWN_FOR,
                }),
            }
            self.written.insert((one.provider, one.range.clone()), one);
        }
    }

    fn low_conversions(&self) -> BTreeMap<(Identity, String), LowConversion> {
        let all = self.providers.iter().flat_map(|(provider, known)| {
            let slump = known.ranges.slump().map(|slump| of_slump(*provider, &slump));
            let is_enforced = known.is_enforced;
            let holds = known.ranges.holds().map(move |(range, hold)| of_hold(*provider, range, hold, is_enforced));
            holds.chain(slump)
        });
        all.map(|low| ((low.provider, low.range.clone()), low)).collect()
    }
}

fn of_hold(provider: Identity, range: &NumberRange, hold: &Hold, is_enforced: bool) -> LowConversion {
    LowConversion {
        provider,
        range: range.as_str().to_owned(),
        since: hold.since,
        until: hold.until(),
        counts: hold.counts,
        usual: hold.usual,
        percent: hold.min.percent(),
        is_enforced,
        blocked: hold.refused,
        passed: hold.passed,
    }
}

fn of_slump(provider: Identity, slump: &Slump) -> LowConversion {
    LowConversion {
        provider,
        range: String::new(),
        since: slump.since,
        until: slump.seen + Slump::KNOWN_FOR,
        counts: slump.counts,
        usual: slump.usual,
        percent: 0,
        is_enforced: false,
        blocked: 0,
        passed: 0,
    }
}

impl OfProvider {
    fn say_held(&self, range: &NumberRange, hold: &Hold) {
        let (sends, converted) = (hold.counts.sends, hold.counts.converted);
        let what = if self.is_enforced { "are held back" } else { "would be held back by min_conversion" };
        pgrx::log!(
            "otp_gateway: provider \"{}\": of {sends} codes to {range} {converted} were typed in: sends to that range \
             {what}, but for one in {}",
            crate::provider::lookup::shown(&self.name),
            Hold::PROBE
        );
    }

    fn say_open(&self, range: &NumberRange) {
        pgrx::log!(
            "otp_gateway: provider \"{}\": sends to {range} go as before",
            crate::provider::lookup::shown(&self.name)
        );
    }
}
