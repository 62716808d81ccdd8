use dialect::Outcome;

use crate::time::{Micros, Timestamp};

const SECOND: Micros = 1_000_000;

/// The circuit breaker of one account at a provider: after a run of the provider's faults nothing is sent to it for a
/// while, then single probes are, until one succeeds.
///
/// Ask it last, when nothing else can refuse the call, and report every call that a permit was given for.
#[derive(Clone, Debug)]
pub struct Breaker {
    phase: Phase,
    /// Counts the changes of phase. A report from an earlier phase says nothing of the present one: when a provider
    /// hangs, the calls that were under way as the breaker opened fail one after another for as long as their timeout,
    /// and would otherwise condemn the probe, or open anew what the probe has closed. For the same reason a late
    /// success does not close the breaker: a provider under too much load still answers some calls, and a probe is at
    /// most one wait away.
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// How many faults there were in a row.
    Closed { faults: u32 },
    /// No call goes before `until`.
    Open { until: Timestamp, wait: Micros },
    /// A probe is under way; the next may go at `until`, should nothing be heard of this one.
    Probing { until: Timestamp, wait: Micros },
}

/// Permission for one call, to be handed back with its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerPermit {
    Normal { epoch: u64 },
    Probe { epoch: u64 },
}

/// The state of a breaker as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open {
        until: Timestamp,
    },
    /// A probe may go or is under way.
    HalfOpen,
}

enum Evidence {
    Fault,
    Healthy,
    /// The provider is there, and wants to be left alone.
    Busy,
    /// Nothing left this machine.
    None,
}

impl Breaker {
    /// How many faults in a row open the breaker.
    pub const THRESHOLD: u32 = 5;
    /// The wait after opening; each probe that fails doubles it.
    pub const FIRST_WAIT: Micros = 5 * SECOND;
    pub const LONGEST_WAIT: Micros = 5 * 60 * SECOND;
    /// For how long a probe of which nothing is heard blocks the next one.
    pub const PROBE_PATIENCE: Micros = 60 * SECOND;

    pub fn new() -> Self {
        Self { phase: Phase::Closed { faults: 0 }, epoch: 0 }
    }

    /// Returns a breaker that was open when it was put on record.
    pub fn opened(until: Timestamp, wait: Micros) -> Self {
        let wait = wait.clamp(Self::FIRST_WAIT, Self::LONGEST_WAIT);
        Self { phase: Phase::Open { until, wait }, epoch: 0 }
    }

    /// Closes the breaker, because what made the provider fail has been changed: faults are counted anew, and calls
    /// under way say nothing of the provider any more.
    pub fn reset(&mut self) {
        self.enter(Phase::Closed { faults: 0 });
    }

    /// Lets a call go, or returns how long to wait: while a probe is under way, the longest that it can take; the
    /// breaker may close before.
    pub fn acquire(&mut self, now: Timestamp) -> Result<BreakerPermit, Micros> {
        let (until, longest, wait) = match &mut self.phase {
            Phase::Closed { .. } => return Ok(BreakerPermit::Normal { epoch: self.epoch }),
            Phase::Open { until, wait } => (until, *wait, *wait),
            Phase::Probing { until, wait } => (until, Self::PROBE_PATIENCE, *wait),
        };
        // If the clock was set back, the wait begins again, rather than last as long as the clock jumped.
        *until = (*until).min(now + longest);
        if now < *until {
            return Err(until.since(now));
        }
        self.enter(Phase::Probing { until: now + Self::PROBE_PATIENCE, wait });
        Ok(BreakerPermit::Probe { epoch: self.epoch })
    }

    /// Reports how a call ended. A call that was let go in an earlier phase is ignored.
    pub fn record(&mut self, pass: BreakerPermit, outcome: Outcome, now: Timestamp) {
        self.weigh(pass, evidence(outcome), now);
    }

    /// Reports a call that never left, by a fault of its caller's: it tells nothing of the provider.
    pub fn forgo(&mut self, pass: BreakerPermit, now: Timestamp) {
        self.weigh(pass, Evidence::None, now);
    }

    fn weigh(&mut self, pass: BreakerPermit, evidence: Evidence, now: Timestamp) {
        let (BreakerPermit::Normal { epoch } | BreakerPermit::Probe { epoch }) = pass;
        if epoch != self.epoch {
            return;
        }
        match (self.phase, evidence) {
            (Phase::Closed { faults }, Evidence::Fault) if faults + 1 >= Self::THRESHOLD => {
                self.open(now, Self::FIRST_WAIT);
            }
            (Phase::Closed { faults }, Evidence::Fault) => self.phase = Phase::Closed { faults: faults + 1 },
            (Phase::Closed { .. }, Evidence::Healthy) => self.phase = Phase::Closed { faults: 0 },
            (Phase::Closed { .. }, Evidence::Busy | Evidence::None) => {}
            (Phase::Probing { wait, .. }, Evidence::Fault) => self.open(now, (wait * 2).min(Self::LONGEST_WAIT)),
            (Phase::Probing { .. }, Evidence::Healthy) => self.enter(Phase::Closed { faults: 0 }),
            // Still undecided, and the next probe goes after the same wait: it is neither doubled nor halved.
            (Phase::Probing { wait, .. }, Evidence::Busy) => self.open(now, wait),
            (Phase::Probing { wait, .. }, Evidence::None) => self.enter(Phase::Open { until: now, wait }),
            // While the breaker is open, no permit is given.
            (Phase::Open { .. }, _) => {}
        }
    }

    pub fn state(&self, now: Timestamp) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until, .. } if now < until => BreakerState::Open { until },
            Phase::Open { .. } | Phase::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, now: Timestamp, wait: Micros) {
        self.enter(Phase::Open { until: now + wait, wait });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns whether an outcome is the provider's fault, which its breaker counts.
pub fn is_fault(outcome: Outcome) -> bool {
    matches!(evidence(outcome), Evidence::Fault)
}

/// Returns what an outcome says of the provider's health. An answer about a user's mistake shows that the provider
/// works.
fn evidence(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Unreachable | Outcome::Unknown | Outcome::ProviderError | Outcome::AuthFailed => Evidence::Fault,
        Outcome::RateLimited => Evidence::Busy,
        Outcome::Blocked => Evidence::None,
        Outcome::Sent
        | Outcome::Approved
        | Outcome::Canceled
        | Outcome::InvalidCode
        | Outcome::Expired
        | Outcome::AlreadyUsed
        | Outcome::AlreadyRegistered
        | Outcome::MaxAttemptsReached
        | Outcome::NotFound
        | Outcome::InvalidRequest
        | Outcome::Refused => Evidence::Healthy,
    }
}
