//! This cluster: its number, its timeline, and its data directory.

use std::{fs, os::unix::fs::MetadataExt, sync::OnceLock, time::UNIX_EPOCH};

use pgrx::pg_sys;

use crate::pg::settings;

/// Returns the cluster's own number, which its physical copies share.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory that is set before any session starts.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// Returns the timeline that the server writes: a promotion begins a new one, and so does every recovery from an
/// archive. To be called only where a row may be written: during recovery there is no such timeline.
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

/// Returns what tells the data directory from its copies: when it was made, or, if the file system does not say, its
/// inode. A directory that is moved within its file system keeps both. Returns None if neither can be read.
pub fn data_directory() -> Option<String> {
    // Looked at once: the directory stays the same while the server runs, and each queued send asks for it.
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
