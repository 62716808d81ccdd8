//! When open verifications end. The times are kept by the minute, with the time at which the verifications that end in
//! the minute began: so they take no more room however many verifications are open.

use std::collections::BTreeMap;

use crate::time::{Micros, Timestamp};

const MINUTE: Micros = 60_000_000;
/// How far ahead an end is kept. What ends later is looked at when this time is over, and added again.
const HORIZON: Micros = 8 * 1440 * MINUTE;
/// How many spans one minute keeps at most; codes that live equally long make one span or two.
const SPANS: usize = 8;

/// A span of time in which verifications began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    pub until: Timestamp,
}

#[derive(Default)]
pub struct Expiries {
    /// By the end of a minute, the spans in which the verifications that end in it began; in order, and apart.
    due: BTreeMap<Timestamp, Vec<Span>>,
}

impl Expiries {
    /// Notes that what began at `began` ends at `at`.
    pub fn add(&mut self, began: Timestamp, at: Timestamp, now: Timestamp) {
        let end = end_of_minute(at.min(now + HORIZON));
        let until = end_of_minute(began);
        let span = Span { from: until - MINUTE, until };
        let spans = self.due.entry(end).or_default();
        if !spans.iter().any(|one| one.from <= span.from && span.until <= one.until) {
            let place = spans.partition_point(|one| one.from < span.from);
            spans.insert(place, span);
            join(spans);
        }
    }

    /// Returns when the first minute is over in which something ends.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|(end, _)| *end)
    }

    /// Returns a span in which something began that has ended; other things may have begun in it, too.
    pub fn take(&mut self, now: Timestamp) -> Option<Span> {
        let mut minute = self.due.first_entry().filter(|minute| *minute.key() <= now)?;
        let span = minute.get_mut().pop();
        if minute.get().is_empty() {
            minute.remove();
        }
        span
    }

    /// Returns how many spans are kept.
    pub fn len(&self) -> usize {
        self.due.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

fn end_of_minute(time: Timestamp) -> Timestamp {
    Timestamp(time.0.div_euclid(MINUTE).saturating_add(1).saturating_mul(MINUTE))
}

/// Joins spans that touch; if too many are left, also the two that are nearest.
fn join(spans: &mut Vec<Span>) {
    spans.dedup_by(|next, before| {
        let touch = next.from <= before.until;
        if touch {
            before.until = before.until.max(next.until);
        }
        touch
    });
    if spans.len() > SPANS {
        let gap = |at: &usize| spans[at + 1].from.since(spans[*at].until);
        if let Some(nearest) = (0..spans.len() - 1).min_by_key(gap) {
            let next = spans.remove(nearest + 1);
            spans[nearest].until = next.until;
        }
    }
}
