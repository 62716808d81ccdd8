//! By default Postgres logs the whole text of a statement that fails, literals and all. One that calls a function of
//! ours holds numbers and codes: it is logged without its text, context and detail, and without what the message quotes
//! of it, whatever error ends it, and also where it fails before it gets to us. The client has its whole error.

use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char},
};

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::{mailbox, shared_memory, worker};

thread_local! {
    /// When the statement began in which one of ours ran last.
    static OURS: Cell<i64> = const { Cell::new(0) };
}

/// In the place of what is left out.
const NOT_LOGGED: &CStr = c"(not logged: the statement calls otp_gateway)";

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
    if shared_memory::check().is_ok() {
        mailbox::note_caller(true);
    }
}

/// Whether a text, null or a C string, speaks of a process whose transaction has called us: the postmaster quotes what a
/// crashed one was running, and who finds a deadlock what the others are.
///
/// # Safety
/// As it says.
unsafe fn is_about_a_caller(text: *const c_char) -> bool {
    if text.is_null() || shared_memory::check().is_err() {
        return false;
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let is_number = |number: &&[u8]| number.first().is_some_and(u8::is_ascii_digit);
    let numbers = || text.split(|byte| !byte.is_ascii_digit()).filter(is_number);
    mailbox::callers().any(|pid| numbers().any(|number| number == pid.to_string().as_bytes()))
}

/// Whether a text, null or a C string, calls a function of ours, or one that is misspelt: each has `otp_` at the head of
/// its own name or of its schema's.
///
/// # Safety
/// As it says.
unsafe fn names_ours(text: *const c_char) -> bool {
    if text.is_null() {
        return false;
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    starts_of(text, b"otp_").any(|after| {
        let rest = skip(skip(after, is_of_word), is_between_tokens);
        let name = |after_dot| skip(skip(skip(after_dot, is_between_tokens), is_of_word), is_between_tokens);
        rest.starts_with(b"(") || rest.strip_prefix(b".").is_some_and(|after_dot| name(after_dot).starts_with(b"("))
    })
}

/// Whether a text, null or a C string, executes a prepared statement of this session that names a function of ours.
///
/// # Safety
/// As it says, and in a session or the postmaster, which has none.
unsafe fn executes_ours(text: *const c_char) -> bool {
    if text.is_null() {
        return false;
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    starts_of(text, b"execute").any(|after| {
        let name = skip(after, |byte| byte.is_ascii_whitespace());
        let name = match name.strip_prefix(b"\"") {
            Some(quoted) => quoted.split(|byte| *byte == b'"').next().unwrap_or_default().to_vec(),
            None => name[..name.len() - skip(name, is_of_word).len()].to_ascii_lowercase(),
        };
        let Ok(name) = CString::new(name) else { return false };
        // SAFETY: looks into a table of this session; what it finds lives on while we look.
        unsafe {
            let prepared = pg_sys::FetchPreparedStatement(name.as_ptr(), false);
            !prepared.is_null() && names_ours((*(*prepared).plansource).query_string)
        }
    })
}

/// What comes after each occurrence of a word.
fn starts_of<'a>(text: &'a [u8], word: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let places = text.windows(word.len()).enumerate().filter(move |(_, found)| found.eq_ignore_ascii_case(word));
    places.map(move |(at, _)| &text[at + word.len()..])
}

fn skip(text: &[u8], what: impl Fn(u8) -> bool) -> &[u8] {
    &text[text.iter().position(|byte| !what(*byte)).unwrap_or(text.len())..]
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

fn is_between_tokens(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'"'
}

fn statement_start() -> i64 {
    // SAFETY: a variable of this session.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// What the log says instead of the message, if that may quote the statement or a value: the format that it was made
/// from. `%s` as a whole is somebody's own words (RAISE, another extension, ours).
///
/// # Safety
/// Of Postgres' own error record.
unsafe fn without_values(error: &pg_sys::ErrorData) -> Option<*const c_char> {
    let is_of = |class: PgSqlErrorCode| error.sqlerrcode & 0xfff == class as i32;
    // Data and the words of a statement are quoted by Postgres; but not where it is about rights, which are to objects.
    let quotes = is_of(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION)
        || is_of(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
            && error.sqlerrcode != PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32;
    // Lines for debugging hold whole statements.
    if !quotes && error.elevel >= pg_sys::LOG as i32 {
        return None;
    }
    if error.message_id.is_null() {
        return Some(NOT_LOGGED.as_ptr());
    }
    // SAFETY: a constant of whoever raised it.
    let format = unsafe { CStr::from_ptr(error.message_id) }.to_bytes();
    (format.contains(&b'%') && format != b"%s").then_some(error.message_id)
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn emit(error: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres passes its own error record, which this hook may change.
    unsafe {
        worker::hear(&*error);
        let ran = OURS.get() != 0 && OURS.get() == statement_start();
        // What runs, at the top or within; or, where others say what a session runs (the postmaster of a crashed one,
        // a deadlock), the detail.
        let quotes = !(*error).detail.is_null() || !(*error).detail_log.is_null();
        let named = || {
            let within = [(*error).internalquery, (*error).context, (*error).detail, (*error).detail_log];
            names_ours(pg_sys::debug_query_string)
                || executes_ours(pg_sys::debug_query_string)
                || within.into_iter().any(|text| names_ours(text))
                || quotes && [(*error).message, (*error).detail_log].into_iter().any(|text| is_about_a_caller(text))
        };
        if (*error).output_to_server && (ran || named()) {
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
            if quotes {
                (*error).detail_log = pg_sys::pstrdup(NOT_LOGGED.as_ptr());
            }
            let message = without_values(&*error);
            if message.is_some() || !(*error).internalquery.is_null() {
                // Of these two the log has no text of its own: the client gets its error first.
                if (*error).output_to_client {
                    (*error).output_to_server = false;
                    pg_sys::EmitErrorReport();
                    (*error).output_to_server = true;
                    (*error).output_to_client = false;
                }
                (*error).internalquery = std::ptr::null_mut();
                if let Some(message) = message {
                    (*error).message = pg_sys::pstrdup(message);
                }
            }
        }
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}
