//! Who wants to hear of statements that change rows: while a send is enqueued for some of them, its transaction does.

use std::sync::OnceLock;

use pgrx::pg_sys;

/// What is asked and told; each is called on the main thread, and must not fail.
pub struct RowWatch {
    /// Whether anybody listens just now.
    pub is_on: fn() -> bool,
    /// A statement begins that changes rows of this table.
    pub writes: fn(pg_sys::Oid),
    /// This table is emptied or dropped.
    pub empties: fn(pg_sys::Oid),
}

static WATCH: OnceLock<RowWatch> = OnceLock::new();

/// In `_PG_init` of the postmaster.
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
