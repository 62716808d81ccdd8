//! Whether the extension is in this session's database: in others every statement is logged as ever, whatever it names.
//! The log cannot ask the catalog, least of all where a transaction has failed. So a session looks when its
//! transactions commit, of which the first is its log-in, and again after somebody has made or dropped a foreign data
//! wrapper, as CREATE EXTENSION does. Until it has looked, the extension may be here.

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
    /// Whether it is here; None: this session has not looked.
    static IS_HERE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Somebody has made or dropped a foreign data wrapper.
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

/// One of its functions runs.
pub fn is_here() {
    know(true);
}

/// Before a COMMIT, where the catalog can be read, and an error still undoes the transaction. Others than sessions of
/// clients have no statements of theirs to log.
pub fn before_commit() {
    if known().is_none() && is_of_a_client() && database::current() != pg_sys::InvalidOid && !is_upgrade() {
        // Before the look, so that a change that it comes upon has it look again.
        know(true);
        IS_HERE.set(Some(look()));
    }
}

/// The schema is asked for first, from a cache that every session fills. One that a superuser owns is ours; of another
/// one, which anybody may make who has CREATE on the database, the extension itself tells: to look for that costs a
/// log-in a tenth more.
fn look() -> bool {
    owner_of_schema(c"otp_gateway").is_some_and(|owner| is_superuser(owner) || has_extension(c"otp_gateway"))
}
