//! A breaker for ranges of numbers. Whoever is paid for messages to numbers of their own ("SMS pumping") has codes sent
//! that nobody types in. So a range whose codes are not typed in is held back, but for single probes, until they are.
//!
//! What looks the same is a vendor that delivers nothing. Hence the second question: do the provider's other ranges
//! convert as usual? Where they do not, or where nobody's codes are ever typed in, nothing is held back.

use std::collections::{HashMap, VecDeque};

use crate::{
    conversion::{Conversions, Counts, DAY, HOUR, HourlyCounts},
    number_range::{MinConversion, NumberRange},
    time::{Micros, Timestamp},
};

/// How long a user may take to type a code in.
const SETTLED: Micros = HOUR / 6;

/// The ranges of one provider.
#[derive(Debug, Default)]
pub struct Ranges {
    known: HashMap<NumberRange, Range>,
    slump: Option<Slump>,
    usual: Option<(Timestamp, Usual)>,
}

#[derive(Debug, Default)]
struct Range {
    conversions: Conversions,
    hold: Option<Hold>,
}

/// The hold on a range that is held back.
#[derive(Clone, Debug)]
pub struct Hold {
    pub since: Timestamp,
    /// The counts that spoke against the range.
    pub counts: Counts,
    pub min: MinConversion,
    /// How many sends of an hour are people's; 0: no code to the range was ever typed in.
    pub usual: f64,
    /// Sends that were refused, or would have been.
    pub refused: u64,
    /// Sends that were let through to see whether their codes are typed in.
    pub passed: u64,
    /// The latest of these sends, and whether their codes were typed in.
    probes: VecDeque<(u128, bool)>,
    /// When sends were asked for, and since when that is watched.
    asked: Conversions,
    watched: Timestamp,
}

/// Codes of the whole provider are typed in less than half as often as usual: they do not arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slump {
    pub since: Timestamp,
    /// The counts that were looked at last.
    pub counts: Counts,
    /// The share that was typed in before.
    pub usual: f64,
    /// When there was last enough to tell by.
    pub seen: Timestamp,
}

