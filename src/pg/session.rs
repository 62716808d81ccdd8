//! What kind of process this is.

use pgrx::pg_sys;

/// Returns whether the server is loading the libraries of shared_preload_libraries.
pub fn is_preloading() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Returns whether pg_upgrade runs this server.
pub fn is_upgrade() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// Returns whether this process is one of a server's many; false in single-user mode.
pub fn is_of_a_server() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::IsUnderPostmaster }
}

/// Returns whether this process serves a client.
pub fn is_of_a_client() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND }
}

/// Returns whether this process applies a subscription's changes.
pub fn is_logical_worker() -> bool {
    // SAFETY: looks at a variable of this process.
    unsafe { pg_sys::IsLogicalWorker() }
}

/// Returns whether this process takes part in a parallel query.
pub fn is_parallel() -> bool {
    // SAFETY: looks at variables of this process.
    unsafe { pg_sys::IsInParallelMode() }
}
