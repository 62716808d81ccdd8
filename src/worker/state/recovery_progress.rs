//! The state of the recovery at the worker's start.

use uuid::Uuid;

use crate::pg::clock::SinceBoot;
use crate::{ipc::worker::Orphaned, store::transaction::Failure};

/// What could not yet be settled at the worker's start.
#[derive(Default)]
pub struct RecoveryProgress {
    /// Whether nobody knows yet what was left in flight: nothing else is done before.
    pub is_blind: bool,
    /// Attempts before the first id, from the second on, are not looked at yet.
    pub unread: Option<(Uuid, Uuid)>,
    /// Verifications with an attempt in flight that could not be settled: their requests wait.
    pub unsettled: Vec<Uuid>,
    /// Sessions that have no answer yet, and since when.
    pub orphaned: Vec<(Orphaned, SinceBoot)>,
    /// When the recovery is tried again; None: nothing is left to be tried.
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
