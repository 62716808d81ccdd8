//! Finds the foreign server that a name stands for, and words the errors if there is none.

use dialect::{Dialect, nearest};
use pgrx::pg_sys;
use policy::Micros;

use crate::{
    error::Error,
    pg::{
        foreign_servers::{self, Server, may_use},
        roles::{acting_owner, current_user},
        values::quoted,
    },
};

/// Fails if a role has no USAGE on a server.
pub fn check_usage(server: &Server, role: pg_sys::Oid) -> Result<(), Error> {
    if may_use(role, server.oid) { Ok(()) } else { Err(no_usage(&server.name)) }
}

/// Returns the foreign server of that name, or the error that there is none.
pub fn named(name: &str) -> Result<Server, Error> {
    foreign_servers::server(name).ok_or_else(|| no_such_provider(name))
}

pub fn no_such_provider(name: &str) -> Error {
    let usable: Vec<String> = foreign_servers::servers()
        .into_iter()
        .filter(|server| foreign_servers::wrapper_name(server.wrapper).starts_with("otp_"))
        .filter(|server| may_use(current_user(), server.oid))
        .map(|server| server.name)
        .collect();
    let hint = match nearest(name, usable.iter().map(String::as_str)) {
        Some(meant) => format!("Perhaps you meant \"{}\".", shown(meant)),
        None => format!(
            "A provider is a foreign server of one of {}: CREATE SERVER ... FOREIGN DATA WRAPPER ... OPTIONS (...); \
             \\des in psql lists them.",
            wrappers()
        ),
    };
    Error::undefined_object(format!("provider \"{}\" does not exist", shown(name)), hint)
        .logged_as("provider \"%s\" does not exist")
}

pub fn not_a_provider(name: &str, wrapper: &str) -> Error {
    Error::undefined_object(
        format!("foreign server \"{}\" is not a provider: its foreign data wrapper is {wrapper}", shown(name)),
        format!("Use a server of one of {}.", wrappers()),
    )
}

pub fn no_usage(name: &str) -> Error {
    Error::insufficient_privilege(
        format!("permission denied for foreign server {}", shown(name)),
        format!(
            "Ask its owner for GRANT USAGE ON FOREIGN SERVER {} TO your role.{}",
            quoted(&shown(name)),
            acting_owner()
        ),
    )
}

/// Returns the vendor that a foreign data wrapper of ours stands for.
pub fn dialect_of(wrapper: &str) -> Option<&'static Dialect> {
    wrapper.strip_prefix("otp_").and_then(dialect::by_name)
}

/// Returns a name as an error may show it.
pub fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(63).collect()
}

/// Returns the names of all our foreign data wrappers, for a hint.
pub fn wrappers() -> String {
    dialect::DIALECTS.iter().map(|dialect| format!("otp_{}", dialect.name)).collect::<Vec<_>>().join(", ")
}

/// The vendor on record of a verification that is queued for a route.
pub const VENDOR_NOT_CHOSEN: &str = "route";

pub const MAX_CHECK_WINDOW: Micros = 3_600_000_000;
