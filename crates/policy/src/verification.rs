use crate::{status::Status, time::Timestamp};

/// The part of a verification's row that decides what may happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    pub status: Status,
    pub reference: Option<String>,
    pub expires_at: Option<Timestamp>,
    pub approved_at: Option<Timestamp>,
    pub send_count: u32,
    /// How many checks are spent. A check is reserved before a code leaves this machine, and given back if the vendor
    /// certainly compared nothing: so a crash in between can only cost a check, never give one.
    pub check_count: u32,
    pub max_checks: u32,
}

impl Verification {
    /// Returns a verification that a send begins.
    pub fn sending(max_checks: u32) -> Self {
        Self { send_count: 1, ..Self::elsewhere(Status::Sending, max_checks) }
    }

    /// Returns a verification whose send did not go through here.
    pub fn begun_elsewhere(max_checks: u32) -> Self {
        Self::elsewhere(Status::Pending, max_checks)
    }

    /// Returns a verification whose send waits for its transaction's COMMIT and then for its turn.
    pub fn queued(max_checks: u32) -> Self {
        Self::elsewhere(Status::Queued, max_checks)
    }

    /// Returns a verification whose send a rule refused.
    pub fn refused(max_checks: u32) -> Self {
        Self::elsewhere(Status::Blocked, max_checks)
    }

    fn elsewhere(status: Status, max_checks: u32) -> Self {
        Self { status, reference: None, expires_at: None, approved_at: None, send_count: 0, check_count: 0, max_checks }
    }

    pub fn attempts_left(&self) -> u32 {
        if self.status.is_terminal() { 0 } else { self.max_checks.saturating_sub(self.check_count) }
    }
}
