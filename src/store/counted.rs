//! The attempts as they are counted: in the numbers of otp_gateway.stat_attempt and its like, which are in memory, and
//! in the hours, which are on record.

use dialect::{Operation, Outcome};
use policy::{BlockReason, Micros, Timestamp};

use crate::store::identity::Identity;

/// The upper bounds of the buckets of call times, in microseconds, around the timeouts that people set.
pub const BOUNDS: [Micros; 11] =
    [50_000, 100_000, 250_000, 500_000, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 8_000_000, 10_000_000, 30_000_000];

/// What decides with which other flows a flow is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cohort {
    /// When the verification began.
    pub begun_at: Timestamp,
    /// The role that began it.
    pub role_id: Identity,
    /// The route that it was asked of.
    pub route_id: Option<Identity>,
    /// The calling code of its recipient's country.
    pub country: Option<i32>,
    /// Whether a code was sent from here, rather than only checked.
    pub was_sent: bool,
    /// Whether the flow is counted: not if it is a test number's.
    pub is_counted: bool,
}

/// An attempt, as far as it is known for counting before it ends.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    pub provider_id: Identity,
    pub operation: Operation,
    /// The rule that refused the attempt, or would have.
    pub reason: Option<BlockReason>,
    pub started_at: Timestamp,
    pub cohort: Cohort,
}

/// An attempt whose end is on record.
#[derive(Clone, Debug)]
pub struct EndedAttempt {
    pub begun: Begun,
    pub outcome: Outcome,
    pub ended_at: Timestamp,
    /// How long its call took; None: there was no call, or nobody was there when it ended.
    pub took: Option<Micros>,
    /// Whether it tells how the provider is: not if a rule of ours, or a fault of its payload's, ended it.
    pub tells_of_provider: bool,
    /// The vendor's code and words, where it tells of a fault.
    pub words: Option<(Option<String>, Option<String>)>,
    /// Until when the certificate of the host that answered is valid, if it was seen.
    pub certificate_ends_at: Option<Timestamp>,
}

impl EndedAttempt {
    /// Returns whether it sent the first code of a verification, or may have.
    pub fn sends_first_code(&self) -> bool {
        self.begun.operation == Operation::Send && matches!(self.outcome, Outcome::Sent | Outcome::Unknown)
    }

    /// Returns whether it is a code typed in that was sent from here.
    pub fn converts(&self) -> bool {
        let is_approval = self.begun.operation == Operation::Verify && self.outcome == Outcome::Approved;
        is_approval && self.begun.cohort.was_sent
    }
}
