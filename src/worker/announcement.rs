//! What the server's log has of a worker: that it has begun, and that it has ended, and why.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::{ipc::worker_registry::ExitReason, worker::lifecycle};

/// The database's name, which the log's prefix does not have of a background worker.
fn name_of(database: pg_sys::Oid) -> String {
    // SAFETY: on the main thread, in a transaction of its own; a name that is found is a palloc'ed copy.
    unsafe {
        pg_sys::StartTransactionCommand();
        let name = pg_sys::get_database_name(database);
        let name = (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned());
        pg_sys::CommitTransactionCommand();
        name.unwrap_or_default()
    }
}

/// It has the record, and serves. Returns the database's name.
pub fn begun(database: pg_sys::Oid) -> String {
    let name = name_of(database);
    pgrx::log!("otp_gateway: the worker of database \"{name}\" has begun");
    name
}

pub fn ends(name: &str, is_dropped: bool, asked: Option<ExitReason>) {
    let why = match asked {
        _ if lifecycle::must_end() => "the server stops, or somebody has terminated it",
        _ if is_dropped => "the extension was dropped",
        Some(ExitReason::Dropped) => "the extension or the database is dropped",
        Some(ExitReason::Database) => "somebody wants the database to themselves",
        Some(ExitReason::Idle) => "another database waits for its place",
        None => "it was idle for otp_gateway.worker_idle_timeout",
    };
    pgrx::log!("otp_gateway: the worker of database \"{name}\" ends: {why}");
}
