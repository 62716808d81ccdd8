//! Calls that have ended wait here until the owner takes them; a byte on a socket wakes the owner.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{client::CompletedCall, connection_check::ConnectionCheck};

/// The calls and checks that have ended and were not taken yet.
pub struct CompletionQueue {
    pub completed: Mutex<Vec<CompletedCall>>,
    /// Checks that have ended, by their number.
    pub checked: Mutex<Vec<(u64, ConnectionCheck)>>,
    /// Whether a byte is on its way to the owner, who has not read it yet.
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
        // At most one byte is on its way, so that the socket is never full; if it is closed, there is no owner. Should
        // the system have no memory for the byte, the next end tries again.
        if !self.notified.swap(true, Ordering::SeqCst) && (&self.wakeup).write(&[1]).is_err() {
            self.notified.store(false, Ordering::SeqCst);
        }
    }
}
