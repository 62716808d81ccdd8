//! When the worker does maintenance of its own accord.

use policy::Timestamp;
use uuid::Uuid;

use crate::gucs;

/// The maintenance that the worker does of its own accord when there is nothing else to do.
#[derive(Default)]
pub struct MaintenanceSchedule {
    /// When rows will be too old, and from which verification on to look for them.
    pub purge_at: Timestamp,
    pub purge_from: Uuid,
    /// The verification from which on values may be sealed under an old key; None: no value is.
    pub reseal_from: Option<Uuid>,
    /// The next part of sealing anew is not before this time.
    pub reseal_at: Timestamp,
}

impl MaintenanceSchedule {
    pub fn next_due(&self) -> Option<Timestamp> {
        match self.reseal_from {
            Some(_) => Some(self.reseal_at),
            None => gucs::retention().map(|_| self.purge_at),
        }
    }

    /// Has the next purge begin at once: the settings may have changed, and retention may be shorter now.
    pub fn look_again(&mut self) {
        self.purge_at = Timestamp::default();
    }

    /// Begins to seal anew what may be sealed under an old key.
    pub fn reseal(&mut self) {
        self.reseal_from = Some(Uuid::nil());
        self.reseal_at = Timestamp::default();
    }
}
