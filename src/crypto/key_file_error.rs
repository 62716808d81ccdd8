//! Says what is wrong with the key file, and how to mend it: the hints hold commands that can be run as they stand.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, file_error},
    gucs,
    pg::process::{self, system_user},
};

const RESTORE: &str = "Restore it from your copy: without it, what is sealed stays sealed.";

/// The error of a file that holds what it should not, or lacks what it should hold.
pub fn refused(what: &str) -> Error {
    about(
        what,
        format!(
            "The file holds a key of 64 hexadecimal digits in each line, belongs to the server's system user and has \
             mode 0600. {RESTORE}"
        ),
    )
}

/// The error of a file that others may read or write.
pub fn open_to_others() -> Error {
    about(
        "may be read or written by others than the server's system user",
        format!(
            "As root: chmod 600 {}. If somebody else may have read it, SELECT otp_gateway.rotate_key() afterwards. \
             {RESTORE}",
            gucs::key_file().display()
        ),
    )
}

pub fn unreadable(error: &io::Error) -> Error {
    let what = format!("cannot be read: {}", file_error(error));
    if error.kind() != io::ErrorKind::PermissionDenied {
        return refused(&what);
    }
    let (user, path) = (system_user(), gucs::key_file());
    about(
        &what,
        format!(
            "As root: chown {user} {path} && chmod 600 {path}. {user}, the server's system user, must also be let into \
             each directory on the way. {RESTORE}",
            path = path.display()
        ),
    )
}

/// The error of a missing file. `may_hold` tells whether a file holds the key that sealed last.
pub fn missing(may_hold: impl Fn(&Path) -> bool) -> Error {
    let path = gucs::key_file();
    if !gucs::key_note().exists() {
        return about(
            "is missing: the server's start could not make it",
            place_for_it().unwrap_or_else(|| "Restart the server: its start makes the file.".to_owned()),
        );
    }
    let before = gucs::default_key_file();
    let hint = if before != path && may_hold(&before) {
        let (user, from, to) = (system_user(), before.display(), path.display());
        let make = directory_of(&path).filter(|directory| !directory.exists());
        let make = make
            .map_or_else(String::new, |directory| format!("install -d -o {user} -m 700 {} && ", directory.display()));
        format!(
            "The keys are still where they were before the setting was changed. As root: {make}install -o {user} -m \
             600 {from} {to}. Restore nothing; once it works, remove the file at the old place."
        )
    } else {
        format!(
            "{RESTORE} Limits forget, too. If it is lost for good, remove {} and restart: a new key is made.",
            gucs::key_note().display()
        )
    };
    about("is missing, and no new key is made in its place", hint)
}

/// The error of a file that cannot be made when the server starts.
pub fn unmakable(error: &io::Error) -> Error {
    let hint =
        place_for_it().unwrap_or_else(|| "The file system must have room for it; then restart the server.".into());
    about(&format!("cannot be made: {}", file_error(error)), hint)
}

/// The error of a file that no key can be added to.
pub fn unwritable(error: &io::Error) -> Error {
    let hint = match place_for_it() {
        Some(hint) => {
            format!("{hint} Or put a new key before the others yourself, in a line of its own (openssl rand -hex 32).")
        }
        None => "The file system must have room for it.".to_owned(),
    };
    about(&format!("cannot be written: {}", file_error(error)), hint)
}

/// Names a directory for the file, if the present one is missing or the server cannot make files in it. The hint never
/// hands a directory that others share over to the server's system user.
fn place_for_it() -> Option<String> {
    let (user, path) = (system_user(), gucs::key_file());
    let directory = directory_of(&path)?;
    if !directory.exists() {
        return Some(format!("As root: install -d -o {user} -m 700 {}; then restart the server.", directory.display()));
    }
    if process::may_write_into(&directory) {
        return None;
    }
    let own = directory.join("otp_gateway_keys");
    let to = own.join(path.file_name()?);
    let take = if path.exists() { format!(" && mv {} {}", path.display(), to.display()) } else { String::new() };
    Some(format!(
        "The file needs a directory in which {user}, the server's system user, makes and renames files. As root: \
         install -d -o {user} -m 700 {}{take}; then otp_gateway.key_file = '{}' in postgresql.conf, and restart \
         the server.",
        own.display(),
        to.display()
    ))
}

fn directory_of(path: &Path) -> Option<PathBuf> {
    // If the file is a link, its target is what is written.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    path.parent().map(Path::to_owned)
}

fn about(what: &str, hint: String) -> Error {
    Error::not_in_prerequisite_state(format!("otp_gateway.key_file {} {what}", gucs::key_file().display()), hint)
}
