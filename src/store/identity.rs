//! Identities: foreign servers and roles, each under a number of its own in `otp_gateway_internal.identity`, tell whose
//! a row is. A name is free again after a rename or a drop, and who takes over the name takes over nothing else; an OID
//! holds in one cluster only. The worker assigns the numbers.

use std::{cell::RefCell, collections::HashMap};

use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    pg::{cluster, foreign_servers, relation::of_extension, roles::role_named, row::Row, scan::Key},
    store::{
        columns::{NEWEST_TABLE, identity as column},
        scan::scan,
    },
};

/// A number in `otp_gateway_internal.identity`; 0 stands for no identity.
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

/// A server or role that is to have an identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Kind,
    pub object: u32,
    pub name: String,
    /// For a server: the dialect's name, or `route`.
    pub vendor: Option<String>,
}

thread_local! {
    /// What this session has looked up. An identity never changes its object while the server runs: the object may be
    /// dropped, and then nobody finds it.
    static KNOWN: RefCell<Known> = RefCell::default();
}

#[derive(Default)]
pub struct Known {
    /// The table that the entries are from: in one session the extension may be dropped and installed anew.
    table: pg_sys::Oid,
    objects: HashMap<Identity, pg_sys::Oid>,
    pub identities: HashMap<(Kind, u32), Identity>,
}

pub fn known<R>(use_it: impl FnOnce(&mut Known) -> R) -> R {
    let table = of_extension(NEWEST_TABLE).unwrap_or(pg_sys::InvalidOid);
    KNOWN.with_borrow_mut(|known| {
        if known.table != table {
            *known = Known { table, ..Known::default() };
        }
        use_it(known)
    })
}

/// Returns this cluster's own number.
pub fn home() -> i64 {
    cluster::system_identifier().cast_signed()
}

/// Returns the OID of a server or role in this cluster; None if it was dropped.
pub fn object_of(id: Identity) -> Result<Option<pg_sys::Oid>, Error> {
    if let Some(object) = known(|known| known.objects.get(&id).copied()) {
        return Ok(Some(object));
    }
    let mut found = None;
    scan(c"identity", None, [Key::Bigint(column::ID, id)], |row| found = object(row))?;
    if let Some(found) = found {
        known(|known| known.objects.insert(id, found));
    }
    Ok(found)
}

/// Returns every identity of a server or role: more than one if rows of two databases were brought together.
pub fn identities_of(kind: Kind, oid: pg_sys::Oid) -> Result<Vec<Identity>, Error> {
    let mut found = Vec::new();
    let identity = |row: Row| {
        let is_it = object(row) == Some(oid) && row.get::<String>(column::KIND).as_deref() == Some(kind.as_str());
        row.get::<Identity>(column::ID).filter(|_| is_it)
    };
    let wanted = [Key::Oid(column::OBJECT, oid)];
    scan(c"identity", Some(c"identity_object_idx"), wanted, |row| found.extend(identity(row)))?;
    if found.is_empty() {
        // The object may be on record under the OID that it had in another cluster.
        scan(c"identity", None, [], |row| found.extend(identity(row)))?;
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the identities, with their vendors, of servers that had this name when they were dropped.
pub fn dropped_servers(name: &str) -> Result<Vec<(Identity, String)>, Error> {
    let mut found = Vec::new();
    scan(c"identity", None, [], |row| {
        let (kind, last) = (row.get::<String>(column::KIND), row.get::<String>(column::NAME));
        let is_it = kind.as_deref() == Some(Kind::Server.as_str()) && last.as_deref() == Some(name);
        // The worker may not have heard of the drop yet.
        if is_it && object(row).and_then(foreign_servers::server_of).is_none() {
            let vendor = row.get::<String>(column::VENDOR).unwrap_or_default();
            found.extend(row.get::<Identity>(column::ID).map(|id| (id, vendor)));
        }
    })?;
    Ok(found)
}

/// Returns the object that a row stands for here. If pg_upgrade has brought the row, and no worker has looked at it
/// yet, the object is found by its name, as the worker will find it: also the first caller, and its idempotency key,
/// must be recognised.
fn object(row: Row) -> Option<pg_sys::Oid> {
    let object = row.get::<pg_sys::Oid>(column::OBJECT)?;
    if row.get::<i64>(column::HOME) == Some(home()) {
        return Some(object);
    }
    let name = row.get::<String>(column::NAME)?;
    match Kind::from_label(&row.get::<String>(column::KIND)?)? {
        Kind::Server => {
            let vendor = row.get::<String>(column::VENDOR)?;
            foreign_servers::server(&name)
                .filter(|server| foreign_servers::vendor_of(server) == vendor)
                .map(|server| server.oid)
        }
        Kind::Role => role_named(&name),
    }
}