/// How the ranges that people use converted before the last hour, and in it.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    before: Counts,
    /// How many ranges these are.
    ranges: u32,
    /// The sends of the last hour, and how many were typed in. No range counts for more than its usual sends of an
    /// hour, or a range that is pumped would speak for all.
    lately: (f64, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Others {
    AsUsual,
    Worse {
        usual: f64,
    },
    /// Too few to tell.
    Nobody,
}

impl Slump {
    /// How long a slump is known without sends that tell of it.
    pub const KNOWN_FOR: Micros = HOUR;

    fn is_known(&self, now: Timestamp) -> bool {
        now.since(self.seen) < Self::KNOWN_FOR
    }
}

impl Hold {
    /// How long a range is held back at most, whatever the probes say.
    pub const LONGEST: Micros = DAY / 2;
    /// Of how many sends one is let through.
    pub const PROBE: u64 = 20;
    /// How many probes decide, the latest ones: twice the share for which the range was held back has to be typed in.
    const PROBES: usize = 20;
    const FEWEST_PROBES: usize = 5;

    pub fn until(&self) -> Timestamp {
        self.since + Self::LONGEST
    }

    fn begun(now: Timestamp, counts: Counts, min: MinConversion, usual: f64) -> Self {
        Self {
            since: now,
            counts,
            min,
            usual,
            refused: 0,
            passed: 0,
            probes: VecDeque::new(),
            asked: Conversions::default(),
            watched: now,
        }
    }

    /// Restores a hold as the worker before has put it on record: from now on it is watched again.
    #[must_use]
    pub fn restored(now: Timestamp, since: Timestamp, counts: Counts, min: MinConversion, usual: f64) -> Self {
        Self { since, ..Self::begun(now, counts, min, usual) }
    }

    /// Sets how many sends were refused and let through before.
    #[must_use]
    pub fn counted(self, refused: u64, passed: u64) -> Self {
        Self { refused, passed, ..self }
    }

    /// Returns whether the hold is over: its time is, or a range that has converted is asked for as seldom as before.
    fn is_over(&self, now: Timestamp) -> bool {
        let lately = f64::from(self.asked.between(now - HOUR, Timestamp::MAX).sends);
        let is_usual = self.usual > 0.0 && lately < Ranges::SURGE * self.usual.max(1.0);
        self.until() <= now || (is_usual && now.since(self.watched) >= HOUR)
    }

    fn is_refuted(&self) -> bool {
        let typed_in = self.probes.iter().filter(|(_, typed_in)| *typed_in).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.probes.len() >= Self::FEWEST_PROBES && !self.min.exceeds(2, count(typed_in), count(self.probes.len()))
    }
}

impl Ranges {
    /// Fewer sends say nothing of a range.
    pub const FEWEST: u32 = 50;
    /// How many ranges are remembered. Beyond that, ranges are forgotten to which nothing was sent for the longest
    /// time.
    pub const MOST: usize = 20_000;
    /// How many codes must have been typed in elsewhere, or be expected to, to compare with.
    const EVIDENCE: f64 = 5.0;
    const EVIDENCE_OF_A_SLUMP: f64 = 25.0;
    /// If a smaller share of codes is typed in, it is not people who ask for them.
    const OF_PEOPLE: f64 = 0.2;
    /// Fewer sends are a matter of chance.
    const FEW: u32 = 5;
    /// How many times the usual sends are no longer those of people.
    const SURGE: f64 = 3.0;
    /// How long the finding about the provider as a whole is good.
    const FRESH: Micros = 10_000_000;

    /// Returns the hold on a range, if it is held back; from now on it is, if it has to be.
    pub fn hold(&mut self, range: &NumberRange, min: MinConversion, now: Timestamp) -> Option<&Hold> {
        if self.known.get(range)?.hold.as_ref().is_some_and(|hold| hold.is_over(now)) {
            self.release(range);
        }
        let known = self.known.get(range)?;
        if known.hold.is_none() {
            let (counts, usual) = (known.falls_short(min, now)?, known.of_people(now));
            if self.others(range, now) != Others::AsUsual {
                return None;
            }
            let hold = Hold::begun(now, counts, min, usual);
            self.known.get_mut(range)?.hold = Some(hold);
        }
        self.known.get(range)?.hold.as_ref()
    }

    /// Counts a send to a range that is held back. Returns true if this send is let through all the same.
    pub fn probes(&mut self, range: &NumberRange, now: Timestamp) -> bool {
        let Some(hold) = self.known.get_mut(range).and_then(|known| known.hold.as_mut()) else { return true };
        hold.asked.sent(now);
        let is_probe = (hold.refused + hold.passed + 1).is_multiple_of(Hold::PROBE);
        *(if is_probe { &mut hold.passed } else { &mut hold.refused }) += 1;
        is_probe
    }

    /// Counts a code that went out, or may have; `probe`: if the send was one, the name by which its end is told.
    pub fn sent(&mut self, range: &NumberRange, probe: Option<u128>, at: Timestamp) {
        if self.known.len() >= Self::MOST && !self.known.contains_key(range) {
            self.make_room();
        }
        let known = self.known.entry(range.clone()).or_default();
        known.conversions.sent(at);
        if let (Some(id), Some(hold)) = (probe, &mut known.hold) {
            if hold.probes.len() == Hold::PROBES {
                hold.probes.pop_front();
            }
            hold.probes.push_back((id, false));
        }
    }

    /// Counts a code that went out then and was typed in. Returns true if the range is no longer held back.
    pub fn converted(&mut self, range: &NumberRange, probe: Option<u128>, sent_at: Timestamp) -> bool {
        let Some(known) = self.known.get_mut(range) else { return false };
        known.conversions.converted(sent_at);
        let Some(hold) = &mut known.hold else { return false };
        let Some(found) = hold.probes.iter_mut().find(|(id, _)| Some(*id) == probe) else { return false };
        found.1 = true;
        hold.is_refuted() && self.release(range)
    }

    /// Opens a range again, and returns whether it was held back. Its counts are forgotten, or it would be held back
    /// again at once.
    pub fn release(&mut self, range: &NumberRange) -> bool {
        let Some(known) = self.known.get_mut(range).filter(|known| known.hold.is_some()) else { return false };
        *known = Range::default();
        true
    }

    /// Does what time alone changes. Returns the ranges that are no longer held back.
    pub fn pass_time(&mut self, now: Timestamp) -> Vec<NumberRange> {
        let is_over = |known: &Range| known.hold.as_ref().is_some_and(|hold| hold.is_over(now));
        let over: Vec<NumberRange> =
            self.known.iter().filter(|(_, known)| is_over(known)).map(|(range, _)| range.clone()).collect();
        for range in &over {
            self.release(range);
        }
        self.known.values_mut().for_each(|known| known.conversions.forget(now));
        self.known.retain(|_, known| known.hold.is_some() || known.conversions.latest().is_some());
        self.look_for_slump(now);
        over
    }

    /// Returns how many ranges are remembered.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn holds_back(&self, range: &NumberRange) -> bool {
        self.known.get(range).is_some_and(|known| known.hold.is_some())
    }

    pub fn slump(&self) -> Option<Slump> {
        self.slump
    }

    pub fn holds(&self) -> impl Iterator<Item = (&NumberRange, &Hold)> {
        self.known.iter().filter_map(|(range, known)| Some((range, known.hold.as_ref()?)))
    }

    pub fn counts(&self, range: &NumberRange, now: Timestamp) -> HourlyCounts {
        self.known.get(range).map_or_else(HourlyCounts::default, |known| known.conversions.by_hour(now))
    }

    pub fn restore(&mut self, range: NumberRange, hours: &HourlyCounts) {
        self.known.entry(range).or_default().conversions = Conversions::restored(hours);
    }

    pub fn restore_hold(&mut self, range: NumberRange, hold: Hold) {
        self.known.entry(range).or_default().hold = Some(hold);
    }

    pub fn restore_slump(&mut self, slump: Slump) {
        self.slump = Some(slump);
    }

    fn others(&mut self, range: &NumberRange, now: Timestamp) -> Others {
        let mut usual = match self.usual {
            Some((at, usual)) if now.since(at).abs() < Self::FRESH => usual,
            _ => {
                let usual = self.usual(now);
                self.usual = Some((now, usual));
                usual
            }
        };
        if let Some(own) = self.known.get(range) {
            usual.remove(own, now);
        }
        usual.judge()
    }

    fn usual(&self, now: Timestamp) -> Usual {
        let mut usual = Usual::default();
        self.known.values().filter(|known| known.hold.is_none()).for_each(|known| usual.add(known, now));
        usual
    }

    /// Looks whether a slump begins or ends. It lasts until codes are typed in again, even if by then nobody remembers
    /// what was usual.
    fn look_for_slump(&mut self, now: Timestamp) {
        let usual = self.usual(now);
        let mut lately = Counts::default();
        let open = self.known.values().filter(|known| known.hold.is_none());
        open.for_each(|known| lately.add(known.lately(now)));
        match &mut self.slump {
            Some(slump) => {
                let expected = f64::from(lately.sends) * slump.usual;
                if expected >= Self::EVIDENCE {
                    (slump.counts, slump.seen) = (lately, now);
                }
                let is_over = expected >= Self::EVIDENCE && f64::from(lately.converted) >= expected / 2.0;
                if is_over || !slump.is_known(now) {
                    self.slump = None;
                }
            }
            None => {
                let pool = usual;
                if let Others::Worse { usual } = pool.judge()
                    && pool.expected(usual) >= Self::EVIDENCE_OF_A_SLUMP
                {
                    self.slump = Some(Slump { since: now, counts: lately, usual, seen: now });
                }
            }
        }
    }

    /// Forgets a quarter of the ranges at once, or there would be much to do for each new one.
    fn make_room(&mut self) {
        let mut latest: Vec<Timestamp> = self
            .known
            .values()
            .filter(|known| known.hold.is_none())
            .filter_map(|known| known.conversions.latest())
            .collect();
        latest.sort_unstable();
        let oldest = latest.get(latest.len() / 4).copied().unwrap_or(Timestamp::MAX);
        self.known.retain(|_, known| {
            known.hold.is_some() || known.conversions.latest().is_some_and(|latest| latest > oldest)
        });
    }
}

