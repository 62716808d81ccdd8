//! Whether the record of this database is a subscription's target, so that another database writes it: nothing is sent
//! from here then, and nothing written about what was sent there.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use pgrx::{PgTryBuilder, pg_sys};

use crate::{
    error::Error,
    pg::{relation::of_extension, scan::scan_catalog},
};

/// Why nothing is done, and what to do about it.
pub const REPLICATED: (&str, &str) = (
    "the record of this database is replicated from another one, by a subscription",
    "Call at the publisher; or, to take over here, DROP SUBSCRIPTION first.",
);

/// What was found is out of date.
static STALE: AtomicBool = AtomicBool::new(true);
static IS_REPLICATED: AtomicBool = AtomicBool::new(false);

unsafe extern "C-unwind" fn at_change(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    STALE.store(true, SeqCst);
}

/// In a transaction.
pub fn is_replicated() -> bool {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, SeqCst) {
        let cache = pg_sys::SysCacheIdentifier::SUBSCRIPTIONRELMAP as i32;
        // SAFETY: on the main thread, once in a process.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(cache, Some(at_change), pg_sys::Datum::from(0)) };
    }
    if STALE.swap(false, SeqCst) {
        IS_REPLICATED.store(look(), SeqCst);
    }
    IS_REPLICATED.load(SeqCst)
}

/// For a session that is about to write for this database's worker.
pub fn must_be_original() -> Result<(), Error> {
    if is_replicated() {
        Err(Error::not_in_prerequisite_state(format!("{}; nothing is sent", REPLICATED.0), REPLICATED.1))
    } else {
        Ok(())
    }
}

/// The catalog pg_subscription_rel: the same OID in every version, and how its rows begin.
const SUBSCRIPTION_REL: u32 = 6102;

#[repr(C)]
struct SubscriptionRel {
    subscription: pg_sys::Oid,
    table: pg_sys::Oid,
}

/// Whether a subscription has our table among its own.
fn look() -> bool {
    let Some(table) = of_extension(c"verification_record") else { return false };
    let mut found = false;
    scan_catalog(pg_sys::Oid::from(SUBSCRIPTION_REL), |row| {
        // SAFETY: how the catalog's rows begin.
        found |= unsafe { row.form::<SubscriptionRel>() }.table == table;
    });
    found
}

/// How a database stands in which the tables cannot be used.
pub enum Presence {
    /// The extension is not there, or not committed.
    Gone,
    /// It is, and its tables are elsewhere.
    Here,
    Replicated,
}

/// Outside a transaction.
pub fn presence() -> Presence {
    // SAFETY: a transaction of its own, which every path ends.
    unsafe {
        PgTryBuilder::new(|| {
            pg_sys::StartTransactionCommand();
            let is_here = pg_sys::get_extension_oid(c"otp_gateway".as_ptr(), true) != pg_sys::InvalidOid;
            let is_replicated = is_here && look();
            pg_sys::CommitTransactionCommand();
            match (is_here, is_replicated) {
                (_, true) => Presence::Replicated,
                (true, false) => Presence::Here,
                (false, false) => Presence::Gone,
            }
        })
        .catch_others(|_| {
            pg_sys::AbortCurrentTransaction();
            Presence::Gone
        })
        .execute()
    }
}
