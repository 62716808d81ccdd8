//! Knows whether the extension is in this session's database: in other databases every statement is logged as ever,
//! whatever it names. The log cannot ask the catalog, least of all in a failed transaction. So a session looks when its
//! transactions commit, the first of which is its log-in, and again after somebody has made or dropped a foreign data
//! wrapper, as CREATE EXTENSION does. Until the session has looked, the extension may be here.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use pgrx::pg_sys;

use crate::pg::{
    database::{self, has_extension, owner_of_schema},
    invalidation::mark_changes,
    roles::is_superuser,
    session::{is_of_a_client, is_upgrade},
};

thread_local! {
    /// Whether the extension is in this database; None: this session has not looked.
    static IS_HERE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Whether somebody has made or dropped a foreign data wrapper since the last look.
static STALE: AtomicBool = AtomicBool::new(false);

pub fn init() {
    mark_changes(&[pg_sys::SysCacheIdentifier::FOREIGNDATAWRAPPEROID], &STALE);
}

fn known() -> Option<bool> {
    IS_HERE.get().filter(|_| !STALE.load(Relaxed))
}

pub fn may_be_here() -> bool {
    known() != Some(false)
}

fn know(is_here: bool) {
    STALE.store(false, Relaxed);
    IS_HERE.set(Some(is_here));
}

/// Notes that the extension is here: one of its functions runs.
pub fn is_here() {
    know(true);
}

/// Looks before a COMMIT, where the catalog can be read and an error still undoes the transaction. Only sessions of
/// clients look: other processes have no statements to log.
pub fn before_commit() {
    if known().is_none() && is_of_a_client() && database::current() != pg_sys::InvalidOid && !is_upgrade() {
        // Set before the look, so that a change of the catalog during it makes this session look again.
        know(true);
        IS_HERE.set(Some(look()));
    }
}

/// Looks the extension up. The schema is asked for first, from a cache that every session fills: a schema of a
/// superuser's is ours. Anybody with CREATE on the database may make another one: then the extension itself is looked
/// up, which makes a log-in a tenth slower.
fn look() -> bool {
    owner_of_schema(c"otp_gateway").is_some_and(|owner| is_superuser(owner) || has_extension(c"otp_gateway"))
}
