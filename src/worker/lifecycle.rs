//! The worker as a process of this server: signals, connection, sleep, end.

use std::{
    cell::RefCell,
    ffi::CStr,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::{PgLogLevel, bgworkers::BackgroundWorker, pg_sys};
use policy::{Micros, Timestamp};

use crate::{
    hooks::emit_log,
    ipc::worker_registry,
    pg::{
        clock::{SinceBoot, clock, since_boot},
        settings,
    },
    store::transaction::{cancel_statement, interrupt_commit},
};

static MUST_END: AtomicBool = AtomicBool::new(false);
/// It is being connected, which may wait for whoever has the database locked.
static CONNECTING: AtomicBool = AtomicBool::new(false);
/// One that lives no longer has died at its start.
const SHORT_LIFE: Micros = 60_000_000;

/// How this process ends.
#[derive(Default)]
struct End {
    database: pg_sys::Oid,
    began: SinceBoot,
    /// It has written down what it must: its end is no crash. When it is needed again, and whether at once.
    orderly: Option<(Option<Timestamp>, bool)>,
    /// What ended it.
    last_words: String,
}

thread_local! {
    /// In a worker alone.
    static END: RefCell<Option<End>> = const { RefCell::new(None) };
}

/// What the worker's own statements run with, whatever the server, the database or a role has set: at this source no
/// reload changes it either. What only postgresql.conf can set is the server's to say, and not listed; nor is
/// synchronous_commit, by which the database's owner says how safe a record has to be.
const SETTINGS: &[(&CStr, &CStr)] = &[
    // Not those of whoever the database or the role of the worker is set to: see set_up.
    (c"role", c"none"),
    // No trigger of others' on our tables, and no rule: note_queued alone, which is ENABLE ALWAYS.
    (c"session_replication_role", c"replica"),
    (c"event_triggers", c"off"),
    (c"row_security", c"off"),
    (c"search_path", c"pg_catalog"),
    (c"restrict_nonsystem_relation_kind", c""),
    (c"exit_on_error", c"off"),
    (c"statement_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    // Somebody who locks our tables does not lock the worker in: it comes back to its loop and tries again.
    (c"lock_timeout", LOCK_TIMEOUT),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    // What is read and written as text.
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"array_nulls", c"on"),
    (c"quote_all_identifiers", c"off"),
    (c"bytea_output", c"hex"),
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"timezone", c"GMT"),
    (c"extra_float_digits", c"1"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    // Its statements are of no use in the log.
    (c"debug_print_parse", c"off"),
    (c"debug_print_rewritten", c"off"),
    (c"debug_print_plan", c"off"),
    (c"log_parameter_max_length_on_error", c"0"),
    // Where it keeps things.
    (c"default_tablespace", c""),
    (c"temp_tablespaces", c""),
    (c"default_table_access_method", c"heap"),
    (c"work_mem", c"4MB"),
    (c"temp_file_limit", c"-1"),
    // Plans are made once, when the tables may be empty; they must be right when the tables are large.
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
    (c"enable_indexscan", c"on"),
    (c"enable_indexonlyscan", c"on"),
    (c"enable_nestloop", c"on"),
    (c"enable_sort", c"on"),
    (c"enable_material", c"on"),
    (c"enable_memoize", c"on"),
    (c"enable_hashagg", c"on"),
    (c"from_collapse_limit", c"8"),
    (c"join_collapse_limit", c"8"),
    (c"geqo", c"off"),
    (c"constraint_exclusion", c"partition"),
    (c"cursor_tuple_fraction", c"0.1"),
    (c"seq_page_cost", c"1"),
    (c"random_page_cost", c"4"),
    (c"cpu_tuple_cost", c"0.01"),
    (c"cpu_index_tuple_cost", c"0.005"),
    (c"cpu_operator_cost", c"0.0025"),
    (c"effective_cache_size", c"4GB"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"force_parallel_mode", c"off"),
    (c"debug_parallel_query", c"off"),
    (c"jit", c"off"),
];
const LOCK_TIMEOUT: &CStr = c"500ms";

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
    // SAFETY: as above.
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
    let Some(end) = END.take() else { return };
    match end.orderly {
        Some((due, is_wanted)) => worker_registry::left(end.database, due, is_wanted),
        None => {
            let again = since_boot().since(end.began) < SHORT_LIFE;
            worker_registry::crashed(end.database, &end.last_words, again);
        }
    }
}

