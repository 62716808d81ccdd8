//! Whose a row is: foreign servers and roles, each under a number of its own in `otp_gateway.identity`. A name is free
//! again after a rename or a drop, and who takes it takes nothing else; an OID holds in one cluster. The worker gives the
//! numbers out.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use pgrx::{FromDatum, IntoDatum, pg_sys};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    api::{send, unexpected},
    ledger::{
        layout::identity as column,
        scan::{TupleValues, equal, scan},
    },
    letter::{Letter, Reply},
    misuse::Misuse,
    provider,
};

/// A number in `otp_gateway.identity`; 0 is none.
pub type Identity = i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Server,
    Role,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Role => "role",
        }
    }

    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Server, Self::Role].into_iter().find(|kind| kind.as_str() == label)
    }
}

/// What is to have a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Kind,
    pub object: u32,
    pub name: String,
    /// Of a server: the dialect, or [`crate::provider::UNROUTED`].
    pub vendor: Option<String>,
}

thread_local! {
    /// What this session has looked up. A number never changes its object while the extension is there: that may be dropped,
    /// and is then found by nobody.
    static OBJECTS: RefCell<HashMap<Identity, pg_sys::Oid>> = RefCell::default();
    static IDENTITIES: RefCell<HashMap<(Kind, u32), Identity>> = RefCell::default();
}

/// The extension may be another one, or was dropped and made anew: what was looked up is looked up again.
static STALE: AtomicBool = AtomicBool::new(false);

pub fn init() {
    // SAFETY: in _PG_init of the postmaster, single-threaded; sessions inherit it. The extension's wrappers go with it.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::FOREIGNDATAWRAPPEROID as i32;
        pg_sys::CacheRegisterSyscacheCallback(cache, Some(at_change), pg_sys::Datum::from(0));
    }
}

unsafe extern "C-unwind" fn at_change(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    STALE.store(true, Relaxed);
}

/// This cluster's own number.
pub fn home() -> i64 {
    // SAFETY: reads shared memory that is set before any session starts.
    unsafe { pg_sys::GetSystemIdentifier() }.cast_signed()
}

/// The OID of a server or role here; None: it was dropped.
pub fn object_of(id: Identity) -> Result<Option<pg_sys::Oid>, Misuse> {
    if let Some(known) = OBJECTS.with_borrow(|known| known.get(&id).copied()) {
        return Ok(Some(known));
    }
    let mut found = None;
    scan(c"identity", None, [equal(column::ID, pg_sys::F_INT8EQ, id.into_datum())], |row| found = object(row))?;
    if let Some(found) = found {
        OBJECTS.with_borrow_mut(|known| known.insert(id, found));
    }
    Ok(found)
}

/// Every number of a server or role: more than one where rows of two databases were brought together.
pub fn identities_of(kind: Kind, oid: pg_sys::Oid) -> Result<Vec<Identity>, Misuse> {
    let mut found = Vec::new();
    let wanted = [equal(column::OBJECT, pg_sys::F_OIDEQ, oid.into_datum())];
    scan(c"identity", Some(c"identity_object_idx"), wanted, |row| {
        // SAFETY: the columns are of these types.
        let (id, of) = unsafe { (row.value::<Identity>(column::ID), row.value::<String>(column::KIND)) };
        if object(row).is_some() && of.as_deref() == Some(kind.as_str()) {
            found.extend(id);
        }
    })?;
    found.sort_unstable();
    Ok(found)
}

/// The number under which something is put down; the worker is asked for one that there is not yet.
pub fn identity(subject: &Subject) -> Result<Identity, Misuse> {
    let known = (subject.kind, subject.object);
    if STALE.swap(false, Relaxed) {
        IDENTITIES.with_borrow_mut(HashMap::clear);
    }
    if let Some(id) = IDENTITIES.with_borrow(|ids| ids.get(&known).copied()) {
        return Ok(id);
    }
    let found = || Ok::<_, Misuse>(identities_of(subject.kind, pg_sys::Oid::from(subject.object))?.first().copied());
    let id = loop {
        if let Some(id) = found()? {
            break id;
        }
        match send(&Letter::Identify(subject.clone()), Uuid::nil())? {
            Reply::Settled | Reply::Again => {}
            Reply::Refused(misuse) => return Err(misuse),
            Reply::Done(_) | Reply::Kept(_) | Reply::Unknown => return Err(unexpected()),
        }
    };
    IDENTITIES.with_borrow_mut(|ids| ids.insert(known, id));
    Ok(id)
}

/// The numbers, with their vendors, of servers that were called so when they were dropped.
pub fn dropped_servers(name: &str) -> Result<Vec<(Identity, String)>, Misuse> {
    let mut found = Vec::new();
    scan(c"identity", None, [], |row| {
        // SAFETY: the columns are of these types.
        let (id, kind, last, vendor) = unsafe {
            (
                row.value::<Identity>(column::ID),
                row.value::<String>(column::KIND),
                row.value::<String>(column::NAME),
                row.value::<String>(column::VENDOR),
            )
        };
        let is_it = kind.as_deref() == Some(Kind::Server.as_str()) && last.as_deref() == Some(name);
        // The worker may not have heard of it yet.
        if is_it && object(row).and_then(provider::server_of).is_none() {
            found.extend(id.map(|id| (id, vendor.unwrap_or_default())));
        }
    })?;
    Ok(found)
}

fn object(row: &TupleValues) -> Option<pg_sys::Oid> {
    // SAFETY: the columns are of these types.
    unsafe {
        let home_of_it = row.value::<i64>(column::HOME);
        row.datum(column::OBJECT)
            .filter(|_| home_of_it == Some(home()))
            .and_then(|datum| pg_sys::Oid::from_datum(datum, false))
    }
}
