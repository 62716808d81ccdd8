//! By default Postgres logs the whole text of a statement that fails, literals and all. One that calls a function of
//! ours holds numbers and codes: it is logged without its text, context and detail, whatever error ends it, and also
//! where it fails before it gets to us.

use std::{
    cell::Cell,
    ffi::{CStr, c_char},
};

use pgrx::pg_sys;

thread_local! {
    /// When the statement began in which one of ours ran last.
    static OURS: Cell<i64> = const { Cell::new(0) };
}

static mut PREVIOUS: pg_sys::emit_log_hook_type = None;

pub fn init() {
    // SAFETY: in _PG_init, of which there is one in each process, on its main thread.
    unsafe {
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(emit);
    }
}

/// Called first by every function of ours.
pub fn one_of_ours_runs() {
    OURS.set(statement_start());
}

/// Whether a text, null or a C string, names one of our functions.
///
/// # Safety
/// As it says.
unsafe fn names_ours(text: *const c_char) -> bool {
    const FUNCTIONS: [&[u8]; 5] = [b"otp_send", b"otp_verify", b"otp_resend", b"otp_cancel", b"otp_enqueue"];
    if text.is_null() {
        return false;
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    // All of them begin alike: one pass finds the places to look at.
    text.windows(4).enumerate().filter(|(_, four)| four.eq_ignore_ascii_case(b"otp_")).any(|(at, _)| {
        FUNCTIONS.iter().any(|name| text.get(at..at + name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)))
    })
}

fn statement_start() -> i64 {
    // SAFETY: a variable of this session.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn emit(error: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres passes its own error record, which this hook may change.
    unsafe {
        let ours = OURS.get() != 0 && OURS.get() == statement_start();
        // The statement that runs; or, where the postmaster says what a crashed session ran, the detail.
        let named = || names_ours(pg_sys::debug_query_string) || names_ours((*error).detail);
        if (*error).output_to_server && (ours || named()) {
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
            if !(*error).detail.is_null() {
                // For the log alone: the client has its own text back.
                (*error).detail_log = pg_sys::pstrdup(c"(not logged: the statement calls otp_gateway)".as_ptr());
            }
        }
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}
