//! The files that options name. They are read at each use: by a session, by the worker, and by whoever asks whether
//! they can be read.

use std::io::{self, Read};

pub use http_client::open_file as open;

use crate::error::{Error, file_error};

/// What to do about our own certificate, in a file of `client_cert_file`, that ends soon.
pub const RENEW: &str = "Have it renewed, and put the new one in its place, with its key: the next call takes it.";
/// More of a certificate is not read.
const MOST_OF_A_CERTIFICATE: u64 = 1 << 20;

/// Says that the file of an option cannot be read. The path is left out: that of a user mapping is not for everybody.
pub fn unreadable(option: &str, error: &io::Error) -> Error {
    Error::not_in_prerequisite_state(
        format!("the file of {option} cannot be read: {}", file_error(error)),
        "It must exist on the server and be readable by the server's system user.",
    )
}

/// Returns when the certificate in a file ends, in seconds since 1970; None if there is none that can be read.
pub fn certificate_end(path: &str) -> Option<i64> {
    let mut pem = Vec::new();
    open(path).ok()?.take(MOST_OF_A_CERTIFICATE).read_to_end(&mut pem).ok()?;
    http_client::certificate_end(&pem)
}
