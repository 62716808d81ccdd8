//! The text that the server's log has in place of an error's message, if the message holds the caller's own words.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
};

thread_local! {
    /// The message of this process' last such error, and the text that the log has in its place.
    static INSTEAD: RefCell<Option<(CString, CString)>> = const { RefCell::new(None) };
}

/// Has the log show another text than the client's message, whoever catches the error and raises it again.
pub fn instead_of(message: &str, logged: &str) {
    let texts = CString::new(message).ok().zip(CString::new(logged).ok());
    INSTEAD.with_borrow_mut(|instead| *instead = texts);
}

/// Returns the text that the log has in place of a message; None if the message itself may be logged.
pub fn in_the_log(message: &CStr) -> Option<CString> {
    // When the process ends, lines for debugging are logged after its thread's variables are gone.
    let found = INSTEAD.try_with(|instead| {
        let instead = instead.try_borrow().ok()?;
        let (of, logged) = instead.as_ref()?;
        (of.as_c_str() == message).then(|| logged.clone())
    });
    found.ok().flatten()
}
