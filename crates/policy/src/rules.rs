use dialect::Operation;
use serde::{Deserialize, Serialize};

use crate::{
    cooldown,
    limit::Limits,
    number_range::{MinConversion, NumberRange},
    time::{Micros, Timestamp},
};

/// A provider's rules for sends and checks, most of which take the record to decide.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitRules {
    /// False: a refusal is noted, and the call is made all the same.
    pub enforce: bool,
    /// The rule that refuses a send by what the call or the server says, without the record: `paused`,
    /// `allowed_prefixes`.
    pub refused: Option<BlockReason>,
    pub resend_after: Micros,
    pub send_limit: Option<Limits>,
    pub provider_limit: Option<Limits>,
    /// None: no range is held back.
    pub min_conversion: Option<MinConversion>,
    /// The recipient's range, if the recipient is a number.
    pub range: Option<NumberRange>,
    pub check_limit: Option<Limits>,
    pub max_checks: u32,
    /// For how long wrong codes count against the recipient.
    pub check_window: Micros,
}

/// The rule that refuses: `otp_gateway.attempt.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockReason {
    Paused,
    AllowedPrefixes,
    ResendAfter,
    SendLimit,
    ProviderLimit,
    MinConversion,
    MaxChecks,
    CheckLimit,
    Breaker,
}

impl BlockReason {
    pub const ALL: [Self; 9] = [
        Self::Paused,
        Self::AllowedPrefixes,
        Self::ResendAfter,
        Self::SendLimit,
        Self::ProviderLimit,
        Self::MinConversion,
        Self::MaxChecks,
        Self::CheckLimit,
        Self::Breaker,
    ];

    /// Returns the name of the server option, or `breaker`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::AllowedPrefixes => "allowed_prefixes",
            Self::ResendAfter => "resend_after",
            Self::SendLimit => "send_limit",
            Self::ProviderLimit => "provider_limit",
            Self::MinConversion => "min_conversion",
            Self::MaxChecks => "max_checks",
            Self::CheckLimit => "check_limit",
            Self::Breaker => "breaker",
        }
    }
}

/// What the record knows of one recipient; times of what counts, newest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Sends through this provider that reached the vendor, or may have.
    pub sends: Vec<Timestamp>,
    /// Checks at this account or through this provider.
    pub checks: Vec<PastCheck>,
    /// Whether the role that asks has sent nothing to the recipient.
    pub is_stranger: bool,
    /// How long this provider's provider_limit still refuses sends, in microseconds.
    pub provider_wait: Option<Micros>,
}

/// A code that was compared, or may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastCheck {
    pub at: Timestamp,
    pub is_right: bool,
    /// Whether it was at the same account of the vendor, through whichever provider.
    pub of_account: bool,
    pub of_provider: bool,
    /// Whether a role made it that has sent nothing to the recipient.
    pub by_stranger: bool,
}

impl History {
    /// Joins two histories of one recipient who is known under two keys.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.sends.extend(other.sends);
        self.sends.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
        self
    }
}

/// A refusal by policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub reason: BlockReason,
    /// How long to wait; None: waiting does not help.
    pub retry_after: Option<Micros>,
}

impl Blocked {
    /// Returns until when the refusal holds.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.retry_after.map(|wait| now + wait)
    }
}

impl LimitRules {
    /// Returns how far back the rules look, in microseconds: older events do not matter.
    pub fn lookback(&self, operation: Operation) -> Micros {
        let of = |limits: &Option<Limits>| limits.as_ref().map_or(0, Limits::reach);
        match operation {
            Operation::Verify => self.check_window.max(of(&self.check_limit)),
            _ => self.resend_after.max(of(&self.send_limit)),
        }
    }

    /// Returns how many of the newest events decide.
    pub fn max_events(&self, operation: Operation) -> usize {
        let of = |limits: &Option<Limits>| limits.as_ref().map_or(0, Limits::most);
        match operation {
            Operation::Verify => of(&self.check_limit).max(self.max_checks as usize),
            _ => of(&self.send_limit).max(1),
        }
    }

