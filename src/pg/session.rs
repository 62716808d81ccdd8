//! What this process and its transaction are.

use pgrx::pg_sys;

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
