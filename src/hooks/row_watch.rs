//! Passes on which statements change rows to whoever listens: a transaction that has enqueued a send for some rows.

use std::sync::OnceLock;

use pgrx::pg_sys;

/// The listener's functions; each is called on the main thread, and must not fail.
pub struct RowWatch {
    /// Returns whether anybody listens just now.
    pub is_on: fn() -> bool,
    /// Called when a statement begins that changes rows of this table.
    pub writes: fn(pg_sys::Oid),
    /// Called when this table is emptied or dropped.
    pub empties: fn(pg_sys::Oid),
}

static WATCH: OnceLock<RowWatch> = OnceLock::new();

/// Sets the listener, in `_PG_init` of the postmaster.
pub fn init(watch: RowWatch) {
    WATCH.get_or_init(|| watch);
}

pub fn is_on() -> bool {
    WATCH.get().is_some_and(|watch| (watch.is_on)())
}

pub fn writes(table: pg_sys::Oid) {
    if let Some(watch) = WATCH.get() {
        (watch.writes)(table);
    }
}

pub fn empties(table: pg_sys::Oid) {
    if let Some(watch) = WATCH.get() {
        (watch.empties)(table);
    }
}
