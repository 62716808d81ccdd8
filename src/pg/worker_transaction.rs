//! One transaction of the worker: begun, run, committed; or undone, with the reason sorted by what to do about it.

use std::{
    ffi::CStr,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder, Spi,
    pg_sys::{self, panic::CaughtError},
    spi::{SpiClient, SpiError},
};
use policy::Micros;

use crate::pg::clock::since_boot;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The commit is flushed before it returns and, as far as synchronous_commit says, sent to standbys.
    Flushed,
    /// The commit is flushed a moment later, or with the next flush.
    Deferred,
}

/// Why a transaction is undone.
#[derive(Debug)]
pub enum Failure {
    /// The extension is no longer installed in this database.
    NotInstalled,
    /// Somebody holds a lock on our tables: try again shortly.
    Busy,
    /// Any other error: its primary message.
    Error(String),
}

impl From<SpiError> for Failure {
    fn from(error: SpiError) -> Self {
        Self::Error(error.to_string())
    }
}

/// Whether a commit is under way: it may wait for a standby, and only an interrupt ends that wait.
static COMMITTING: AtomicBool = AtomicBool::new(false);
/// Whether this process is to end: then no commit waits for a standby.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Whether a statement may be running: only then there is something to cancel.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Whether this transaction is spared from cancels, because it began soon after a canceled one. Otherwise somebody who
/// cancels often enough could keep all work from being done; and work that came between a canceled transaction and its
/// next try would use up the one transaction that is spared.
static SPARED: AtomicBool = AtomicBool::new(false);
/// Until when a transaction that begins is spared, by the clock that nobody sets, in microseconds.
static SPARED_UNTIL: AtomicI64 = AtomicI64::new(0);
/// How long transactions are spared: well over the time after which a canceled one is tried again.
const SPARED_FOR: Micros = 1_000_000;

// get_timeout_indicator is exported by every version, but not among pgrx's bindings; LOCK_TIMEOUT has the same number
// in all of them.
unsafe extern "C" {
    fn get_timeout_indicator(id: std::ffi::c_int, reset: bool) -> bool;
}
const LOCK_TIMEOUT: std::ffi::c_int = 2;

/// Cancels the statement that runs, which is repeated later. For the handler of SIGINT, which Postgres itself also
/// sends when a wait for a lock takes too long. If no statement runs, nothing is done: the error would end the process.
pub fn cancel_statement() {
    // SAFETY: reads a flag, which Postgres sets before the signal that its own clock sends.
    let is_lock_timeout = || unsafe { get_timeout_indicator(LOCK_TIMEOUT, false) };
    if RUNNING.load(SeqCst) && (!SPARED.load(SeqCst) || is_lock_timeout()) {
        // SAFETY: flags that signal handlers set.
        unsafe {
            (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
            (&raw mut pg_sys::InterruptPending).write_volatile(1);
        }
    }
}

/// Lets nothing be canceled from here on.
fn no_statement() {
    RUNNING.store(false, SeqCst);
    // SAFETY: a flag, which the handler leaves alone now.
    unsafe { (&raw mut pg_sys::QueryCancelPending).write_volatile(0) };
}

/// Ends a commit's wait for a standby, and lets later commits not wait. For the handler of SIGTERM.
pub fn interrupt_commit() {
    ENDING.store(true, SeqCst);
    if COMMITTING.load(SeqCst) {
        // SAFETY: flags that signal handlers set.
        unsafe {
            (&raw mut pg_sys::ProcDiePending).write_volatile(1);
            (&raw mut pg_sys::InterruptPending).write_volatile(1);
        }
    }
}

/// Runs `body` in a transaction, if `check` allows it there; pg_stat_activity shows `activity`. Outside a transaction.
pub fn run<R>(
    activity: &CStr,
    durability: Durability,
    check: impl FnOnce() -> Result<(), Failure>,
    body: impl FnOnce(&mut SpiClient) -> Result<R, Failure>,
) -> Result<R, Failure> {
    // SAFETY: on the worker's main thread, outside any transaction; every path out of here ends the transaction that
    // begins here.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        let configured = pg_sys::synchronous_commit;
        let result = PgTryBuilder::new(AssertUnwindSafe(|| {
            SPARED.store(since_boot().0 < SPARED_UNTIL.load(SeqCst), SeqCst);
            RUNNING.store(true, SeqCst);
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let result = check().and_then(|()| Spi::connect_mut(body));
            match result {
                Ok(value) => {
                    pg_sys::PopActiveSnapshot();
                    commit(durability);
                    no_statement();
                    Ok(value)
                }
                Err(failure) => {
                    no_statement();
                    pg_sys::AbortCurrentTransaction();
                    Err(failure)
                }
            }
        }))
        .catch_others(|error| {
            no_statement();
            COMMITTING.store(false, SeqCst);
            pg_sys::AbortCurrentTransaction();
            Err(classify(&error))
        })
        .execute();
        pg_sys::synchronous_commit = configured;
        pg_sys::pgstat_report_stat(false);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result
    }
}

/// # Safety
/// In a transaction that is to be committed.
unsafe fn commit(durability: Durability) {
    // SAFETY: as the caller promises; synchronous_commit is this process' own copy of the setting.
    unsafe {
        // Set before ENDING is read: whoever sets ENDING after that interrupts this commit.
        COMMITTING.store(true, SeqCst);
        pg_sys::synchronous_commit = match durability {
            Durability::Deferred => pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32,
            // A server that shuts down sends everything that is on disk to its standbys before it is gone.
            Durability::Flushed if ENDING.load(SeqCst) => {
                pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_LOCAL_FLUSH as i32
            }
            // An intent must be on disk before its first byte leaves, also if the server's default is off.
            Durability::Flushed => {
                pg_sys::synchronous_commit.max(pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_LOCAL_FLUSH as i32)
            }
        };
        pg_sys::CommitTransactionCommand();
        COMMITTING.store(false, SeqCst);
        // The worker ends in its own time, after it has written down what it must.
        (&raw mut pg_sys::ProcDiePending).write_volatile(0);
    }
}

/// Takes the lock that a write takes, until the end of the transaction. Returns false if there is no such table.
pub fn lock_to_write(schema: &CStr, table: &CStr) -> bool {
    // SAFETY: look-ups in a transaction; both names are C strings, which are only read.
    unsafe {
        let name = pg_sys::makeRangeVar(schema.as_ptr().cast_mut(), table.as_ptr().cast_mut(), -1);
        let found = pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::RowExclusiveLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        found != pg_sys::InvalidOid
    }
}

fn classify(error: &CaughtError) -> Failure {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    if report.sql_error_code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED {
        SPARED_UNTIL.store((since_boot() + SPARED_FOR).0, SeqCst);
    }
    match report.sql_error_code() {
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
        | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
        | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
        | PgSqlErrorCode::ERRCODE_QUERY_CANCELED => Failure::Busy,
        _ => Failure::Error(report.message().to_owned()),
    }
}
