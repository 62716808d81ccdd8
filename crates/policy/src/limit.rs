use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    parse_error::ParseError,
    time::{Micros, Timestamp},
};

pub const SECOND: Micros = 1_000_000;
pub const DAY: Micros = 24 * 60 * 60 * SECOND;
pub const HINT: &str = "For example: '5 per hour, 10 per day'.";

/// The units of time, the largest first, so that a window is written in the largest unit that divides it.
pub const UNITS: [(Micros, &str); 5] =
    [(7 * DAY, "week"), (DAY, "day"), (60 * 60 * SECOND, "hour"), (60 * SECOND, "minute"), (SECOND, "second")];

/// How many events are let through in a window that slides: `5 per hour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    count: usize,
    window: Micros,
}

/// The limits that hold at once for one kind of event, in the order of their windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits(Vec<Limit>);

/// Which limit refuses, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The limit with the longest wait. `Display` gives its text.
    pub limit: Limit,
    /// The wait after which, and not a microsecond before, every limit admits, if nothing more is counted meanwhile.
    /// Never longer than the window.
    pub retry_after: Micros,
}

impl Limit {
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Limits {
    pub const MOST_RULES: usize = 8;
    pub const MOST_COUNT: usize = 1_000_000;
    /// From 1 second to 31 days.
    pub const WINDOWS: std::ops::RangeInclusive<Micros> = SECOND..=31 * DAY;

    /// Returns the refusal of one more event now, if there is one. `newest_first`: the times of the counted events, at
    /// least the newest [`Limits::most`] of those within [`Limits::reach`]. A time in the future (the clock was set
    /// back) counts as now.
    pub fn refusal(&self, newest_first: &[Timestamp], now: Timestamp) -> Option<Refusal> {
        debug_assert!(newest_first.is_sorted_by(|newer, older| newer >= older));
        self.refusal_by(|nth| newest_first.get(nth).copied(), now)
    }

    /// Returns the refusal as [`Self::refusal`] does, for events that are not in one piece: `newest` gives the n-th
    /// newest, from 0, and is called once for each limit.
    pub fn refusal_by(&self, newest: impl Fn(usize) -> Option<Timestamp>, now: Timestamp) -> Option<Refusal> {
        let refusals = self.0.iter().filter_map(|&limit| {
            // While the n-th newest event is inside the window, n events are.
            let nth = newest(limit.count - 1)?;
            let age = now.since(nth).max(0);
            (age < limit.window).then(|| Refusal { limit, retry_after: limit.window - age })
        });
        refusals.max_by_key(|refusal| refusal.retry_after)
    }

    /// Returns how much of the tightest limit is used, 1 being all; `since` counts the events after a time.
    pub fn used(&self, since: impl Fn(Timestamp) -> usize, now: Timestamp) -> f64 {
        let used = |limit: &Limit| since(now - limit.window) as f64 / limit.count as f64;
        self.0.iter().map(used).fold(0.0, f64::max)
    }

    /// Returns how many more events are admitted now, whenever they come: until so many were added, nothing need be
    /// counted.
    pub fn room(&self, newest_first: &[Timestamp], now: Timestamp) -> usize {
        let room = |limit: &Limit| {
            let inside = newest_first.iter().take_while(|time| now.since(**time).max(0) < limit.window).count();
            limit.count.saturating_sub(inside)
        };
        self.0.iter().map(room).min().unwrap_or(usize::MAX)
    }

    /// Returns the limits with half of each count, rounded up.
    #[must_use]
    pub fn halved(&self) -> Self {
        Self(self.0.iter().map(|limit| Limit { count: limit.count.div_ceil(2), ..*limit }).collect())
    }

    /// Returns how many of the newest events decide.
    pub fn most(&self) -> usize {
        self.0.iter().map(|limit| limit.count).max().unwrap_or(0)
    }

    /// Returns the longest window: older events do not matter.
    pub fn reach(&self) -> Micros {
        self.0.iter().map(|limit| limit.window).max().unwrap_or(0)
    }
}

impl FromStr for Limits {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut limits: Vec<Limit> = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            let refuse = |what: &str| Err(ParseError::new(format!("limit {} {what}", index + 1), HINT));
            if index == Self::MOST_RULES {
                return refuse("is one too many: at most 8 are taken");
            }
            let Some((count, times, unit)) = split(entry) else {
                return refuse("is not of the form '<count> per <time>'");
            };
            let Some(unit) = unit_of(unit) else {
                return refuse("names no unit of time: second, minute, hour, day, week");
            };
            let Some(count) = count.parse().ok().filter(|count| (1..=Self::MOST_COUNT).contains(count)) else {
                return refuse("has a count that is not from 1 to 1000000");
            };
            let times = if times.is_empty() { Some(1) } else { times.parse::<Micros>().ok() };
            let Some(window) = times.and_then(|times| times.checked_mul(unit)).filter(|w| Self::WINDOWS.contains(w))
            else {
                return refuse("has a time that is not from 1 second to 31 days");
            };
            if limits.iter().any(|limit| limit.window == window) {
                return refuse("is over the same time as one before it");
            }
            limits.push(Limit { count, window });
        }
        limits.sort_by_key(|limit| limit.window);
        Ok(Self(limits))
    }
}

/// Splits `5 per 10 minutes` into ("5", "10", "minutes"); the second part may be empty.
pub fn split(entry: &str) -> Option<(&str, &str, &str)> {
    let (count, rest) = digits(entry.trim());
    let (per, rest) = rest.trim_start().split_at_checked(3)?;
    let (times, unit) = digits(rest.trim_start());
    let sound = !count.is_empty() && per.eq_ignore_ascii_case("per") && !unit.is_empty();
    sound.then_some((count, times, unit.trim_start()))
}

pub fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

pub fn unit_of(name: &str) -> Option<Micros> {
    let name = name.to_ascii_lowercase();
    let singular = match name.as_str() {
        "s" | "sec" => "second",
        "min" => "minute",
        "h" => "hour",
        "d" => "day",
        whole => whole.strip_suffix('s').unwrap_or(whole),
    };
    UNITS.into_iter().find(|(_, unit)| *unit == singular).map(|(length, _)| length)
}

impl fmt::Display for Limit {
    /// Writes `5 per hour`, `3 per 10 minutes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(length, _)| self.window % length == 0);
        let (length, unit) = whole.unwrap_or((SECOND, "second"));
        match self.window / length {
            1 => write!(f, "{} per {unit}", self.count),
            times => write!(f, "{} per {times} {unit}s", self.count),
        }
    }
}

impl fmt::Display for Limits {
    /// Writes the canonical text, `5 per hour, 10 per day`, which parses to the same limits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, limit) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{limit}")?;
        }
        Ok(())
    }
}

/// Returns how long a recipient has yet to wait for another send; None if it need not wait. A last send in the future
/// (the clock was set back) counts as now, so that the wait is never longer than `resend_after`.
pub fn cooldown(resend_after: Micros, last_send: Option<Timestamp>, now: Timestamp) -> Option<Micros> {
    let age = now.since(last_send?).max(0);
    (age < resend_after).then(|| resend_after - age)
}
