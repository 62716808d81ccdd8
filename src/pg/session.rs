//! What this process and its transaction are.

use pgrx::pg_sys;

use crate::error::Error;

/// Whether the server is loading the libraries of shared_preload_libraries.
pub fn is_preloading() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether pg_upgrade runs this server.
pub fn is_upgrade() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// Whether this process is one of a server, with others; not so in single-user mode.
pub fn is_of_a_server() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::IsUnderPostmaster }
}

/// Whether this process serves a client.
pub fn is_of_a_client() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND }
}

/// Whether this process applies a subscription's changes.
pub fn is_logical_worker() -> bool {
    // SAFETY: looks at a variable of this process.
    unsafe { pg_sys::IsLogicalWorker() }
}

/// Whether this process takes part in a parallel query.
pub fn is_parallel() -> bool {
    // SAFETY: looks at variables of this process.
    unsafe { pg_sys::IsInParallelMode() }
}

/// Whether anything can be put on record here.
pub fn may_write() -> Result<(), Error> {
    // SAFETY: looks at the state of the server.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Error::read_only_transaction(
            "cannot run on a standby: every attempt is put on record",
            "Connect to the primary.",
        ));
    }
    if is_parallel() {
        return Err(Error::invalid_transaction_state(
            "cannot run during a parallel operation: every attempt is put on record",
            "Functions that call it are PARALLEL UNSAFE, which is the default.",
        ));
    }
    // SAFETY: a variable of this process.
    if unsafe { pg_sys::XactReadOnly } {
        return Err(Error::read_only_transaction(
            "cannot run in a read-only transaction: every attempt is put on record",
            "SET TRANSACTION READ WRITE, or call it outside.",
        ));
    }
    Ok(())
}
