//! Finds out whether others than the server can read a file of credentials.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::{error::Error, pg::process::system_user, provider::lookup::shown};

/// Returns whether every user of the machine can read a file: by its own mode, and by those of all directories above
/// it.
pub fn is_open_to_all(path: &str) -> bool {
    let may = |path: &Path, right| fs::metadata(path).is_ok_and(|found| found.mode() & right != 0);
    let lets_in = |path: &Path| path.ancestors().skip(1).all(|directory| may(directory, 0o001));
    may(Path::new(path), 0o004) && fs::canonicalize(path).is_ok_and(|path| lets_in(&path))
}

/// The error about such a file, by the option that names it.
pub fn open_to_all(option: &str, path: &str) -> Error {
    let (user, path) = (system_user(), shown(path));
    Error::not_in_prerequisite_state(
        format!("the file of option {option} can be read by every user of the server's machine"),
        format!(
            "As root: chown {user} {path} && chmod 600 {path}. If somebody else may have read it, change what it holds."
        ),
    )
}
