//! Warns of triggers that are dropped with the extension. DROP EXTENSION ... CASCADE takes along the triggers that send
//! codes for the rows of users' tables: rows would still come, no code would be sent for them, and nothing would fail.

use std::{
    cell::{Cell, RefCell},
    ffi::CStr,
};

use pgrx::pg_sys;

use crate::{
    error::Error,
    hooks::extension_presence,
    pg::scan::{Key, scan_catalog_by},
};

/// How many tables the warning names at most.
const MOST_NAMED: usize = 16;

thread_local! {
    /// Whether this statement drops the extension.
    static EXTENSION: Cell<bool> = const { Cell::new(false) };
    /// The triggers that this statement drops, each with its table; whether or not the extension takes them along.
    static TRIGGERS: RefCell<Vec<(pg_sys::Oid, pg_sys::Oid)>> = const { RefCell::new(Vec::new()) };
}

pub fn extension_is_dropped() {
    EXTENSION.set(true);
}

/// Notes a trigger that is about to be dropped, if it is one that sends codes.
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn note_trigger(trigger: pg_sys::Oid) {
    if !extension_presence::may_be_here() {
        return;
    }
    if let Some(table) = table_of(trigger) {
        TRIGGERS.with_borrow_mut(|triggers| triggers.push((trigger, table)));
    }
}

/// Returns the table of a trigger that sends codes; None for any other trigger. The trigger of a partition is left out:
/// it goes with that of its parent.
fn table_of(trigger: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let mut table = None;
    scan_trigger(trigger, |row| {
        let is_ours = row.tgparentid == pg_sys::InvalidOid && !row.tgisinternal && sends_codes(row.tgfoid);
        table = is_ours.then_some(row.tgrelid);
    });
    table
}

fn scan_trigger(trigger: pg_sys::Oid, each: impl FnMut(&pg_sys::FormData_pg_trigger)) {
    let index = pg_sys::Oid::from(pg_sys::TriggerOidIndexId);
    scan_catalog_by(index, [Key::Oid(pg_sys::Anum_pg_trigger_oid as usize, trigger)], each);
}

fn sends_codes(function: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the catalog; a name that is found is a palloc'ed C string.
    unsafe {
        let name = pg_sys::get_func_name(function);
        !name.is_null()
            && CStr::from_ptr(name) == c"send_after_commit"
            && pg_sys::get_func_namespace(function) == pg_sys::get_namespace_oid(c"otp_gateway".as_ptr(), true)
    }
}

/// Warns, after a utility statement, which tables lost their trigger with the extension. Each trigger is looked up
/// again: a statement that failed under a savepoint leaves its triggers in place.
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn warn() {
    let triggers = TRIGGERS.take();
    // SAFETY: a variable of this process.
    if !EXTENSION.replace(false) || triggers.is_empty() || !unsafe { pg_sys::IsTransactionState() } {
        return;
    }
    let is_gone = |trigger| {
        let mut is_gone = true;
        scan_trigger(trigger, |_| is_gone = false);
        is_gone
    };
    let gone = triggers.into_iter().filter(|(trigger, _)| is_gone(*trigger));
    let mut tables: Vec<String> = gone.filter_map(|(_, table)| name_of(table)).collect();
    tables.sort();
    tables.dedup();
    if tables.is_empty() {
        return;
    }
    let others = tables.len().saturating_sub(MOST_NAMED);
    tables.truncate(MOST_NAMED);
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    Error::not_in_prerequisite_state(
        format!(
            "the triggers that sent codes go with the extension, on {}{others}: no code is sent for new rows any more",
            tables.join(", ")
        ),
        "ROLLBACK, if that was not meant; or create them anew after CREATE EXTENSION, which does not.",
    )
    .warn();
}

/// Returns the qualified name of a table; None if the table was dropped, too.
fn name_of(table: pg_sys::Oid) -> Option<String> {
    // SAFETY: look-ups in the catalog; what is found is a palloc'ed C string.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return None;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table));
        let qualified = pg_sys::quote_qualified_identifier(schema, name);
        Some(CStr::from_ptr(qualified).to_string_lossy().into_owned())
    }
}