    /// Returns the refusal of the operation now, if there is one: by the rule with the longest wait, so that obeying it
    /// succeeds.
    pub fn check(&self, operation: Operation, history: &History, now: Timestamp) -> Option<Blocked> {
        let wait = |reason, retry_after| Blocked { reason, retry_after: Some(retry_after) };
        let refusal = |reason, limits: &Option<Limits>, times: &[Timestamp]| {
            Some(wait(reason, limits.as_ref()?.refusal(times, now)?.retry_after))
        };
        if let (Some(reason), Operation::Send | Operation::Resend) = (self.refused, operation) {
            return Some(Blocked { reason, retry_after: None });
        }
        let refusals = match operation {
            Operation::Send | Operation::Resend => vec![
                cooldown(self.resend_after, history.sends.first().copied(), now)
                    .map(|left| wait(BlockReason::ResendAfter, left)),
                refusal(BlockReason::SendLimit, &self.send_limit, &history.sends),
                history.provider_wait.map(|left| wait(BlockReason::ProviderLimit, left)),
            ],
            Operation::Verify => {
                let wrong = Wrong::of(history);
                let full = |times: &[Timestamp], most: usize| {
                    let oldest = most.checked_sub(1).and_then(|index| times.get(index)).copied();
                    cooldown(self.check_window, oldest, now).map(|left| wait(BlockReason::MaxChecks, left))
                };
                let mut refusals = vec![
                    full(&wrong.of_account, self.max_checks as usize),
                    refusal(BlockReason::CheckLimit, &self.check_limit, &wrong.of_provider),
                ];
                if history.is_stranger {
                    let halved = self.check_limit.as_ref().map(Limits::halved);
                    refusals.push(full(&wrong.of_account_by_strangers, self.strangers_checks()));
                    refusals.push(refusal(BlockReason::CheckLimit, &halved, &wrong.of_provider_by_strangers));
                }
                refusals
            }
            Operation::Cancel => Vec::new(),
        };
        refusals.into_iter().flatten().max_by_key(|blocked| blocked.retry_after)
    }

    /// Returns how many wrong codes those may spend together who have sent nothing to a recipient: half of them,
    /// rounded up, so that they cannot lock out those who have.
    fn strangers_checks(&self) -> usize {
        (self.max_checks as usize).div_ceil(2)
    }

    /// Returns how many wrong codes the role that asks may still spend now.
    pub fn checks_left(&self, history: &History, now: Timestamp) -> u32 {
        let wrong = Wrong::of(history);
        let left = |times: &[Timestamp], most: usize| {
            let counts = |time: &&Timestamp| now.since(**time) < self.check_window;
            most.saturating_sub(times.iter().take_while(counts).count())
        };
        let room = |limits: &Option<Limits>, times: &[Timestamp]| {
            limits.as_ref().map_or(usize::MAX, |limits| limits.room(times, now))
        };
        let mut least =
            left(&wrong.of_account, self.max_checks as usize).min(room(&self.check_limit, &wrong.of_provider));
        if history.is_stranger {
            let halved = self.check_limit.as_ref().map(Limits::halved);
            least = least
                .min(left(&wrong.of_account_by_strangers, self.strangers_checks()))
                .min(room(&halved, &wrong.of_provider_by_strangers));
        }
        u32::try_from(least).unwrap_or(u32::MAX)
    }
}

/// When wrong codes were spent, by what they count for, newest first.
struct Wrong {
    /// A right code is the owner's: the wrong codes before it are forgiven.
    of_account: Vec<Timestamp>,
    of_account_by_strangers: Vec<Timestamp>,
    of_provider: Vec<Timestamp>,
    of_provider_by_strangers: Vec<Timestamp>,
}

impl Wrong {
    fn of(history: &History) -> Self {
        let times = |checks: &[PastCheck]| checks.iter().map(|check| check.at).collect::<Vec<_>>();
        let by_strangers =
            |checks: &[PastCheck]| checks.iter().filter(|check| check.by_stranger).map(|check| check.at).collect();
        let of_account = history.checks.iter().filter(|check| check.of_account);
        let of_account: Vec<PastCheck> = of_account.take_while(|check| !check.is_right).copied().collect();
        let of_provider: Vec<PastCheck> =
            history.checks.iter().filter(|check| check.of_provider && !check.is_right).copied().collect();
        Self {
            of_account_by_strangers: by_strangers(&of_account),
            of_account: times(&of_account),
            of_provider_by_strangers: by_strangers(&of_provider),
            of_provider: times(&of_provider),
        }
    }
}
