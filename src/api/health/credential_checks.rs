//! The checks of what providers call with: credentials, the files that hold them, certificates. A role sees those of
//! the providers that it owns, members of pg_monitor all. The files are looked at now, so that what has become
//! unreadable is known before somebody signs up.

use pgrx::pg_sys;
use policy::Micros;

use crate::{
    api::{
        health::{HealthCheck, Level, seconds},
        statistics::seen,
    },
    error::Error,
    pg::{
        clock::{at_unix_seconds, clock},
        foreign_servers::{self, Server, options_of_mapping},
        roles::{current_user, has_privileges_of},
    },
    provider::{
        credentials::credentials as read_credentials,
        description,
        lookup::dialect_of,
        option_file::{self, unreadable},
        ownership::owner_must_read_files,
        server_options::{FILE_OPTIONS, ServerOptions},
    },
};

const DAY: Micros = 86_400_000_000;

/// Returns the providers that the role may be told of, by name.
fn providers(sees_all: bool) -> Vec<Server> {
    let mut servers = foreign_servers::servers();
    servers.retain(|server| sees_all || has_privileges_of(current_user(), server.owner));
    servers.retain(|server| dialect_of(&foreign_servers::wrapper_name(server.wrapper)).is_some());
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}

/// Returns a row for each provider that lacks a file or a credential, or one row that says that all is well.
pub fn credentials(sees_all: bool) -> Vec<HealthCheck> {
    const NAME: &str = "credentials";
    let mappings = foreign_servers::user_mappings();
    let row = |server: &Server| {
        let faults = faults(server, mappings.iter().filter(|(of, _)| *of == server.oid).map(|(_, mapping)| *mapping));
        let first = faults.first()?;
        let more = match faults.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more such faults)"),
        };
        let detail = format!("{}: {}{more}", server.name, first.message());
        Some(HealthCheck::bad(NAME, Level::Critical, detail, first.hint()).valued(faults.len() as f64))
    };
    let failing: Vec<HealthCheck> = providers(sees_all).iter().filter_map(row).collect();
    if failing.is_empty() {
        let whose = if sees_all { "the providers" } else { "those providers that this role owns" };
        return vec![HealthCheck::ok(NAME, format!("the files that {whose} need can be read"))];
    }
    failing
}

/// Returns what stands in the way of calls with any of these user mappings, as far as the server's files tell.
fn faults(server: &Server, mappings: impl Iterator<Item = pg_sys::Oid>) -> Vec<Error> {
    let read = description::of_server(server)
        .and_then(|dialect| Ok((ServerOptions::read(&dialect, &server.options)?, dialect)));
    let (options, dialect) = match read {
        Ok(read) => read,
        Err(error) => return vec![error],
    };
    let files = server.options.iter().filter(|(option, _)| FILE_OPTIONS.contains(&option.as_str()));
    let of_server = files.map(|(option, path)| {
        owner_must_read_files(server, option)?;
        option_file::open(path).map(drop).map_err(|error| unreadable(&format!("option {option}"), &error))
    });
    let of_mappings = mappings
        .map(|mapping| read_credentials(&dialect, server, &options, Some(options_of_mapping(mapping))).map(drop));
    of_server.chain(of_mappings).filter_map(Result::err).collect()
}

/// Returns a row for each certificate that ends soon, or one for all that the role sees: those that the vendors' hosts
/// have shown in calls since the server started, and our own, in the files of client_cert_file.
pub fn certificates(sees_all: bool) -> Vec<HealthCheck> {
    const NAME: &str = "certificate";
    const OF_HOST: &str =
        "Ask the vendor: who renews it, and when. A new one is seen by the next call over a new connection.";
    let now = clock();
    let seen = seen().into_iter().filter_map(|(server, numbers)| {
        Some((format!("the certificate of {}'s host", server.name), OF_HOST, numbers.certificate_ends_at?))
    });
    let own = providers(sees_all).into_iter().filter_map(|server| {
        let (option, path) = server.options.iter().find(|(option, _)| option == "client_cert_file")?;
        owner_must_read_files(&server, option).ok()?;
        let ends = at_unix_seconds(option_file::certificate_end(path)?);
        Some((format!("the client certificate of {}", server.name), option_file::RENEW, ends))
    });
    let left: Vec<(String, &str, Micros)> =
        seen.chain(own).map(|(of, hint, ends)| (of, hint, ends.since(now))).collect();
    let bad = |(of, hint, left): &(String, &str, Micros)| {
        let (level, what) = match *left {
            left if left <= 0 => (Level::Critical, "has ended: no call gets through".to_owned()),
            left if left < 2 * DAY => (Level::Critical, format!("ends in {} hours", left / (DAY / 24))),
            left if left < 14 * DAY => (Level::Warning, format!("ends in {} days", left / DAY)),
            _ => return None,
        };
        Some(HealthCheck::bad(NAME, level, format!("{of} {what}"), *hint).valued(seconds(*left)))
    };
    let ending: Vec<HealthCheck> = left.iter().filter_map(bad).collect();
    if !ending.is_empty() {
        return ending;
    }
    vec![match left.iter().map(|(.., left)| *left).min() {
        Some(nearest) => {
            HealthCheck::ok(NAME, format!("none of {} ends within 14 days", left.len())).valued(seconds(nearest))
        }
        None => HealthCheck::ok(NAME, "none was seen yet"),
    }]
}
