//! What the server's log has in place of an error's message, where that says what the caller wrote.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char},
};

use pgrx::pg_sys;

thread_local! {
    /// A message of ours that says what the caller wrote, and what the log has in its place.
    static INSTEAD: RefCell<Option<(CString, CString)>> = const { RefCell::new(None) };
}

/// The log has another message than the client, whoever catches it and throws it again.
pub fn instead_of(message: &str, logged: &str) {
    let texts = CString::new(message).ok().zip(CString::new(logged).ok());
    INSTEAD.with_borrow_mut(|instead| *instead = texts);
}

/// What the log has in place of a message, null or a C string.
///
/// # Safety
/// As it says.
pub unsafe fn in_the_log(message: *const c_char) -> Option<*const c_char> {
    if message.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let message = unsafe { CStr::from_ptr(message) };
    // When the process ends, lines for debugging are logged after its thread's variables are gone.
    let found = INSTEAD.try_with(|instead| {
        let instead = instead.try_borrow().ok()?;
        let (of, logged) = instead.as_ref()?;
        // SAFETY: a C string, copied into the error's memory.
        (of.as_c_str() == message).then(|| unsafe { pg_sys::pstrdup(logged.as_ptr()) }.cast_const())
    });
    found.ok().flatten()
}