/// An error is on its way to the log: if it ends this process, and that is a worker, those who wait for it hear of it.
///
/// # Safety
/// Of Postgres' own error record.
unsafe fn hear(error: &pg_sys::ErrorData) {
    if error.elevel < PgLogLevel::ERROR as i32 || error.message.is_null() {
        return;
    }
    // SAFETY: as the caller promises.
    let words = unsafe { CStr::from_ptr(error.message) }.to_string_lossy();
    // Also where the process is on its way out, and its variables are gone.
    let _ = END.try_with(|end| {
        if let Ok(mut end) = end.try_borrow_mut()
            && let Some(end) = &mut *end
        {
            end.last_words = words.trim_start_matches("otp_gateway: ").to_owned();
        }
    });
}

/// Connects to the database, where the launcher meant it by this start.
pub fn set_up(database: pg_sys::Oid, start: u32) -> bool {
    if !worker_registry::claim(database, start) {
        return false;
    }
    END.set(Some(End { database, began: since_boot(), ..End::default() }));
    emit_log::listen(hear);
    CONNECTING.store(true, SeqCst);
    // SAFETY: at the start of a background worker, before signals are let through.
    unsafe {
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
        pqsignal(pg_sys::SIGTERM as i32, Some(on_sigterm));
        pqsignal(pg_sys::SIGINT as i32, Some(on_sigint));
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
    CONNECTING.store(false, SeqCst);
    // SAFETY: a flag; the worker ends in its own time. Connected as the bootstrap superuser, it may be anybody: whoever
    // the database's owner has set it to be, it is itself again.
    unsafe {
        (&raw mut pg_sys::ProcDiePending).write_volatile(0);
        pg_sys::SetSessionAuthorization(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), true);
    }
    for (name, value) in SETTINGS {
        settings::override_with(name, value);
    }
    true
}

/// Runs `body` so that it waits for nobody's lock.
pub fn without_patience<R>(body: impl FnOnce() -> R) -> R {
    settings::override_with(c"lock_timeout", c"10ms");
    let result = body();
    settings::override_with(c"lock_timeout", LOCK_TIMEOUT);
    result
}

/// Postgres closes files of its own where these would go beyond what the process may have open: a third of them may be
/// the HTTP client's sockets, which it does not count. A few are left for what asks for one and fails without.
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
            settings::reload();
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

/// Until the latch is set, the socket can be read or `due` has come.
pub fn sleep(wakeup: &UnixStream, due: Option<Timestamp>) {
    http_client::wipe_stack();
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_SOCKET_READABLE;
    let mut milliseconds = -1;
    if let Some(due) = due {
        events |= pg_sys::WL_TIMEOUT;
        // A day at most: the number must fit.
        milliseconds = (due.since(clock()) / 1000 + 1).clamp(0, 86_400_000);
    }
    // SAFETY: this process' own latch and an open socket.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            wakeup.as_raw_fd(),
            milliseconds as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
    }
}

/// The worker's end is in order: another is to come when something is due, at once if there is something to do already,
/// or when somebody asks for one.
pub fn leave(due: Option<Timestamp>, is_wanted: bool) {
    END.with_borrow_mut(|end| {
        if let Some(end) = end {
            end.orderly = Some((due, is_wanted));
        }
    });
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

/// For a thread of the HTTP client: each reload of the settings sets the process' locale, at least for a moment, beside
/// those who read it. From here on this thread reads one of its own, which never changes.
pub fn with_own_locale() {
    // SAFETY: the C locale is there always; it is this thread's from now on, and never freed.
    unsafe {
        let locale = libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), std::ptr::null_mut());
        if !locale.is_null() {
            libc::uselocale(locale);
        }
    }
}
