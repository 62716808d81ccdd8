//! Whether the extension is in this session's database: in others every statement is logged as ever, whatever it names.
//! The log cannot ask the catalog, least of all where a transaction has failed. So a session looks when its
//! transactions commit, of which the first is its log-in, and again after somebody has made or dropped a foreign data
//! wrapper, as CREATE EXTENSION does. Until it has looked, the extension may be here.

use std::cell::Cell;

use pgrx::{IntoDatum, pg_sys};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Unknown,
    Here,
    NotHere,
}

thread_local! {
    static PRESENCE: Cell<Presence> = const { Cell::new(Presence::Unknown) };
}

pub fn init() {
    // SAFETY: in _PG_init, on the main thread; sessions inherit it from the postmaster.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::FOREIGNDATAWRAPPEROID as i32;
        pg_sys::CacheRegisterSyscacheCallback(cache, Some(at_change), pg_sys::Datum::from(0));
    }
}

pub fn may_be_here() -> bool {
    PRESENCE.get() != Presence::NotHere
}

/// One of its functions runs.
pub fn is_here() {
    PRESENCE.set(Presence::Here);
}

unsafe extern "C-unwind" fn at_change(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    PRESENCE.set(Presence::Unknown);
}

/// Before a COMMIT, where the catalog can be read, and an error still undoes the transaction.
pub fn before_commit() {
    // SAFETY: variables of this process. Others than sessions of clients have no statements of theirs to log.
    let looks = PRESENCE.get() == Presence::Unknown
        && unsafe {
            pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND
                && pg_sys::MyDatabaseId != pg_sys::InvalidOid
                && !pg_sys::IsBinaryUpgrade
        };
    if looks {
        // SAFETY: on the main thread, in a transaction that is about to commit.
        unsafe { look() };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn look() {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::NAMESPACENAME as i32;
    // SAFETY: look-ups in the catalog; the row is released after its owner is read. The schema is asked for first, from
    // a cache that every session fills. One that a superuser owns is ours; of another one, which anybody may make who
    // has CREATE on the database, the extension itself tells: to look for that costs a log-in a tenth more.
    let is_here = unsafe {
        let schema = pg_sys::SearchSysCache1(CACHE, c"otp_gateway".into_datum().unwrap_or(pg_sys::Datum::from(0)));
        if schema.is_null() {
            false
        } else {
            let owner = (*pg_sys::GETSTRUCT(schema).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
            pg_sys::ReleaseSysCache(schema);
            pg_sys::superuser_arg(owner)
                || pg_sys::get_extension_oid(c"otp_gateway".as_ptr(), true) != pg_sys::InvalidOid
        }
    };
    PRESENCE.set(if is_here { Presence::Here } else { Presence::NotHere });
}
