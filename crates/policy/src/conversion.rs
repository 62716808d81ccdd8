use std::collections::VecDeque;

use crate::time::{Micros, Timestamp};

const MINUTE: Micros = 60_000_000;
pub(crate) const HOUR: Micros = 60 * MINUTE;
pub(crate) const DAY: Micros = 24 * HOUR;

/// How many codes went out, and how many of them were typed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sends: u32,
    pub converted: u32,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.sends = self.sends.saturating_add(other.sends);
        self.converted = self.converted.saturating_add(other.converted);
    }

    #[must_use]
    pub(crate) fn without(self, other: Self) -> Self {
        Self {
            sends: self.sends.saturating_sub(other.sends),
            converted: self.converted.saturating_sub(other.converted),
        }
    }
}

/// The sends of a day by the time that they went out: by the minute while they are young, then by the hour.
#[derive(Clone, Debug, Default)]
pub struct Conversions(VecDeque<Slot>);

/// The codes that went out after the slot before this one, up to a time.
#[derive(Clone, Copy, Debug)]
struct Slot {
    until: Timestamp,
    counts: Counts,
}

/// A day of `Conversions` as it is put on record: by the hours of the clock, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HourlyCounts {
    pub counted_at: Timestamp,
    pub sends: Vec<i32>,
    pub converted: Vec<i32>,
}

impl Conversions {
    /// If there are more slots than this, old ones are joined.
    const MOST_SLOTS: usize = 128;
    /// How long slots are kept apart.
    const BY_MINUTE: Micros = HOUR + 10 * MINUTE;

    pub fn sent(&mut self, at: Timestamp) {
        let until = next(at, MINUTE);
        match self.0.back_mut() {
            // If the clock was set back, what comes now belongs to the latest slot.
            Some(slot) if slot.until >= until => slot.counts.sends += 1,
            _ => {
                self.forget(at);
                self.0.push_back(Slot { until, counts: Counts { sends: 1, converted: 0 } });
            }
        }
    }

    /// Counts a code as typed in that went out at `sent_at`, or, as far as is known, later: a queued send begins before
    /// it goes.
    pub fn converted(&mut self, sent_at: Timestamp) {
        let has_room = |slot: &&mut Slot| slot.until >= sent_at && slot.counts.converted < slot.counts.sends;
        if let Some(slot) = self.0.iter_mut().find(has_room) {
            slot.counts.converted += 1;
        }
    }

    /// Returns the counts of the codes that went out after `after`, and not after `until`.
    pub fn between(&self, after: Timestamp, until: Timestamp) -> Counts {
        let mut counts = Counts::default();
        self.0.iter().filter(|slot| slot.until > after && slot.until <= until).for_each(|slot| counts.add(slot.counts));
        counts
    }

    pub fn all(&self) -> Counts {
        self.between(Timestamp(i64::MIN), Timestamp::MAX)
    }

    /// Returns when the last code went out, at the latest.
    pub fn latest(&self) -> Option<Timestamp> {
        self.0.back().map(|slot| slot.until)
    }

    /// Forgets what is a day old and, of what is old, which minute it was.
    pub fn forget(&mut self, now: Timestamp) {
        while self.0.pop_front_if(|slot| slot.until <= now - DAY).is_some() {}
        if self.0.len() <= Self::MOST_SLOTS {
            return;
        }
        let mut merged: VecDeque<Slot> = VecDeque::with_capacity(Self::MOST_SLOTS);
        for slot in self.0.drain(..) {
            let is_old = slot.until <= now - Self::BY_MINUTE;
            match merged.back_mut() {
                Some(last) if is_old && next(last.until, HOUR) == next(slot.until, HOUR) => {
                    last.until = slot.until;
                    last.counts.add(slot.counts);
                }
                _ => merged.push_back(slot),
            }
        }
        self.0 = merged;
    }

    pub fn by_hour(&self, now: Timestamp) -> HourlyCounts {
        let mut hours = HourlyCounts { counted_at: now, ..HourlyCounts::default() };
        for slot in self.0.iter().rev() {
            let age = (next(now, HOUR).since(next(slot.until, HOUR)) / HOUR).clamp(0, DAY / HOUR);
            let hour = usize::try_from(age).unwrap_or(0);
            if hours.sends.len() <= hour {
                hours.sends.resize(hour + 1, 0);
                hours.converted.resize(hour + 1, 0);
            }
            let add = |to: &mut i32, count: u32| *to = to.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
            add(&mut hours.sends[hour], slot.counts.sends);
            add(&mut hours.converted[hour], slot.counts.converted);
        }
        hours
    }

    /// Restores the sends from the record. Those of an hour count as sent at its end, so that none is taken for older
    /// than it is.
    pub fn restored(hours: &HourlyCounts) -> Self {
        let last = next(hours.counted_at, HOUR);
        let count =
            |counts: &[i32], hour: usize| counts.get(hour).map_or(0, |count| u32::try_from(*count).unwrap_or(0));
        let slot = |hour: usize| Slot {
            until: (last - hour as i64 * HOUR).min(hours.counted_at),
            counts: Counts { sends: count(&hours.sends, hour), converted: count(&hours.converted, hour) },
        };
        Self((0..hours.sends.len()).rev().map(slot).filter(|slot| slot.counts.sends > 0).collect())
    }
}

/// Returns the end of the stretch of that length in which a time lies.
fn next(at: Timestamp, length: Micros) -> Timestamp {
    Timestamp(at.0.saturating_sub(1).div_euclid(length).saturating_add(1).saturating_mul(length))
}
