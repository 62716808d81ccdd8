//! Hears of changes of the catalog, made by this session or others.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use pgrx::pg_sys;

/// Sets the flag whenever something has changed in one of these caches, in this process and those that it forks. Called
/// once for each use, on the main thread.
pub fn mark_changes(caches: &[pg_sys::SysCacheIdentifier::Type], flag: &'static AtomicBool) {
    for cache in caches {
        // SAFETY: on the main thread; the argument is the flag, which lives for ever.
        unsafe {
            let flag = pg_sys::Datum::from(std::ptr::from_ref(flag));
            pg_sys::CacheRegisterSyscacheCallback(*cache as i32, Some(at_change), flag);
        }
    }
}

/// A question to the catalog with the answer yes or no, asked again only after a change.
pub struct Answer {
    is_heard: AtomicBool,
    is_stale: AtomicBool,
    is_known: AtomicBool,
    is_true: AtomicBool,
}

impl Answer {
    pub const fn unknown() -> Self {
        Self {
            is_heard: AtomicBool::new(false),
            is_stale: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            is_true: AtomicBool::new(false),
        }
    }

    /// Returns the answer, in a transaction. If the look-up raises an error, the answer stays unknown.
    pub fn get(&'static self, caches: &[pg_sys::SysCacheIdentifier::Type], look: impl FnOnce() -> bool) -> bool {
        if !self.is_heard.swap(true, SeqCst) {
            mark_changes(caches, &self.is_stale);
        }
        if self.is_stale.swap(false, SeqCst) {
            self.is_known.store(false, SeqCst);
        }
        if !self.is_known.load(SeqCst) {
            self.is_true.store(look(), SeqCst);
            self.is_known.store(true, SeqCst);
        }
        self.is_true.load(SeqCst)
    }
}

unsafe extern "C-unwind" fn at_change(flag: pg_sys::Datum, _cache: i32, _hash: u32) {
    // SAFETY: the flag that mark_changes() was given.
    unsafe { &*flag.cast_mut_ptr::<AtomicBool>() }.store(true, SeqCst);
}
