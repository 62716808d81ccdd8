//! What waits for a row that somebody has locked.

use http_client::Delivery;
use policy::Micros;
use uuid::Uuid;

use crate::{ipc::worker::Ticket, job::Order};

#[derive(Default)]
pub struct Locked {
    /// With the verification on record that each needs, which stays busy with it.
    pub orders: Vec<(Uuid, Ticket, Box<Order>)>,
    pub deliveries: Vec<Delivery>,
    pub again_at: Option<Micros>,
}

impl Locked {
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.deliveries.is_empty()
    }

    /// By [`since_boot`].
    pub fn next_due(&self) -> Option<Micros> {
        self.again_at
    }
}
