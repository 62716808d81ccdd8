use serde::{Deserialize, Serialize};
use vendor::Operation;

use crate::{Limits, Micros, cooldown};

/// What a provider allows, as far as it takes the record to tell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rules {
    /// False: what would be refused is noted, and goes.
    pub enforce: bool,
    /// Refused already by what the call itself says: `allowed_prefixes`.
    pub refused: Option<Reason>,
    pub resend_after: Micros,
    pub send_limit: Option<Limits>,
    pub provider_limit: Option<Limits>,
    pub check_limit: Option<Limits>,
    pub max_checks: u32,
    /// Wrong codes count against the recipient for so long.
    pub checks_reach: Micros,
}

/// The rule that refuses: `otp_gateway.attempt.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    AllowedPrefixes,
    ResendAfter,
    SendLimit,
    ProviderLimit,
    MaxChecks,
    CheckLimit,
    Breaker,
}

impl Reason {
    pub const ALL: [Self; 7] = [
        Self::AllowedPrefixes,
        Self::ResendAfter,
        Self::SendLimit,
        Self::ProviderLimit,
        Self::MaxChecks,
        Self::CheckLimit,
        Self::Breaker,
    ];

    /// The name of the server option, or `breaker`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowedPrefixes => "allowed_prefixes",
            Self::ResendAfter => "resend_after",
            Self::SendLimit => "send_limit",
            Self::ProviderLimit => "provider_limit",
            Self::MaxChecks => "max_checks",
            Self::CheckLimit => "check_limit",
            Self::Breaker => "breaker",
        }
    }
}

/// What the record knows of one recipient at one provider; times of what counts, newest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Sends that reached the vendor, or may have.
    pub sends: Vec<Micros>,
    /// Checks, and whether the code was right.
    pub checks: Vec<(Micros, bool)>,
    /// Sends through this provider to anybody; read where it has a provider_limit.
    pub provider_sends: Vec<Micros>,
}

impl History {
    /// The two together: what is known of one recipient under two names.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.sends.extend(other.sends);
        self.sends.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
        self.checks.extend(other.checks);
        self.checks.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        self
    }
}

/// A refusal by policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub reason: Reason,
    /// None: waiting does not help.
    pub retry_after: Option<Micros>,
}

impl Rules {
    /// Older events do not matter.
    pub fn reach(&self, operation: Operation) -> Micros {
        let of = |limits: &Option<Limits>| limits.as_ref().map_or(0, Limits::reach);
        match operation {
            Operation::Verify => self.checks_reach.max(of(&self.check_limit)),
            _ => self.resend_after.max(of(&self.send_limit)),
        }
    }

    /// As many of the newest events decide.
    pub fn most(&self, operation: Operation) -> usize {
        let of = |limits: &Option<Limits>| limits.as_ref().map_or(0, Limits::most);
        match operation {
            Operation::Verify => of(&self.check_limit).max(self.max_checks as usize),
            _ => of(&self.send_limit).max(1),
        }
    }

    /// Whether the operation is refused now: by the rule with the longest wait, so that obeying it succeeds.
    pub fn refuse(&self, operation: Operation, history: &History, now: Micros) -> Option<Blocked> {
        let wait = |reason, retry_after| Blocked { reason, retry_after: Some(retry_after) };
        let judge = |reason, limits: &Option<Limits>, times: &[Micros]| {
            Some(wait(reason, limits.as_ref()?.judge(times, now)?.retry_after))
        };
        if let (Some(reason), Operation::Send | Operation::Resend) = (self.refused, operation) {
            return Some(Blocked { reason, retry_after: None });
        }
        let refusals = match operation {
            Operation::Send | Operation::Resend => vec![
                cooldown(self.resend_after, history.sends.first().copied(), now)
                    .map(|left| wait(Reason::ResendAfter, left)),
                judge(Reason::SendLimit, &self.send_limit, &history.sends),
                judge(Reason::ProviderLimit, &self.provider_limit, &history.provider_sends),
            ],
            Operation::Verify => {
                // A right code is the owner's: the wrong ones before it are forgiven, and it spends none itself.
                let wrong: Vec<Micros> =
                    history.checks.iter().take_while(|(_, right)| !right).map(|(time, _)| *time).collect();
                let spent: Vec<Micros> =
                    history.checks.iter().filter(|(_, right)| !right).map(|(time, _)| *time).collect();
                let oldest = self.max_checks.checked_sub(1).and_then(|index| wrong.get(index as usize)).copied();
                vec![
                    cooldown(self.checks_reach, oldest, now).map(|left| wait(Reason::MaxChecks, left)),
                    judge(Reason::CheckLimit, &self.check_limit, &spent),
                ]
            }
            Operation::Cancel => Vec::new(),
        };
        refusals.into_iter().flatten().max_by_key(|blocked| blocked.retry_after)
    }
}

impl History {
    /// An operation that goes now counts for those after it.
    pub fn add(&mut self, operation: Operation, now: Micros) {
        match operation {
            Operation::Send | Operation::Resend => {
                self.sends.insert(0, now);
                self.provider_sends.insert(0, now);
            }
            Operation::Verify => self.checks.insert(0, (now, false)),
            Operation::Cancel => {}
        }
    }
}
