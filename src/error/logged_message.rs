//! What the server's log has in place of an error's message, where that says what the caller wrote.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
};

thread_local! {
    /// A message of ours that says what the caller wrote, and what the log has in its place.
    static INSTEAD: RefCell<Option<(CString, CString)>> = const { RefCell::new(None) };
}

/// The log has another message than the client, whoever catches it and throws it again.
pub fn instead_of(message: &str, logged: &str) {
    let texts = CString::new(message).ok().zip(CString::new(logged).ok());
    INSTEAD.with_borrow_mut(|instead| *instead = texts);
}

/// What the log has in place of a message.
pub fn in_the_log(message: &CStr) -> Option<CString> {
    // When the process ends, lines for debugging are logged after its thread's variables are gone.
    let found = INSTEAD.try_with(|instead| {
        let instead = instead.try_borrow().ok()?;
        let (of, logged) = instead.as_ref()?;
        (of.as_c_str() == message).then(|| logged.clone())
    });
    found.ok().flatten()
}
