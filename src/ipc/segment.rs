//! The segment of shared memory that sessions, workers and the launcher have in common: asked for when the postmaster
//! loads the library, laid out once, and at the same address in every process.

use std::{
    ffi::CStr,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

use pgrx::pg_sys;

use crate::{error::Error, pg::settings};

/// One module's part of the segment.
pub struct Part {
    size: fn() -> usize,
    base: AtomicPtr<u8>,
}

impl Part {
    /// `size` is called when the server starts, once the settings are known.
    pub const fn new(size: fn() -> usize) -> Self {
        Self { size, base: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Returns where the part begins; it is as long as `size` said, and zeroed at first. Null if the library is not
    /// preloaded.
    pub fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Acquire)
    }
}

/// The parts, one after the other in the segment; set in the postmaster, and inherited by every process.
static PARTS: OnceLock<&'static [&'static Part]> = OnceLock::new();

fn parts() -> &'static [&'static Part] {
    PARTS.get().copied().unwrap_or_default()
}

/// Rounds up so that the next part begins on a cache line.
const fn aligned(size: usize) -> usize {
    size.next_multiple_of(128)
}

fn size() -> usize {
    parts().iter().map(|part| aligned((part.size)())).sum()
}

/// How many slots shared memory has. Settled when the memory is asked for; a forked process has it from the postmaster.
static PROCESSES: AtomicUsize = AtomicUsize::new(0);

/// Returns how many processes at most can have a place in allProcs and run SQL.
pub fn max_processes() -> usize {
    PROCESSES.load(Ordering::Relaxed)
}

fn ask() {
    let setting = |name: &CStr| settings::value(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    // Before Postgres 15 MaxBackends is not known yet at this time; the sum is the one that Postgres itself makes, with
    // room for what other versions add.
    let sum = setting(c"max_connections")
        + setting(c"autovacuum_max_workers")
        + setting(c"max_worker_processes")
        + setting(c"max_wal_senders")
        + 64;
    // SAFETY: on the main thread of the postmaster, at the time for it.
    unsafe {
        PROCESSES.store(sum.max(pg_sys::MaxBackends) as usize, Ordering::Relaxed);
        pg_sys::RequestAddinShmemSpace(size());
    }
}

#[cfg(feature = "pg14")]
pub fn init(parts: &'static [&'static Part]) {
    PARTS.get_or_init(|| parts);
    // SAFETY: in _PG_init of the postmaster, where Postgres 14 asks for shared memory.
    unsafe {
        ask();
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[cfg(not(feature = "pg14"))]
pub fn init(parts: &'static [&'static Part]) {
    static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn request() {
        // SAFETY: the hook runs in the postmaster, once, and calls the hook that was there before.
        unsafe {
            if let Some(previous) = PREVIOUS_REQUEST {
                previous();
            }
            ask();
        }
    }

    PARTS.get_or_init(|| parts);
    // SAFETY: in _PG_init of the postmaster, single-threaded.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: the hook runs at server start and after a crash, before any session; the memory is zeroed when new, and
    // all-zero is the empty state of everything in it.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let mut found = false;
        let base = pg_sys::ShmemInitStruct(c"otp_gateway".as_ptr(), size(), &mut found).cast::<u8>();
        if !found {
            ptr::write_bytes(base, 0, size());
        }
        let mut from = 0;
        for part in parts() {
            part.base.store(base.add(from), Ordering::Release);
            from += aligned((part.size)());
        }
    }
}

/// Fails if the server did not preload the library; the hint has the line to add.
pub fn check() -> Result<(), Error> {
    if parts().iter().any(|part| part.base().is_null()) || parts().is_empty() {
        return Err(Error::not_in_prerequisite_state(
            "the library is not preloaded",
            "Add shared_preload_libraries = 'otp_gateway' to postgresql.conf (after what is there, separated by a \
            comma) and restart the server.",
        ));
    }
    Ok(())
}
