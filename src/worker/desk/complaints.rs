//! What goes wrong with the record goes into the server's log when it begins and when it ends, however many calls meet it: a
//! full disk must not be filled by what is said of it.

use std::collections::BTreeMap;

use policy::Micros;

use crate::ledger::clock;

/// One that has not been met for so long is over: in between, others may succeed.
const QUIET: Micros = 2_000_000;

#[derive(Default)]
pub struct Complaints(BTreeMap<&'static str, Met>);

struct Met {
    times: u64,
    last: Micros,
}

/// What could not be done.
pub const OUTCOME: &str = "an outcome could not be put on record yet";
pub const ATTEMPT: &str = "an attempt could not be put on record";
pub const QUEUED: &str = "a queued send could not be put on record";
pub const READ: &str = "the record could not be read";

impl Complaints {
    pub fn raise(&mut self, what: &'static str, why: &str) {
        let met = self.0.entry(what).or_insert(Met { times: 0, last: 0 });
        if met.times == 0 {
            pgrx::log!("otp_gateway: {what}: {why}");
        }
        *met = Met { times: met.times + 1, last: clock() };
    }

    pub fn next_due(&self) -> Option<Micros> {
        self.0.values().map(|met| met.last.saturating_add(QUIET)).min()
    }

    /// Says what is over.
    pub fn settle(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let now = clock();
        self.0.retain(|what, met| {
            let goes_on = met.last.saturating_add(QUIET) > now;
            if !goes_on {
                pgrx::log!("otp_gateway: over since then, after {} times: {what}", met.times);
            }
            goes_on
        });
    }
}
