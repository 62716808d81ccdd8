//! `otp_gateway`: one-time-password flows from SQL. See README.md for the user's view and this order for the reader's:
//! [`api`] (the SQL functions) → [`provider`] (whose account) → the crate `vendor` (the message) → [`mailbox`] →
//! [`worker`] → [`ledger`] (the record) → the crate `courier` (the call) → and back.

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

use crate::{
    hooks::{emit_log, executor_start, process_utility},
    ipc::segment,
    pg::process,
};

pgrx::pg_module_magic!(name, version);

/// Wipes what is freed: types that wipe themselves do not reach the copies that hyper, rustls and serde_json make of a
/// number or a code.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Runs when the server loads the library: in the postmaster if it is preloaded, else in the first session that calls
/// one of our functions, which is then told what to do.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    process::capture_no_backtraces();
    // Also where it is not preloaded: the statement that is told so is logged, too.
    emit_log::init();
    // SAFETY: read on the main thread; Postgres sets it before it loads preload libraries.
    if !unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    gucs::init();
    segment::init();
    process_utility::init();
    enqueue::init();
    executor_start::init();
    launcher::init();
}
