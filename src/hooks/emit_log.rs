//! Keeps numbers and codes out of the server's log. By default Postgres logs the whole text of a statement that fails,
//! literals included. A statement that calls a function of ours is logged without its text, context and detail, and
//! without what the message quotes of it, whatever error ends it, also if it fails before it gets to us. In their place
//! the log says which role ran which query. The client gets the whole error.

use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char},
};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use crate::{
    error::logged_message::in_the_log,
    hooks::{
        extension_presence,
        statement_text::{self, Reading},
    },
    ipc::{segment, slot},
};

thread_local! {
    /// The start of the last statement in which a function of ours ran.
    static OURS: Cell<i64> = const { Cell::new(0) };
    /// The statement that was last searched for calls of ours: its address and its start, and whether it has such a
    /// call. The statement may have many lines in the log, and many megabytes.
    static READ: Cell<Option<(*const c_char, i64, bool)>> = const { Cell::new(None) };
}

/// The text that is logged in place of what is left out.
const NOT_LOGGED: &CStr = c"(not logged: the statement calls otp_gateway)";

static mut PREVIOUS: pg_sys::emit_log_hook_type = None;

thread_local! {
    /// Called with the message of every error of this process, before the error goes to the log.
    static LISTENER: Cell<Option<fn(&CStr)>> = const { Cell::new(None) };
}

/// Has a function of this process called with the messages of its errors from now on.
pub fn listen(listener: fn(&CStr)) {
    LISTENER.set(Some(listener));
}

pub fn init() {
    // SAFETY: in _PG_init, of which there is one in each process, on its main thread.
    unsafe {
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(emit);
    }
    extension_presence::init();
}

/// Notes that this statement calls a function of ours; every function of ours calls this first.
pub fn mark_statement() {
    OURS.set(statement_start());
    extension_presence::is_here();
    if segment::check().is_ok() {
        slot::mark_caller(true);
    }
}

