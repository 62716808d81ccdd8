//! What the server's log has of the providers: a line for each event, however many calls meet it, and nothing of whom a
//! call was about.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use dialect::Outcome;
use http_client::CompletedCall;
use policy::{Breaker, BreakerState, Micros, Timestamp};

use crate::{
    job::Account,
    provider::{lookup, option_value},
    worker::state::limit_state::{BreakerKey, MOST_BREAKERS},
};

/// Two operations of one account may be answered unlike each other: no more than a line in a minute.
const MINUTE: Micros = 60_000_000;

#[derive(Default)]
pub struct ProviderLog {
    /// The accounts whose credentials were refused, and when the log was told.
    refused: HashMap<BreakerKey, Timestamp>,
    /// The files that others can read, by account and option.
    open_files: HashSet<(BreakerKey, String)>,
}

impl ProviderLog {
    /// A breaker has been told of a call.
    pub fn breaker(
        &self,
        provider: &str,
        before: BreakerState,
        after: BreakerState,
        call: &CompletedCall,
        now: Timestamp,
    ) {
        let name = lookup::shown(provider);
        match (before, after) {
            // One that opens again after its probe has been open all the while.
            (BreakerState::Closed, BreakerState::Open { until }) => {
                let wait = Duration::from_micros(until.since(now).unsigned_abs());
                pgrx::log!(
                    "otp_gateway: provider \"{name}\" failed {} times in a row, the last time with {}: nothing is sent \
                     to it for {}, and then one call, until one succeeds",
                    Breaker::THRESHOLD,
                    described(call),
                    option_value::shown(wait)
                );
            }
            (BreakerState::Open { .. } | BreakerState::HalfOpen, BreakerState::Closed) => {
                pgrx::log!("otp_gateway: provider \"{name}\" answers again: calls go to it as before");
            }
            _ => {}
        }
    }

    /// A call has ended.
    pub fn credentials(&mut self, provider: &str, account: BreakerKey, call: &CompletedCall, now: Timestamp) {
        match call.result.outcome {
            Outcome::AuthFailed => {
                if self.refused.len() >= MOST_BREAKERS {
                    self.refused.clear();
                }
                self.refused.entry(account).or_insert_with(|| {
                    pgrx::log!(
                        "otp_gateway: provider \"{}\" refuses the credentials of its user mapping: {}",
                        lookup::shown(provider),
                        described(call)
                    );
                    now
                });
            }
            // Nobody has looked at them.
            Outcome::Unreachable
            | Outcome::Unknown
            | Outcome::ProviderError
            | Outcome::RateLimited
            | Outcome::Blocked => {}
            _ => {
                if self.refused.get(&account).is_some_and(|said| now.since(*said) > MINUTE) {
                    self.refused.remove(&account);
                }
            }
        }
    }

    /// A call is about to be made with the credentials of this account.
    pub fn files(&mut self, provider: &str, account: &Account) {
        let key = BreakerKey { server: account.server, mapping: account.mapping };
        for option in &account.open_files {
            if self.open_files.len() >= MOST_BREAKERS {
                self.open_files.clear();
            }
            if self.open_files.insert((key, option.clone())) {
                pgrx::log!(
                    "otp_gateway: provider \"{}\": the file of option {option} can be read by every user of the server's \
                     machine",
                    lookup::shown(provider)
                );
            }
        }
    }
}

/// The outcome, in words that hold nothing of the vendor's answer.
fn described(call: &CompletedCall) -> String {
    let outcome = call.result.outcome.as_str();
    call.http_status.map_or_else(|| outcome.to_owned(), |status| format!("{outcome} (HTTP {status})"))
}
