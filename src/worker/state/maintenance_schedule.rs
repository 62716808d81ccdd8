//! What the worker does of its own accord when there is nothing else to do.

use policy::Timestamp;
use uuid::Uuid;

use crate::gucs;

/// What the worker does of its own accord when there is nothing else to do.
#[derive(Default)]
pub struct MaintenanceSchedule {
    /// When something will be too old, and from which verification on to look.
    pub purge_at: Timestamp,
    pub purge_from: Uuid,
    /// From which verification on there may be something under an old key.
    pub reseal_from: Option<Uuid>,
    /// Not before.
    pub reseal_at: Timestamp,
}

impl MaintenanceSchedule {
    pub fn next_due(&self) -> Option<Timestamp> {
        match self.reseal_from {
            Some(_) => Some(self.reseal_at),
            None => gucs::retention().map(|_| self.purge_at),
        }
    }

    /// The settings may have changed: retention may be shorter now.
    pub fn look_again(&mut self) {
        self.purge_at = Timestamp::default();
    }

    /// There may be something under an old key.
    pub fn reseal(&mut self) {
        self.reseal_from = Some(Uuid::nil());
        self.reseal_at = Timestamp::default();
    }
}