/// Returns whether a text, null or a C string, names the process of a session whose transaction has called us. The
/// postmaster quotes what a crashed process was running; a process that finds a deadlock quotes what the others run.
///
/// # Safety
/// The text is null or a C string.
unsafe fn is_about_a_caller(text: *const c_char) -> bool {
    if text.is_null() || segment::check().is_err() {
        return false;
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let is_number = |number: &&[u8]| number.first().is_some_and(u8::is_ascii_digit);
    let numbers = || text.split(|byte| !byte.is_ascii_digit()).filter(is_number);
    slot::caller_pids().any(|pid| numbers().any(|number| number == pid.to_string().as_bytes()))
}

/// Returns whether a text, null or a C string, calls a function of ours.
///
/// # Safety
/// The text is null or a C string; the process has no prepared statements, or may look into them.
unsafe fn calls_ours(text: *const c_char, quotes: bool) -> bool {
    if text.is_null() {
        return false;
    }
    // SAFETY: as the caller promises; a variable of this session.
    let (text, conforms) = unsafe { (CStr::from_ptr(text).to_bytes(), pg_sys::standard_conforming_strings) };
    let how = Reading { has_escapes: !conforms, quotes };
    statement_text::calls_ours(text, how, &mut |name| {
        let Ok(name) = CString::new(name) else { return false };
        // SAFETY: looks into a table of this session; what it finds lives on while we look.
        let prepared = unsafe {
            let prepared = pg_sys::FetchPreparedStatement(name.as_ptr(), false);
            if prepared.is_null() {
                return false;
            }
            CStr::from_ptr((*(*prepared).plansource).query_string).to_bytes()
        };
        statement_text::calls_ours(prepared, how, &mut |_| false)
    })
}

/// Returns whether a call of ours is spelt out anywhere in a text, even within a literal or a comment.
///
/// # Safety
/// The text is null or a C string.
unsafe fn spells_ours(text: *const c_char) -> bool {
    // SAFETY: as the caller promises.
    !text.is_null() && statement_text::spells_ours(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Returns whether the statement that this session runs calls a function of ours.
///
/// # Safety
/// On the main thread.
unsafe fn statement_calls_ours() -> bool {
    // SAFETY: variables of this process; the text is null, or a C string.
    let (text, is_session) =
        unsafe { (pg_sys::debug_query_string, pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND) };
    // Every message of a client has a start of its own; a background worker's statements may not.
    if let Some((read, at, calls)) = READ.get()
        && (read, at) == (text, statement_start())
        && is_session
    {
        return calls;
    }
    // SAFETY: as above.
    let calls = unsafe { calls_ours(text, false) };
    READ.set(Some((text, statement_start(), calls)));
    calls
}

/// Returns the text that is logged in place of what is left out, with role and query id.
///
/// # Safety
/// On the main thread, in the memory context of an error.
unsafe fn note() -> *mut c_char {
    let mut note = NOT_LOGGED.to_string_lossy().trim_end_matches(')').to_owned();
    // SAFETY: a setting of Postgres': whose session it is; null or empty in a process that is no client's.
    unsafe {
        let role = pg_sys::GetConfigOption(c"session_authorization".as_ptr(), true, false);
        if !role.is_null() && *role != 0 {
            note += &format!("; role \"{}\"", CStr::from_ptr(role).to_string_lossy());
        }
    }
    // SAFETY: a variable of this session, 0 where queries have no ids or this one is not yet analysed.
    match unsafe { pg_sys::pgstat_get_my_query_id() } as i64 {
        0 => {}
        id => note += &format!("; query id {id}"),
    }
    let note = CString::new(note + ")").unwrap_or_else(|_| NOT_LOGGED.to_owned());
    // SAFETY: a C string.
    unsafe { pg_sys::pstrdup(note.as_ptr()) }
}

/// Returns whether the log would show the statement with the error: Postgres' own is_log_level_output.
fn shows_statement(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: variables of this session.
    let (text, least) = unsafe { (pg_sys::debug_query_string, pg_sys::log_min_error_statement) };
    let (log, server) = (pg_sys::LOG as i32, pg_sys::LOG_SERVER_ONLY as i32);
    let level = error.elevel;
    let is_shown = if level == log || level == server {
        least == log || least <= pg_sys::PGERROR as i32
    } else if least == log {
        level >= pg_sys::FATAL as i32
    } else {
        level >= least
    };
    is_shown && !error.hide_stmt && !text.is_null()
}

fn statement_start() -> i64 {
    // SAFETY: a variable of this session.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Returns the text for the log if the message may quote the statement or a value: the format that the message was made
/// from. A format that is `%s` alone holds somebody's own words (RAISE, another extension, ours): such a message stays.
///
/// # Safety
/// `error` is Postgres' own error record.
unsafe fn without_values(error: &pg_sys::ErrorData) -> Option<*const c_char> {
    let is_of = |class: PgSqlErrorCode| error.sqlerrcode & 0xfff == class as i32;
    // Postgres quotes data and the words of a statement in errors of these classes; errors about rights name objects.
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

/// Returns whether the error is of a statement that calls ours, or quotes such a statement.
///
/// # Safety
/// `error` is Postgres' own error record, whose texts are null or C strings.
unsafe fn is_of_ours(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        // Statements of other sessions, maybe in other databases, are quoted by a process that finds a deadlock, and by
        // the postmaster after a crash. They are cut to a length, so that they cannot be read token by token.
        let is_postmaster = !pg_sys::IsUnderPostmaster;
        let quotes_others = !error.detail_log.is_null() || is_postmaster && !error.detail.is_null();
        if quotes_others
            && (spells_ours(error.detail_log)
                || is_postmaster && spells_ours(error.detail)
                || [error.message, error.detail_log].into_iter().any(|text| is_about_a_caller(text)))
        {
            return true;
        }
        if !extension_presence::may_be_here() {
            return false;
        }
        // EXECUTE of a statement that is not prepared (any more), as behind a pooler: nobody knows what it would call.
        if error.sqlerrcode == PgSqlErrorCode::ERRCODE_INVALID_SQL_STATEMENT_NAME as i32 {
            return true;
        }
        // A statement that the parser cannot read cannot be read token by token here either: a forgotten quote makes
        // literals of code. Nothing of such a statement was carried out.
        let is_unread = !error.funcname.is_null() && CStr::from_ptr(error.funcname) == c"scanner_yyerror";
        statement_calls_ours()
            || is_unread && spells_ours(pg_sys::debug_query_string)
            || calls_ours(error.internalquery, false)
            || is_unread && spells_ours(error.internalquery)
            || calls_ours(error.context, true)
    }
}

thread_local! {
    /// The start of the statement for which the hook is at work. If the hook is called again for the same statement
    /// while this is set, the hook itself has failed.
    static AT_WORK: Cell<Option<i64>> = const { Cell::new(None) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn emit(error: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres passes its own error record, which this hook may change.
    unsafe {
        if let Some(listener) = LISTENER.get()
            && (*error).elevel >= PgLogLevel::ERROR as i32
            && !(*error).message.is_null()
        {
            listener(CStr::from_ptr((*error).message));
        }
        if (*error).output_to_server {
            let now = Some(statement_start());
            if AT_WORK.replace(now) == now {
                // An error of the hook's own comes here, too, and must not raise another.
                (*error).hide_stmt = true;
                (*error).hide_ctx = true;
            } else {
                hide(&mut *error);
                AT_WORK.set(None);
            }
        }
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}

/// Returns the text that the log has in place of the message of an error of ours.
///
/// # Safety
/// `error` is Postgres' own error record.
unsafe fn logged_instead(error: &pg_sys::ErrorData) -> Option<*const c_char> {
    if error.message.is_null() {
        return None;
    }
    // SAFETY: as the caller promises, a C string; what is returned is a copy in the error's memory.
    unsafe {
        let logged = in_the_log(CStr::from_ptr(error.message))?;
        Some(pg_sys::pstrdup(logged.as_ptr()).cast_const())
    }
}

/// Hides from the log what it must not have of an error.
///
/// # Safety
/// `error` is Postgres' own error record.
unsafe fn hide(error: &mut pg_sys::ErrorData) {
    // SAFETY: as the caller promises; what is put into the record is in its own memory context.
    unsafe {
        let ran = OURS.get() != 0 && OURS.get() == statement_start();
        if !ran && !is_of_ours(error) {
            return;
        }
        // Postgres and other extensions put what a session runs, or the values that it has, into the detail.
        let quotes = !error.detail.is_null() || !error.detail_log.is_null();
        let message = logged_instead(error).or_else(|| without_values(error));
        let in_own_words = message.is_some() || !error.internalquery.is_null();
        if quotes || in_own_words || shows_statement(error) || !error.context.is_null() && !error.hide_ctx {
            error.detail_log = note();
        }
        error.hide_stmt = true;
        error.hide_ctx = true;
        if in_own_words {
            // For message and internal query the log has no text of its own: the client gets the whole error first.
            if error.output_to_client {
                error.output_to_server = false;
                pg_sys::EmitErrorReport();
                error.output_to_server = true;
                error.output_to_client = false;
            }
            error.internalquery = std::ptr::null_mut();
            if let Some(message) = message {
                error.message = pg_sys::pstrdup(message);
            }
        }
    }
}
