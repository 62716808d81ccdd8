//! Transactions: a background worker's own, and what happens in those of a session.

use std::panic::AssertUnwindSafe;

use pgrx::{PgTryBuilder, pg_sys};

/// Runs `body` in a transaction of its own, with a snapshot. An error ends the process. Outside a transaction.
pub fn run<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread of a background worker; the transaction is ended by the one path that comes back.
    unsafe {
        pg_sys::StartTransactionCommand();
        let result = with_snapshot(body);
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// Runs `body` in a transaction of its own, as [`run`] does. Returns None if an error undid it.
pub fn attempt<R>(body: impl FnOnce() -> R) -> Option<R> {
    PgTryBuilder::new(AssertUnwindSafe(|| Some(run(body))))
        .catch_others(|_| {
            // SAFETY: ends the transaction that the error came from.
            unsafe { pg_sys::AbortCurrentTransaction() };
            None
        })
        .execute()
}

/// Runs `body` with a snapshot for its statements: just before a COMMIT no statement has one any more.
pub fn with_snapshot<R>(body: impl FnOnce() -> R) -> R {
    // SAFETY: on the main thread, in a transaction; popped below, or by the abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let result = body();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// What happens to a subtransaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subtransaction {
    Starts,
    Commits,
    Aborts,
}

/// Calls `then` for each subtransaction, in this process and those that it forks. `then` must not fail.
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

/// Returns which statement this is: when its transaction began, and the number of the statement's first command.
pub fn statement() -> (pg_sys::TimestampTz, pg_sys::CommandId) {
    // SAFETY: on the main thread, within a statement. A parallel worker must not use a command number: there Postgres
    // raises an error.
    unsafe {
        let now = pg_sys::GetCurrentCommandId(true);
        // Without a snapshot (an argument of EXECUTE, say) the command itself is the statement.
        let command = if pg_sys::ActiveSnapshotSet() { (*pg_sys::GetActiveSnapshot()).curcid } else { now };
        (pg_sys::GetCurrentTransactionStartTimestamp(), command)
    }
}
