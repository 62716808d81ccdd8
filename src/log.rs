//! By default Postgres logs the whole text of a statement that fails, literals and all. One that called a function of
//! ours holds numbers and codes: it is logged without its text and context, whatever error ends it.

use std::cell::Cell;

use pgrx::pg_sys;

thread_local! {
    /// When the statement began in which one of ours ran last.
    static OURS: Cell<i64> = const { Cell::new(0) };
}

static mut PREVIOUS: pg_sys::emit_log_hook_type = None;

pub fn init() {
    // SAFETY: in _PG_init of the postmaster, single-threaded.
    unsafe {
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(emit);
    }
}

/// Called first by every function of ours.
pub fn one_of_ours_runs() {
    OURS.set(statement_start());
}

fn statement_start() -> i64 {
    // SAFETY: a variable of this session.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn emit(error: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres passes its own error record, which this hook may change.
    unsafe {
        if OURS.get() != 0 && OURS.get() == statement_start() {
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
        }
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}
