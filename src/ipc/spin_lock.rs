//! A lock in shared memory.

use std::sync::atomic::{AtomicU32, Ordering};

/// A lock for a few instructions and a copy: nothing that can fail or wait runs under it.
#[repr(transparent)]
pub struct SpinLock(AtomicU32);

/// Holds a [`SpinLock`] until dropped.
pub struct Held<'a>(&'a SpinLock);

impl SpinLock {
    pub fn hold(&self) -> Held<'_> {
        let mut spins = 0u32;
        while self.0.swap(1, Ordering::Acquire) != 0 {
            spins += 1;
            // With two cores the holder may need this process' core to get on.
            if spins.is_multiple_of(64) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}