impl Range {
    /// Returns the counts that speak against the range, if some do: those of the last hour, or of the last day.
    fn falls_short(&self, min: MinConversion, now: Timestamp) -> Option<Counts> {
        if self.conversions.all().sends < Ranges::FEWEST {
            return None;
        }
        let (lately, day) = (self.lately(now), self.conversions.between(now - DAY, now - SETTLED));
        let falls_short =
            |counts: &Counts| counts.sends >= Ranges::FEWEST && min.exceeds(1, counts.converted, counts.sends);
        let counts = [lately, day].into_iter().find(falls_short)?;
        // The range converts again by itself.
        let is_well = lately.sends >= Ranges::FEW && !min.exceeds(2, lately.converted, lately.sends);
        // Where an operator delivers nothing, people try again; whoever pumps has to send many times more than they.
        let is_usual = self.before(now).is_some_and(|before| f64::from(lately.sends) < Ranges::SURGE * an_hour(before));
        (!is_well && !is_usual).then_some(counts)
    }

    fn lately(&self, now: Timestamp) -> Counts {
        self.conversions.between(now - HOUR, now - SETTLED)
    }

    /// Returns how many sends of an hour may be people's, where one code of two is typed in.
    fn of_people(&self, now: Timestamp) -> f64 {
        let before = self.conversions.between(now - DAY, now - HOUR);
        2.0 * an_hour(Counts { sends: before.converted, ..before })
    }

