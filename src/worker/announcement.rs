//! The messages in the server's log that a worker has begun, and that it has ended, and why.

use pgrx::pg_sys;

use crate::{
    ipc::worker_registry::ExitReason,
    pg::{background_worker, database, transaction},
};

/// Logs that the worker has opened the record and serves. Returns the database's name.
pub fn begun(database: pg_sys::Oid) -> String {
    // The log's prefix does not show the database of a background worker.
    let name = transaction::run(|| database::name_of(database)).unwrap_or_default();
    pgrx::log!("otp_gateway: the worker of database \"{name}\" has begun");
    name
}

pub fn ends(name: &str, is_dropped: bool, asked: Option<ExitReason>) {
    let why = match asked {
        _ if background_worker::must_end() => "the server stops, or somebody has terminated it",
        _ if is_dropped => "the extension was dropped",
        Some(ExitReason::Dropped) => "the extension or the database is dropped",
        Some(ExitReason::Database) => "somebody wants the database to themselves",
        Some(ExitReason::Idle) => "another database waits for its place",
        None => "it was idle for otp_gateway.worker_idle_timeout",
    };
    pgrx::log!("otp_gateway: the worker of database \"{name}\" ends: {why}");
}
