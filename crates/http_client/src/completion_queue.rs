//! Where calls that have ended wait to be taken; a byte on a socket wakes who takes them.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::client::Delivery;

/// Where deliveries wait to be fetched.
pub struct Shelf {
    pub deliveries: Mutex<Vec<Delivery>>,
    /// The owner was woken and has not come yet.
    pub rung: AtomicBool,
    pub bell: UnixStream,
}

impl Shelf {
    pub fn put(&self, delivery: Delivery) {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
        if !self.rung.swap(true, Ordering::SeqCst) {
            // A full socket has rung already; a closed one has no owner.
            let _ = (&self.bell).write(&[1]);
        }
    }
}
