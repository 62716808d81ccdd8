//! When something is to be erased.

use policy::{Expiries, Timestamp};
use uuid::Uuid;

use crate::pg::{clock::clock, uuid_time::began};

#[derive(Default)]
pub struct ExpiryHeap {
    pub expiries: Expiries,
    /// Verifications before the first of these, from the second on, are looked at for what is due among them.
    pub due: Option<(Uuid, Uuid)>,
    /// Not before, after it has failed.
    pub again_at: Timestamp,
    /// What began before this verification is not read yet.
    pub unread: Option<Uuid>,
    /// Under keys that the file does not hold.
    pub unknown_seals: usize,
}

impl ExpiryHeap {
    pub fn add(&mut self, id: Uuid, at: Timestamp) {
        self.expiries.add(began(id), at, clock());
    }

    /// When the next ones are to be erased.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.due.is_some() { Some(self.again_at) } else { self.expiries.next_due() }
    }

    pub fn is_loading(&self) -> bool {
        self.unread.is_some()
    }
}
