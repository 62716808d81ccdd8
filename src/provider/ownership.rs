//! Whose a provider is: its owner keeps its record.

use pgrx::pg_sys;

use super::{account::ROUTE, catalog, dialect_of, no_such_provider, shown};
use crate::misuse::Misuse;

/// The providers that a role acts for as an owner; None: it is a superuser, whose everything is.
pub fn owned(role: pg_sys::Oid) -> Result<Option<Vec<String>>, Misuse> {
    // SAFETY: a look-up in the catalog.
    if unsafe { pg_sys::superuser_arg(role) } {
        return Ok(None);
    }
    let is_ours = |server: &catalog::Server| {
        let wrapper = catalog::wrapper_name(server.wrapper);
        wrapper == ROUTE || dialect_of(&wrapper).is_some()
    };
    let servers = catalog::servers().into_iter().filter(|server| owns(role, server) && is_ours(server));
    let names: Vec<String> = servers.map(|server| server.name).collect();
    if names.is_empty() {
        return Err(Misuse::forbidden(
            "permission denied: the record is kept by the owners of its providers, and you own none",
            "Ask the owner of the foreign server, or a superuser.",
        ));
    }
    Ok(Some(names))
}

/// That a role acts for the owner of a provider or route.
pub fn must_own(name: &str, role: pg_sys::Oid) -> Result<(), Misuse> {
    let server = catalog::server(name).ok_or_else(|| no_such_provider(name))?;
    if owns(role, &server) {
        return Ok(());
    }
    Err(Misuse::forbidden(format!("must be owner of foreign server {}", shown(name)), "Ask its owner, or a superuser."))
}

fn owns(role: pg_sys::Oid, server: &catalog::Server) -> bool {
    // SAFETY: a look-up in the catalog; a superuser has the privileges of all.
    unsafe { pg_sys::has_privs_of_role(role, server.owner) }
}

/// Whether a role may have the server read a file.
pub fn may_read_files(role: pg_sys::Oid) -> bool {
    // The predefined role pg_read_server_files; its OID is fixed, its name in the headers is not.
    const PG_READ_SERVER_FILES: u32 = 4569;
    // SAFETY: a look-up in the catalog; a superuser has the privileges of all.
    unsafe { pg_sys::has_privs_of_role(role, pg_sys::Oid::from(PG_READ_SERVER_FILES)) }
}

/// That an option which names a file holds. Who owns the provider says where it points, and so is sent what the file
/// holds: it is read for them, whoever set it.
pub fn owner_must_read_files(server: &catalog::Server, option: &str) -> Result<(), Misuse> {
    if may_read_files(server.owner) {
        return Ok(());
    }
    let name = shown(&server.name);
    Err(Misuse::forbidden(
        format!(
            "option {option} does not hold: the owner of foreign server {name} may not have the server read a file"
        ),
        format!(
            "GRANT pg_read_server_files to the owner, or ALTER SERVER {name} OWNER TO a role that has it; or leave {option} out."
        ),
    ))
}
