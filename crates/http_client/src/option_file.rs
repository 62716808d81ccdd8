//! The files that options name: how they are opened, and what is said of one that cannot be read.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
};

/// Opens a file. A pipe or a device is an error: whoever opens one may wait for its other end, and all calls behind it.
pub fn open_file(path: &str) -> io::Result<File> {
    let found = fs::metadata(path)?;
    match (found.is_file(), found.is_dir()) {
        (true, _) => File::open(path),
        (_, true) => Err(ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("it is no regular file")),
    }
}

/// Says what is wrong with a file, in the same words on every system.
pub fn file_error(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".into(),
        // Our own words.
        ErrorKind::Other => error.to_string(),
        other => other.to_string(),
    }
}
