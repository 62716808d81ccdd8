//! This cluster: its number, its timeline, and its data directory.

use std::{fs, os::unix::fs::MetadataExt, sync::OnceLock, time::UNIX_EPOCH};

use pgrx::pg_sys;

use crate::pg::settings;

/// The cluster's own number, the same for its physical copies.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory that is set before any session starts.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// The timeline that it writes: a promotion begins a new one, and so does every recovery from an archive. Only where
/// a row may be written: in recovery there is none.
pub fn timeline() -> u32 {
    #[cfg(feature = "pg14")]
    // SAFETY: after recovery, the look at which sets the variable.
    unsafe {
        pg_sys::RecoveryInProgress();
        pg_sys::ThisTimeLineID
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: after recovery: reads shared memory that does not change from then on.
    unsafe {
        pg_sys::GetWALInsertionTimeLine()
    }
}

/// What tells the data directory from its copies: when it was made, or, where the file system does not say, its inode.
/// A directory that is moved within its file system keeps both. None: it cannot be told.
pub fn data_directory() -> Option<String> {
    // It stays the same while the server runs, and each queued send asks for it.
    static DIRECTORY: OnceLock<Option<String>> = OnceLock::new();
    DIRECTORY.get_or_init(look_at_data_directory).clone()
}

fn look_at_data_directory() -> Option<String> {
    let found = fs::metadata(settings::data_directory()).ok()?;
    let made_at = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Some(made_at.map_or_else(
        || format!("inode {}", found.ino()),
        |at| format!("made at {}.{:09}", at.as_secs(), at.subsec_nanos()),
    ))
}
