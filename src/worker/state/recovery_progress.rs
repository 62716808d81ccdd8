//! What could not be settled at the start yet.

use uuid::Uuid;

use crate::pg::clock::SinceBoot;
use crate::{ipc::worker::Orphaned, store::transaction::Failure};

/// What could not be settled at the start yet.
#[derive(Default)]
pub struct RecoveryProgress {
    /// Nobody knows yet what was left in flight: nothing else is done before.
    pub is_blind: bool,
    /// Attempts before the first of these, from the second on, are not looked at yet.
    pub unread: Option<(Uuid, Uuid)>,
    /// Verifications with something in flight that could not be settled: their requests wait.
    pub unsettled: Vec<Uuid>,
    /// Sessions that have no answer yet, and since when.
    pub orphaned: Vec<(Orphaned, SinceBoot)>,
    /// When it is tried again.
    pub again_at: Option<SinceBoot>,
    pub said: bool,
}

impl RecoveryProgress {
    pub fn next_due(&self) -> Option<SinceBoot> {
        self.again_at
    }

    pub fn complain(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.said, true) {
            pgrx::warning!("otp_gateway: attempts left in flight could not be settled yet: {failure:?}");
        }
    }
}
