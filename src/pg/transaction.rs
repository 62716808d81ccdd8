//! Transactions of this process: their own ones, of a background worker; and what is to be done in those of a session.

use std::panic::AssertUnwindSafe;

use pgrx::{PgTryBuilder, pg_sys};

/// Runs `body` in a transaction of its own, with a snapshot. An error is the process' end. Outside a transaction.
pub fn run<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread of a background worker; the transaction is ended by the one path that comes back.
    unsafe {
        pg_sys::StartTransactionCommand();
        let result = with_snapshot(body);
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// The same. None: an error undid it.
pub fn attempt<R>(body: impl FnOnce() -> R) -> Option<R> {
    PgTryBuilder::new(AssertUnwindSafe(|| Some(run(body))))
        .catch_others(|_| {
            // SAFETY: ends the transaction that the error came from.
            unsafe { pg_sys::AbortCurrentTransaction() };
            None
        })
        .execute()
}

/// Runs `body` with a snapshot for its statements, which just before a COMMIT no statement has any more.
pub fn with_snapshot<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread, in a transaction; popped below, or by the abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let result = body();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// What a subtransaction does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subtransaction {
    Starts,
    Commits,
    Aborts,
}

/// Has `then` hear of each subtransaction, in this process and those that it forks: it cannot fail.
pub fn on_subtransaction(then: fn(Subtransaction, pg_sys::SubTransactionId)) {
    // SAFETY: on the main thread; the argument is the function, which lives for ever.
    unsafe { pg_sys::RegisterSubXactCallback(Some(at_subtransaction), then as *mut std::ffi::c_void) };
}

unsafe extern "C-unwind" fn at_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    this: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    then: *mut std::ffi::c_void,
) {
    // SAFETY: the function that on_subtransaction() was given.
    let then: fn(Subtransaction, pg_sys::SubTransactionId) = unsafe { std::mem::transmute(then) };
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB => then(Subtransaction::Starts, this),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => then(Subtransaction::Commits, this),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => then(Subtransaction::Aborts, this),
        _ => {}
    }
}

/// Which statement this is: when its transaction began, and the number of its first command.
pub fn statement() -> (pg_sys::TimestampTz, pg_sys::CommandId) {
    // SAFETY: on the main thread, within a statement, and not in a parallel worker, which must not use a command
    // number; there an error of Postgres' ends it.
    unsafe {
        let now = pg_sys::GetCurrentCommandId(true);
        // Without a snapshot (an argument of EXECUTE, say) the command itself is the statement.
        let command = if pg_sys::ActiveSnapshotSet() { (*pg_sys::GetActiveSnapshot()).curcid } else { now };
        (pg_sys::GetCurrentTransactionStartTimestamp(), command)
    }
}
