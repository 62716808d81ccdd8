//! The messages about providers in the server's log: a line for each event, however many calls meet it, and nothing
//! about the person that a call was for.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use dialect::{DIALECTS, Outcome};
use http_client::CompletedCall;
use policy::{Breaker, BreakerState, Micros, Timestamp};

use crate::{
    job::Account,
    provider::{lookup, option_value},
    worker::state::limit_state::{BreakerKey, MOST_BREAKERS},
};

/// Two operations of one account may be answered unlike each other: the log has one line in this time, at most.
const MINUTE: Micros = 60_000_000;

#[derive(Default)]
pub struct ProviderLog {
    /// The accounts whose credentials were refused, and when the log was told.
    refused: HashMap<BreakerKey, Timestamp>,
    /// The files that others can read, by account and option.
    open_files: HashSet<(BreakerKey, String)>,
}

impl ProviderLog {
    /// Logs that a breaker has opened or closed, if the call that it was told of has had it do so.
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
            // A breaker that opens again after its probe has been open all the while.
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

    /// Logs that a provider's options or credentials have changed while its breaker was open.
    pub fn mended(&self, provider: &str) {
        pgrx::log!(
            "otp_gateway: provider \"{}\" has other options or credentials than those that failed: it is tried anew",
            lookup::shown(provider)
        );
    }

    /// Logs that the vendor has refused the credentials, after a call has ended.
    pub fn credentials(
        &mut self,
        (provider, vendor): (&str, &str),
        account: BreakerKey,
        call: &CompletedCall,
        now: Timestamp,
    ) {
        match call.result.outcome {
            Outcome::AuthFailed => {
                if self.refused.len() >= MOST_BREAKERS {
                    self.refused.clear();
                }
                self.refused.entry(account).or_insert_with(|| {
                    let (code, status) = (call.result.vendor_code.as_deref(), call.http_status);
                    let dialect = DIALECTS.iter().find(|dialect| dialect.name == vendor);
                    let is_address = dialect.is_some_and(|dialect| dialect.may_mean_address(code, status));
                    pgrx::log!(
                        "otp_gateway: provider \"{}\" refuses the credentials of its user mapping{}: {}",
                        lookup::shown(provider),
                        if is_address { ", or this machine's address is not on the vendor's list" } else { "" },
                        described(call)
                    );
                    now
                });
            }
            // These outcomes do not tell whether the vendor has looked at the credentials.
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

    /// Logs which files can be read by others, when a call is about to be made with the credentials of this account.
    pub fn files(&mut self, provider: &str, account: &Account) {
        let key = BreakerKey { server: account.server, mapping: account.mapping };
        for option in &account.open_files {
            if self.open_files.len() >= MOST_BREAKERS {
                self.open_files.clear();
            }
            if self.open_files.insert((key, option.clone())) {
                pgrx::log!(
                    "otp_gateway: provider \"{}\": the file of option {option} can be read by every user of the \
                     server's machine",
                    lookup::shown(provider)
                );
            }
        }
    }
}

/// Describes the outcome, with nothing of the vendor's answer but its code, if that looks like one.
fn described(call: &CompletedCall) -> String {
    let code =
        call.result.vendor_code.as_deref().filter(|code| is_code(code)).map(|code| format!("vendor code {code}"));
    let status = call.http_status.map(|status| format!("HTTP {status}"));
    let said: Vec<String> = status.into_iter().chain(code).collect();
    let outcome = call.result.outcome.as_str();
    if said.is_empty() { outcome.to_owned() } else { format!("{outcome} ({})", said.join(", ")) }
}

/// Returns whether a vendor's code looks like one: it is no text, and shorter than a person's number.
fn is_code(code: &str) -> bool {
    (1..=8).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}