    /// Returns the sends of the last hour and how many were typed in, of no more sends than are usual for the range.
    fn lately_at_most(&self, before: Counts, now: Timestamp) -> (f64, f64) {
        let lately = self.lately(now);
        let (sends, converted) = (f64::from(lately.sends), f64::from(lately.converted));
        let most = an_hour(before).max(f64::from(Ranges::FEW));
        let share = if sends > most { most / sends } else { 1.0 };
        (sends * share, converted * share)
    }

    /// Returns the counts before the last hour; None if people did not use the range. (What is pumped must not pass for
    /// what is usual.)
    fn before(&self, now: Timestamp) -> Option<Counts> {
        let is_of_people = |counts: &Counts| {
            counts.converted > 0 && f64::from(counts.converted) >= f64::from(counts.sends) * Ranges::OF_PEOPLE
        };
        Some(self.conversions.between(now - DAY, now - HOUR)).filter(is_of_people)
    }
}

/// Returns the sends of an hour, on average of the 23 hours before the last one.
fn an_hour(before: Counts) -> f64 {
    f64::from(before.sends) / 23.0
}

impl Usual {
    fn add(&mut self, range: &Range, now: Timestamp) {
        let Some(before) = range.before(now) else { return };
        self.before.add(before);
        self.ranges += 1;
        let (sends, converted) = range.lately_at_most(before, now);
        self.lately = (self.lately.0 + sends, self.lately.1 + converted);
    }

    fn remove(&mut self, range: &Range, now: Timestamp) {
        let Some(before) = range.before(now) else { return };
        self.before = self.before.without(before);
        self.ranges = self.ranges.saturating_sub(1);
        let (sends, converted) = range.lately_at_most(before, now);
        self.lately = ((self.lately.0 - sends).max(0.0), (self.lately.1 - converted).max(0.0));
    }

    /// Returns how many of the latest codes would have been typed in, if all were as usual.
    fn expected(&self, usual: f64) -> f64 {
        self.lately.0 * usual
    }

    fn judge(&self) -> Others {
        // Each range is here because one of its codes was typed in. Without that code, but for which the range would
        // not be here, the share is not too great.
        let chosen = Counts { sends: self.ranges, converted: self.ranges };
        let before = self.before.without(chosen);
        if before.converted == 0 {
            return Others::Nobody;
        }
        let usual = f64::from(before.converted) / f64::from(before.sends);
        let (sends, converted) = self.lately;
        if sends * usual >= Ranges::EVIDENCE {
            if converted < sends * usual / 2.0 { Others::Worse { usual } } else { Others::AsUsual }
        } else if f64::from(before.converted) >= Ranges::EVIDENCE {
            // In a quiet hour the counts of the day decide.
            Others::AsUsual
        } else {
            Others::Nobody
        }
    }
}
