//! Hearing of changes of the catalog, by this session or others.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use pgrx::pg_sys;

/// Sets the flag whenever something has changed in one of these caches, in this process and those that it forks. For
/// each use there is one call, on the main thread.
pub fn mark_changes(caches: &[pg_sys::SysCacheIdentifier::Type], flag: &'static AtomicBool) {
    for cache in caches {
        // SAFETY: on the main thread; the argument is the flag, which lives for ever.
        unsafe {
            let flag = pg_sys::Datum::from(std::ptr::from_ref(flag));
            pg_sys::CacheRegisterSyscacheCallback(*cache as i32, Some(at_change), flag);
        }
    }
}

unsafe extern "C-unwind" fn at_change(flag: pg_sys::Datum, _cache: i32, _hash: u32) {
    // SAFETY: the flag that mark_changes() was given.
    unsafe { &*flag.cast_mut_ptr::<AtomicBool>() }.store(true, SeqCst);
}
