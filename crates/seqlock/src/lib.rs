//! Numbers in shared memory that one process writes and others read as they were at one moment, without a lock: readers
//! look at a version before and after, and look anew if it has changed. The numbers themselves are atomic.
#![forbid(unsafe_code)]

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// How many times a reader begins anew, if the writer writes meanwhile.
pub const PATIENCE: usize = 1000;

/// Tells readers whether what they have read is of one moment: odd while somebody writes. Zeroed memory is a version.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Version(AtomicU32);

impl Version {
    /// Changes what the version is of. One process writes, and one thread of it.
    pub fn write(&self, change: impl FnOnce()) {
        let before = self.0.load(Relaxed);
        self.0.store(before.wrapping_add(1), Relaxed);
        fence(Release);
        change();
        self.0.store(before.wrapping_add(2), Release);
    }

    /// Reads numbers of one moment. Waits for nobody: if the writer does not come to its end, the numbers are taken as
    /// they are.
    pub fn read<R>(&self, look: impl Fn() -> R) -> R {
        for _ in 0..PATIENCE {
            if let Some(seen) = self.try_read(&look) {
                return seen;
            }
            std::hint::spin_loop();
        }
        look()
    }

    /// Reads once; None if what was read may be of more than one moment.
    pub fn try_read<R>(&self, look: impl Fn() -> R) -> Option<R> {
        let before = self.0.load(Acquire);
        let seen = look();
        fence(Acquire);
        (before.is_multiple_of(2) && self.0.load(Relaxed) == before).then_some(seen)
    }
}
