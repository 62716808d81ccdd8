//! Who owns a provider: its owner keeps its record.

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{
        database::{self, database},
        foreign_servers::{self, Server},
        roles::{has_privileges_of, is_superuser},
    },
    provider::{
        lookup::{dialect_of, no_such_provider, shown},
        route::ROUTE,
    },
    store::identity::{Identity, Kind, dropped_servers, identities_of},
};

/// Returns the providers that a role owns; None for a superuser, who owns everything.
pub fn owned(role: pg_sys::Oid) -> Result<Option<Vec<Identity>>, Error> {
    if is_superuser(role) {
        return Ok(None);
    }
    let mut owns_one = false;
    let mut owned = Vec::new();
    for server in foreign_servers::servers().into_iter().filter(|server| owns(role, server) && is_ours(server)) {
        owns_one = true;
        owned.extend(identities_of(Kind::Server, server.oid)?);
    }
    if owns_one {
        return Ok(Some(owned));
    }
    Err(Error::insufficient_privilege(
        "permission denied: the record is kept by the owners of its providers, and you own none",
        "Ask the owner of the foreign server, or a superuser.",
    ))
}

/// A provider or route whose record a role keeps.
pub struct Kept {
    /// The identities under which the provider is on record.
    pub identities: Vec<Identity>,
    /// All providers whose record the role keeps; None: every provider.
    pub owned: Option<Vec<Identity>>,
    /// The providers that the name stands for, or stood for: name and dialect.
    pub members: Vec<(String, String)>,
}

/// Returns what a name stands for: a server that the role owns; and, if the role owns the database, the dropped servers
/// of that name.
pub fn kept(name: &str, role: pg_sys::Oid) -> Result<Kept, Error> {
    let dropped = if owns_the_database(role) { dropped_servers(name)? } else { Vec::new() };
    let mut kept = match foreign_servers::server(name) {
        Some(server) => Kept::of(server, role)?,
        None if dropped.is_empty() => return Err(no_such_provider(name)),
        None => Kept { identities: Vec::new(), owned: Some(Vec::new()), members: Vec::new() },
    };
    for (id, vendor) in dropped {
        kept.identities.push(id);
        kept.owned.iter_mut().for_each(|owned| owned.push(id));
        // A dropped route names no vendor: what was queued for it, and never sent, may have been for any vendor.
        let dialects = dialect::by_name(&vendor).map_or_else(|| dialect::DIALECTS.to_vec(), |dialect| vec![dialect]);
        kept.members.extend(dialects.iter().map(|dialect| (name.to_owned(), dialect.name.to_owned())));
    }
    Ok(kept)
}

impl Kept {
    fn of(server: Server, role: pg_sys::Oid) -> Result<Self, Error> {
        must_own(&server, role)?;
        let names = crate::provider::route::route_of(&server)?.map(|route| route.providers);
        let identities = identities_of(Kind::Server, server.oid)?;
        let members = match names {
            Some(names) => names.iter().filter_map(|name| foreign_servers::server(name)).collect(),
            None => vec![server],
        };
        Ok(Self {
            identities,
            owned: owned(role)?,
            members: members
                .into_iter()
                .map(|member| (member.name.clone(), foreign_servers::vendor_of(&member)))
                .collect(),
        })
    }
}

/// Fails if the role does not own the server; a superuser owns every server.
pub fn must_own(server: &Server, role: pg_sys::Oid) -> Result<(), Error> {
    if owns(role, server) {
        return Ok(());
    }
    Err(Error::insufficient_privilege(
        format!("must be owner of foreign server {}", shown(&server.name)),
        "Ask its owner, or a superuser.",
    ))
}

fn owns_the_database(role: pg_sys::Oid) -> bool {
    database(database::current()).is_some_and(|database| has_privileges_of(role, database.owner))
}

fn is_ours(server: &Server) -> bool {
    let wrapper = foreign_servers::wrapper_name(server.wrapper);
    wrapper == ROUTE || dialect_of(&wrapper).is_some()
}

fn owns(role: pg_sys::Oid, server: &Server) -> bool {
    has_privileges_of(role, server.owner)
}

/// Returns whether a role may have the server read a file.
pub fn may_read_files(role: pg_sys::Oid) -> bool {
    // The predefined role pg_read_server_files; its OID is fixed, its name in the headers is not.
    const PG_READ_SERVER_FILES: u32 = 4569;
    has_privileges_of(role, pg_sys::Oid::from(PG_READ_SERVER_FILES))
}

/// Fails if an option that names a file does not hold, because the provider's owner may not have the server read files.
/// The owner decides where the provider points, and so can have the file's content sent there: the file is read for the
/// owner, whoever set the option.
pub fn owner_must_read_files(server: &foreign_servers::Server, option: &str) -> Result<(), Error> {
    if may_read_files(server.owner) {
        return Ok(());
    }
    let name = shown(&server.name);
    Err(Error::insufficient_privilege(
        format!(
            "option {option} does not hold: the owner of foreign server {name} may not have the server read a file"
        ),
        format!(
            "GRANT pg_read_server_files to the owner, or ALTER SERVER {name} OWNER TO a role that has it; or leave \
            {option} out."
        ),
    ))
}
