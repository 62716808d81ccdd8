//! Where calls that have ended wait to be taken; a byte on a socket wakes who takes them.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{client::CompletedCall, connection_check::ConnectionCheck};

/// Where completed calls wait to be fetched.
pub struct CompletionQueue {
    pub completed: Mutex<Vec<CompletedCall>>,
    /// The same of checks.
    pub checked: Mutex<Vec<(u64, ConnectionCheck)>>,
    /// The owner was woken and has not come yet.
    pub notified: AtomicBool,
    pub wakeup: UnixStream,
}

impl CompletionQueue {
    pub fn put(&self, completed: CompletedCall) {
        self.completed.lock().unwrap_or_else(PoisonError::into_inner).push(completed);
        self.notify();
    }

    pub fn put_check(&self, check_id: u64, check: ConnectionCheck) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).push((check_id, check));
        self.notify();
    }

    fn notify(&self) {
        if !self.notified.swap(true, Ordering::SeqCst) {
            // A full socket wakes the owner already; a closed one has no owner.
            let _ = (&self.wakeup).write(&[1]);
        }
    }
}
