//! When what is open ends. Kept by the minute, with when what ends then began: so it takes no more room however much is
//! open.

use std::collections::BTreeMap;

use crate::time::{Micros, Timestamp};

const MINUTE: Micros = 60_000_000;
/// What ends later is looked at then, and again.
const HORIZON: Micros = 8 * 1440 * MINUTE;
/// Of one minute; codes that live equally long make one span or two.
const SPANS: usize = 8;

/// When things began: from then until before then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    pub until: Timestamp,
}

#[derive(Default)]
pub struct Expiries {
    /// By the end of the minute: when what ends in it began, in this order and apart.
    due: BTreeMap<Timestamp, Vec<Span>>,
}

impl Expiries {
    /// What began then ends at that time.
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

    /// When the first minute is over in which something ends.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|(end, _)| *end)
    }

    /// When something began that has ended; among others.
    pub fn take(&mut self, now: Timestamp) -> Option<Span> {
        let mut minute = self.due.first_entry().filter(|minute| *minute.key() <= now)?;
        let span = minute.get_mut().pop();
        if minute.get().is_empty() {
            minute.remove();
        }
        span
    }

    /// How many spans are kept.
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

/// Makes one of those that touch; where there are too many, of the two that are nearest, too.
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
