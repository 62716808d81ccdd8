//! The worker as a process of this server: signals, connection, sleep, end.

use std::{
    os::fd::AsRawFd,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::{bgworkers::BackgroundWorker, pg_sys};

use crate::{
    ledger::{clock, interrupt_commit},
    roster::{self, Stage},
};

static MUST_END: AtomicBool = AtomicBool::new(false);
/// The worker has written down what it must: its end is no crash.
static ORDERLY: AtomicBool = AtomicBool::new(false);
static DATABASE: AtomicU32 = AtomicU32::new(0);

/// What the worker's own statements run with, whatever the server, the database or the role has set.
const SETTINGS: &[(&std::ffi::CStr, &std::ffi::CStr)] = &[
    (c"search_path", c"pg_catalog"),
    (c"statement_timeout", c"0"),
    // Somebody who locks our tables does not lock the worker in: it comes back to its loop and tries again.
    (c"lock_timeout", c"500ms"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"row_security", c"off"),
    // No trigger of somebody else's runs with our rights.
    (c"session_replication_role", c"replica"),
    // Plans are made once, when the tables may be empty; they must be right when the tables are large.
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
    (c"jit", c"off"),
];

unsafe extern "C-unwind" fn on_sigterm(_signal: std::ffi::c_int) {
    MUST_END.store(true, SeqCst);
    interrupt_commit();
    // SAFETY: SetLatch is made to be called by signal handlers.
    unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
}

unsafe extern "C-unwind" fn on_sighup(_signal: std::ffi::c_int) {
    // SAFETY: a flag that Postgres' own handler sets, and SetLatch.
    unsafe {
        (&raw mut pg_sys::ConfigReloadPending).write_volatile(1);
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    let stage = if ORDERLY.load(SeqCst) { Stage::Free } else { Stage::Crashed };
    roster::set(pg_sys::Oid::from(DATABASE.load(SeqCst)), stage);
    roster::wake_launcher();
}

pub fn set_up(database: pg_sys::Oid) {
    DATABASE.store(database.to_u32(), SeqCst);
    // SAFETY: at the start of a background worker, before signals are let through.
    unsafe {
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
        pqsignal(pg_sys::SIGTERM as i32, Some(on_sigterm));
        pqsignal(pg_sys::SIGHUP as i32, Some(on_sighup));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    // Batches come and go: giving the memory back to the system after each, and asking for it again, costs more than
    // the batch. SAFETY: plain settings of this process' allocator.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_TOP_PAD, 1 << 20);
    }
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    for (name, value) in SETTINGS {
        // SAFETY: both are C strings; the settings exist in every version and anybody may set them.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

pub fn must_end() -> bool {
    MUST_END.load(SeqCst)
}

/// True: they were read again.
pub fn reload_settings() -> bool {
    // SAFETY: on the main thread, outside a transaction.
    unsafe {
        let asked = (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0;
        if asked {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        asked
    }
}

/// Before the loop looks at anything: whatever comes after it wakes the next sleep.
pub fn reset_latch() {
    // SAFETY: this process' own latch.
    unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
    pgrx::check_for_interrupts!();
}

/// Until the latch is set, the bell rings or `due` has come.
pub fn sleep(bell: &UnixStream, due: Option<policy::Micros>) {
    courier::wipe_stack();
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_SOCKET_READABLE;
    let mut milliseconds = -1;
    if let Some(due) = due {
        events |= pg_sys::WL_TIMEOUT;
        // A day at most: the number must fit.
        milliseconds = ((due - clock()) / 1000 + 1).clamp(0, 86_400_000);
    }
    // SAFETY: this process' own latch and an open socket.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            bell.as_raw_fd(),
            milliseconds as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
    }
}

/// The worker's end is in order: no other is to be started until somebody needs one.
pub fn leave() {
    ORDERLY.store(true, SeqCst);
}

/// Runs `start` with every signal blocked, so that a thread that it starts never runs a handler of Postgres'.
pub fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    // SAFETY: plain calls on local sets; the mask is put back as it was.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        started
    }
}
