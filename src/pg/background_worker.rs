//! A background worker as a process of this server: its main function, signals, connection, sleep.

use std::{
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::{bgworkers::BackgroundWorker, pg_sys};

use crate::pg::{
    settings,
    wait_event::WaitEvent,
    worker_transaction::{cancel_statement, interrupt_commit},
};

static MUST_END: AtomicBool = AtomicBool::new(false);
/// Whether the worker is being connected, which may wait for whoever has the database locked.
static CONNECTING: AtomicBool = AtomicBool::new(false);

/// Defines the main function of a background worker, under the name by which Postgres looks for it.
macro_rules! background_worker {
    ($name:ident, $main:expr) => {
        #[pgrx::pg_guard]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name(argument: pgrx::pg_sys::Datum) {
            let main: fn(pgrx::pg_sys::Datum) = $main;
            main(argument);
        }
    };
}
pub(crate) use background_worker;

unsafe extern "C-unwind" fn on_sigterm(_signal: std::ffi::c_int) {
    MUST_END.store(true, SeqCst);
    interrupt_commit();
    // SAFETY: flags that Postgres' own handlers set, and SetLatch, which is made to be called by signal handlers.
    unsafe {
        if CONNECTING.load(SeqCst) {
            (&raw mut pg_sys::ProcDiePending).write_volatile(1);
            (&raw mut pg_sys::InterruptPending).write_volatile(1);
        }
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

unsafe extern "C-unwind" fn on_sigint(_signal: std::ffi::c_int) {
    cancel_statement();
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

unsafe extern "C-unwind" fn ignore(_signal: std::ffi::c_int) {}

/// Connects this worker to its database, as the bootstrap superuser. From now on SIGTERM makes the worker end in its
/// own time, SIGINT cancels a statement, which is then repeated, and SIGHUP makes it read the settings.
pub fn connect(database: pg_sys::Oid) {
    CONNECTING.store(true, SeqCst);
    // SAFETY: at the start of a background worker, before signals are let through.
    unsafe {
        pqsignal(pg_sys::SIGTERM as i32, Some(on_sigterm));
        pqsignal(pg_sys::SIGINT as i32, Some(on_sigint));
        pqsignal(pg_sys::SIGHUP as i32, Some(on_sighup));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    CONNECTING.store(false, SeqCst);
    // SAFETY: a flag; the worker ends in its own time. The worker is connected as the bootstrap superuser, who may
    // become any role: if settings of the database have set another role, the worker is the superuser again from here
    // on.
    unsafe {
        (&raw mut pg_sys::ProcDiePending).write_volatile(0);
        pg_sys::SetSessionAuthorization(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), true);
    }
}

/// Ignores SIGINT, in a worker that has no statement to be canceled.
pub fn ignore_sigint() {
    // SAFETY: at the start of a background worker; the handler does nothing.
    unsafe { pqsignal(pg_sys::SIGINT as i32, Some(ignore)) };
}

/// Returns whether SIGTERM has come, in a worker that `connect` connected.
pub fn must_end() -> bool {
    MUST_END.load(SeqCst)
}

/// Returns whether SIGTERM has come, in a worker with pgrx's handlers. Unlike sigterm_received(), this stays true.
pub fn shutdown_is_requested() -> bool {
    // SAFETY: a flag that the signal handler sets.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

/// Ends the process, with its callbacks. (The bindings of Postgres 18 do not say that proc_exit never returns.)
pub fn exit(code: i32) {
    // SAFETY: on the main thread.
    unsafe { pg_sys::proc_exit(code) }
}

/// Reads the settings again if SIGHUP has asked for it, and returns whether it did. Outside a transaction.
pub fn reload_settings() -> bool {
    // SAFETY: a flag that the signal handler sets.
    let asked = unsafe {
        let asked = (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0;
        if asked {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
        }
        asked
    };
    if asked {
        settings::reload();
    }
    asked
}

/// Resets the latch. Called before the loop looks for work: whatever comes after that wakes the next sleep.
pub fn reset_latch() {
    // SAFETY: this process' own latch.
    unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
    pgrx::check_for_interrupts!();
}

/// Sleeps until the latch is set, the socket can be read, or so many milliseconds have passed (None: without end).
pub fn sleep(socket: &UnixStream, milliseconds: Option<i64>) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_SOCKET_READABLE;
    if milliseconds.is_some() {
        events |= pg_sys::WL_TIMEOUT;
    }
    let number = WaitEvent::WorkerMain.number();
    // SAFETY: this process' own latch and an open socket.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket.as_raw_fd(),
            milliseconds.unwrap_or(-1) as _,
            number,
        );
    }
}

/// Keeps freed memory in the process. Giving memory back to the system after each batch, and asking for it again, would
/// cost more than the batch.
pub fn keep_memory() {
    // SAFETY: plain settings of this process' allocator.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_TOP_PAD, 1 << 20);
    }
}

/// Has Postgres close files of its own earlier, so that the process stays below its limit of open files: a third of
/// them may be the HTTP client's sockets, which Postgres does not count. A few are left for callers that ask for one
/// and fail without.
pub fn reserve_sockets() {
    const LEFT: usize = 8;
    // SAFETY: counts, on the main thread.
    unsafe {
        let mut reserved = 0;
        while pg_sys::AcquireExternalFD() {
            reserved += 1;
        }
        for _ in 0..LEFT.min(reserved) {
            pg_sys::ReleaseExternalFD();
        }
    }
}

/// Runs `start` with every signal blocked, so that threads that it starts never run a signal handler of Postgres'.
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

/// Gives this thread, of the HTTP client, a locale of its own, which never changes. Each reload of the settings sets
/// the process' locale, at least for a moment, while other threads read it.
pub fn with_own_locale() {
    // SAFETY: the C locale is there always; it is this thread's from now on, and never freed.
    unsafe {
        let locale = libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), std::ptr::null_mut());
        if !locale.is_null() {
            libc::uselocale(locale);
        }
    }
}
