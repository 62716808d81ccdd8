//! The worker's life: what it is set to, how it is connected, and how it ends.

use std::{cell::RefCell, ffi::CStr, os::unix::net::UnixStream};

use pgrx::pg_sys;
use policy::{Micros, Timestamp};

use crate::{
    hooks::emit_log,
    ipc::worker_registry,
    pg::{
        background_worker,
        clock::{SinceBoot, clock, since_boot},
        process, settings,
    },
};

/// A worker that lives no longer than this has died at its start.
const SHORT_LIFE: Micros = 60_000_000;

/// How this process ends.
#[derive(Default)]
struct End {
    database: pg_sys::Oid,
    began: SinceBoot,
    /// Some: the worker has recorded what it must, so that its end is no crash. When the next worker is needed, and
    /// whether at once.
    orderly: Option<(Option<Timestamp>, bool)>,
    /// The last error's message, which ended the process.
    last_words: String,
}

thread_local! {
    /// Set in a worker alone.
    static END: RefCell<Option<End>> = const { RefCell::new(None) };
}

/// The settings of the worker's own statements, whatever the server, the database or a role has set; no reload changes
/// them either, at the source by which they are set. What only postgresql.conf can set is the server's to say, and not
/// listed; nor is synchronous_commit, by which the database's owner says how safe a record has to be.
const SETTINGS: &[(&CStr, &CStr)] = &[
    // Not the role that a setting of the database or of the worker's own role may name.
    (c"role", c"none"),
    // The worker's name in pg_stat_activity and in the log: it tells which version runs.
    (c"application_name", TITLE),
    // No trigger or rule of others' on our tables fires: note_queued alone does, which is ENABLE ALWAYS.
    (c"session_replication_role", c"replica"),
    (c"event_triggers", c"off"),
    (c"row_security", c"off"),
    (c"search_path", c"pg_catalog"),
    (c"restrict_nonsystem_relation_kind", c""),
    (c"exit_on_error", c"off"),
    (c"statement_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    // Somebody who locks our tables does not lock the worker in: it comes back to its loop and tries again.
    (c"lock_timeout", LOCK_TIMEOUT),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    // How values are read and written as text.
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"array_nulls", c"on"),
    (c"quote_all_identifiers", c"off"),
    (c"bytea_output", c"hex"),
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"timezone", c"GMT"),
    (c"extra_float_digits", c"1"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    // Its statements are of no use in the log.
    (c"debug_print_parse", c"off"),
    (c"debug_print_rewritten", c"off"),
    (c"debug_print_plan", c"off"),
    (c"log_parameter_max_length_on_error", c"0"),
    // Where the worker's tables and files are.
    (c"default_tablespace", c""),
    (c"temp_tablespaces", c""),
    (c"default_table_access_method", c"heap"),
    (c"work_mem", c"4MB"),
    (c"temp_file_limit", c"-1"),
    // Plans are made once, when the tables may be empty; they must be right when the tables are large.
    (c"plan_cache_mode", c"force_generic_plan"),
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
    (c"enable_indexscan", c"on"),
    (c"enable_indexonlyscan", c"on"),
    (c"enable_nestloop", c"on"),
    (c"enable_sort", c"on"),
    (c"enable_material", c"on"),
    (c"enable_memoize", c"on"),
    (c"enable_hashagg", c"on"),
    (c"from_collapse_limit", c"8"),
    (c"join_collapse_limit", c"8"),
    (c"geqo", c"off"),
    (c"constraint_exclusion", c"partition"),
    (c"cursor_tuple_fraction", c"0.1"),
    (c"seq_page_cost", c"1"),
    (c"random_page_cost", c"4"),
    (c"cpu_tuple_cost", c"0.01"),
    (c"cpu_index_tuple_cost", c"0.005"),
    (c"cpu_operator_cost", c"0.0025"),
    (c"effective_cache_size", c"4GB"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"force_parallel_mode", c"off"),
    (c"debug_parallel_query", c"off"),
    (c"jit", c"off"),
];
const TITLE: &CStr =
    match CStr::from_bytes_with_nul(concat!("otp_gateway worker ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(title) => title,
        Err(_) => c"otp_gateway worker",
    };
const LOCK_TIMEOUT: &CStr = c"500ms";

/// Tells the registry how this process has ended.
fn at_exit() {
    let Some(end) = END.take() else { return };
    match end.orderly {
        Some((due, is_wanted)) => worker_registry::left(end.database, due, is_wanted),
        None => {
            let again = since_boot().since(end.began) < SHORT_LIFE;
            worker_registry::crashed(end.database, &end.last_words, again);
        }
    }
}

/// Notes an error on its way to the log: if it ends this process, and that is a worker, those who wait for it hear of
/// it.
fn hear(message: &CStr) {
    let words = message.to_string_lossy();
    // try_with: the process may be on its way out, and its thread's variables gone.
    let _ = END.try_with(|end| {
        if let Ok(mut end) = end.try_borrow_mut()
            && let Some(end) = &mut *end
        {
            end.last_words = words.trim_start_matches("otp_gateway: ").to_owned();
        }
    });
}

/// Connects to the database. Returns false if the launcher's start of this number meant another worker.
pub fn set_up(database: pg_sys::Oid, start: u32) -> bool {
    if !worker_registry::claim(database, start) {
        return false;
    }
    END.set(Some(End { database, began: since_boot(), ..End::default() }));
    emit_log::listen(hear);
    process::before_exit(at_exit);
    background_worker::keep_memory();
    background_worker::connect(database);
    for (name, value) in SETTINGS {
        settings::override_with(name, value);
    }
    true
}

/// Runs `body` so that it waits for a lock for 10 ms at most.
pub fn without_patience<R>(body: impl FnOnce() -> R) -> R {
    settings::override_with(c"lock_timeout", c"10ms");
    let result = body();
    settings::override_with(c"lock_timeout", LOCK_TIMEOUT);
    result
}

/// Sleeps until the latch is set, the socket can be read or `due` has come.
pub fn sleep(wakeup: &UnixStream, due: Option<Timestamp>) {
    http_client::wipe_stack();
    // A day at most: the number must fit.
    let milliseconds = due.map(|due| (due.since(clock()) / 1000 + 1).clamp(0, 86_400_000));
    background_worker::sleep(wakeup, milliseconds);
}

/// Notes that the worker's end is in order. The next worker comes when `due` has come, at once if `is_wanted`, or when
/// somebody asks for one.
pub fn leave(due: Option<Timestamp>, is_wanted: bool) {
    END.with_borrow_mut(|end| {
        if let Some(end) = end {
            end.orderly = Some((due, is_wanted));
        }
    });
}
