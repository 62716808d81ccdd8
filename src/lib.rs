//! `otp_gateway`: one-time-password flows from SQL. README.md has the user's view; ARCHITECTURE.md has the processes,
//! the life of a call, and which of these modules may use which (tests/layers.py checks that).

mod api;
mod crypto;
mod enqueue;
mod error;
mod gucs;
mod hooks;
mod ipc;
mod job;
mod launcher;
mod pg;
mod provider;
mod store;
mod trigger;
mod worker;

use std::ffi::CStr;

use transaction_end::Step;

use crate::{
    api::repeated_call,
    enqueue::{committed_rows, transaction},
    hooks::{
        emit_log, executor_start, extension_presence, process_utility,
        row_watch::{self, RowWatch},
        transaction_end,
    },
    ipc::slot,
    pg::{process, session},
};

/// The version that Postgres 18 shows in pg_get_loaded_modules().
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};
// Name and version are both given: with `version` alone, pgrx 0.18.1 would take it for the name.
pgrx::pg_module_magic!(name = c"otp_gateway", version = VERSION);

/// Wipes memory when it is freed: types that wipe themselves do not reach the copies that hyper, rustls and serde_json
/// make of a number or a code.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// What runs around the end of each transaction, in this order. Without preloading, the first step alone.
static AT_TRANSACTION_END: [Step; 6] = [
    Step { before: Some(extension_presence::before_commit), after: None },
    Step { before: Some(committed_rows::before_commit), after: Some(transaction::after_transaction) },
    Step { before: None, after: Some(|_| repeated_call::forget()) },
    Step { before: None, after: Some(|_| executor_start::forget()) },
    Step { before: None, after: Some(process_utility::after_transaction) },
    Step { before: None, after: Some(|_| slot::mark_caller(false)) },
];

/// Runs when the server loads the library: in the postmaster if it is preloaded, else in the first session that calls
/// one of our functions; that call then fails, and its error says that the library must be preloaded.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    process::capture_no_backtraces();
    // Also without preloading: the statement that fails for it is logged, too.
    emit_log::init();
    if !session::is_preloading() {
        transaction_end::init(&AT_TRANSACTION_END[..1]);
        return;
    }
    transaction_end::init(&AT_TRANSACTION_END);
    gucs::init();
    ipc::init();
    process_utility::init();
    transaction::init();
    row_watch::init(RowWatch {
        is_on: transaction::has_rows,
        writes: transaction::doubt_rows_of,
        empties: transaction::empty,
    });
    executor_start::init();
    launcher::init();
}
