//! Failures go into the server's log when they begin and when they end, however many calls meet them: a full disk must
//! not be filled by messages about it.

use std::collections::BTreeMap;

use policy::{Micros, Timestamp};

use crate::{pg::clock::clock, store::transaction::Failure};

/// A failure that calls meet is over when no call has met it for so long: in between, other calls may succeed.
pub const QUIET: Micros = 2_000_000;

#[derive(Default)]
pub struct FailureLog(BTreeMap<&'static str, Met>);

pub struct Met {
    why: String,
    times: u64,
    /// When the failure is over by itself; None: it is over when the task that failed works again.
    over_at: Option<Timestamp>,
}

/// The failures that calls meet.
pub const OUTCOME: &str = "an outcome could not be put on record yet";
pub const ATTEMPT: &str = "an attempt could not be put on record";
pub const QUEUED: &str = "a queued send could not be put on record";
pub const NOT_READY: &str = "what is queued waits for a file of its provider's";
pub const READ: &str = "the record could not be read";

impl FailureLog {
    pub fn raise(&mut self, what: &'static str, why: &str) {
        if !self.0.contains_key(what) {
            pgrx::log!("otp_gateway: {what}: {why}");
        }
        self.meet(what, why, Some(clock() + QUIET));
    }

    /// Notes a failure that is met again after `wait`. Returns whether to log it: not if it was logged with the same
    /// reason.
    pub fn is_news(&mut self, what: &'static str, why: &str, wait: Micros) -> bool {
        let is_news = self.0.get(what).is_none_or(|met| met.why != why);
        self.meet(what, why, Some(clock() + wait + QUIET));
        is_news
    }

    /// Notes how a task went that the worker does of its own accord; a lock that passes is no failure.
    pub fn note(&mut self, task: &'static str, failure: Option<&Failure>) {
        match failure {
            Some(Failure::Error(why)) => {
                if self.0.get(task).is_none_or(|met| met.why != *why) {
                    pgrx::warning!("otp_gateway: {task} fails, and is tried again: {why}");
                }
                self.meet(task, why, None);
            }
            Some(Failure::Busy | Failure::NotInstalled) => {}
            None => {
                if let Some(met) = self.0.remove(task) {
                    pgrx::log!("otp_gateway: {task} works again, after {} failures", met.times);
                }
            }
        }
    }

    pub fn meet(&mut self, what: &'static str, why: &str, over_at: Option<Timestamp>) {
        let times = self.0.get(what).map_or(0, |met| met.times) + 1;
        self.0.insert(what, Met { why: why.to_owned(), times, over_at });
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|met| met.over_at).min()
    }

    /// Logs which failures are over.
    pub fn settle(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let now = clock();
        self.0.retain(|what, met| {
            let goes_on = met.over_at.is_none_or(|at| at > now);
            if !goes_on {
                pgrx::log!("otp_gateway: over since then, after {} times: {what}", met.times);
            }
            goes_on
        });
    }
}
