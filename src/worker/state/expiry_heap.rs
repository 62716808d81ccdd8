//! When sealed values are to be erased.

use policy::{Expiries, Timestamp};
use uuid::Uuid;

use crate::pg::{clock::clock, uuid_time::began};

#[derive(Default)]
pub struct ExpiryHeap {
    pub expiries: Expiries,
    /// Verifications before the first id, from the second on, are looked at now, for what is due among them.
    pub due: Option<(Uuid, Uuid)>,
    /// After a failure, the next try is not before this time.
    pub again_at: Timestamp,
    /// Verifications that began before this one are not read yet; None: all are read.
    pub unread: Option<Uuid>,
    /// How many values are sealed under keys that the file does not hold.
    pub unknown_seals: usize,
}

impl ExpiryHeap {
    pub fn add(&mut self, id: Uuid, at: Timestamp) {
        self.expiries.add(began(id), at, clock());
    }

    /// Returns when the next values are to be erased.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.due.is_some() { Some(self.again_at) } else { self.expiries.next_due() }
    }

    pub fn is_loading(&self) -> bool {
        self.unread.is_some()
    }
}
