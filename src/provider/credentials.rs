//! The options of a user mapping: credentials, and nothing but credentials.

use std::{collections::BTreeMap, io::read_to_string};

use dialect::{Dialect, Secret, is_identifier, is_placeholder};

use crate::{
    error::Error,
    pg::{foreign_servers, roles::acting_owner, values::quoted},
    provider::{
        lookup::shown,
        option_file::{open, unreadable},
        option_value::placeholder,
        ownership::owner_must_read_files,
        server_options::{self, PROXY_CREDENTIALS, ServerOptions, unknown_option},
    },
};

/// Checks the options of a user mapping when it is written.
pub fn check_user_mapping(dialect: &Dialect, options: &[(String, String)]) -> Result<(), Error> {
    let sets = dialect.credential_sets();
    let mut given: Vec<&str> = Vec::new();
    for (option, value) in options {
        let name = option.strip_suffix("_file").unwrap_or(option);
        if server_options::of_server(dialect).any(|name| name == option) {
            return Err(Error::invalid_option_name(
                format!("option \"{option}\" belongs on the server, not on the user mapping"),
                "ALTER SERVER ... OPTIONS (ADD ...).",
            ));
        }
        // The credentials of a described vendor are named by the server's description, and no server is named here.
        let is_described = sets.is_empty() && is_identifier(name);
        let is_known = is_described || sets.iter().any(|set| set.contains(&name));
        if !is_known && !PROXY_CREDENTIALS.contains(&name) {
            let mut valid: Vec<&str> = sets.concat();
            valid.dedup();
            valid.extend(PROXY_CREDENTIALS);
            return Err(unknown_option("user mapping", option, &valid, true));
        }
        if value.is_empty() {
            return Err(Error::invalid_parameter(format!("option {option} is empty"), "Give its value."));
        }
        if is_placeholder(value) {
            let how = match name == option {
                true => format!("; one that does look so goes into a file, which {option}_file names"),
                false => String::new(),
            };
            return Err(placeholder(option, &how));
        }
        if name == option {
            check_sendable(dialect, name, value, &format!("option {option}"), Error::invalid_parameter)?;
        }
        if given.contains(&name) {
            return Err(Error::invalid_parameter(
                format!("{name} is given twice, as {name} and as {name}_file"),
                "Give one of them.",
            ));
        }
        given.push(name);
    }
    proxy_credentials(&given)?;
    if sets.is_empty() {
        return Ok(());
    }
    credential_set(dialect, &given).map_err(|wanted| {
        Error::invalid_parameter(
            "the credentials are not complete, or of more than one kind",
            format!("Exactly one of these sets is needed, each name also as <name>_file: {wanted}."),
        )
    })
}

/// Fails if a credential cannot stand at the place where it is sent.
pub fn check_sendable(
    dialect: &Dialect,
    name: &str,
    value: &str,
    what: &str,
    kind: fn(String, String) -> Error,
) -> Result<(), Error> {
    if !dialect.can_send(name, value) {
        return Err(kind(
            format!("{what} holds what cannot stand in an HTTP header, where this vendor takes it"),
            "Visible ASCII characters alone: no line break, no tab, no space at either end.".to_owned(),
        ));
    }
    // A colon would end the user in `Basic` (RFC 7617).
    let is_proxys = PROXY_CREDENTIALS.contains(&name);
    if is_proxys && (value.chars().any(char::is_control) || name == PROXY_CREDENTIALS[0] && value.contains(':')) {
        return Err(kind(
            format!("{what} holds what cannot be sent to a proxy"),
            "No control characters, and no colon in proxy_user.".to_owned(),
        ));
    }
    Ok(())
}

/// Fails if only one of a proxy's two credentials is given.
pub fn proxy_credentials(given: &[&str]) -> Result<(), Error> {
    let [user, password] = PROXY_CREDENTIALS.map(|name| given.contains(&name));
    if user == password {
        return Ok(());
    }
    Err(Error::invalid_parameter(
        "proxy_user and proxy_password go together, and one of them is missing",
        "Give both on the user mapping, each also as <name>_file, or neither.",
    ))
}

/// Checks that exactly one of the vendor's sets of credentials is given, whole; the error is the list of the sets.
pub fn credential_set(dialect: &Dialect, given: &[&str]) -> Result<(), String> {
    let given: Vec<&&str> = given.iter().filter(|name| !PROXY_CREDENTIALS.contains(name)).collect();
    let is_one = |set: &&Vec<&str>| set.len() == given.len() && set.iter().all(|name| given.contains(&name));
    let sets = dialect.credential_sets();
    match sets.iter().find(is_one) {
        Some(_) => Ok(()),
        None => Err(sets
            .iter()
            .map(|set| if set.is_empty() { "none".to_owned() } else { set.join(" and ") })
            .collect::<Vec<_>>()
            .join("; or ")),
    }
}

/// Returns the credentials; the file of each `<name>_file` is read now.
pub fn credentials(
    dialect: &Dialect,
    server: &foreign_servers::Server,
    options: &ServerOptions,
    mapping: Option<Vec<(String, String)>>,
) -> Result<BTreeMap<String, Secret>, Error> {
    let mut credentials = BTreeMap::new();
    for (option, value) in mapping.unwrap_or_default() {
        let (name, value, what) = match option.strip_suffix("_file") {
            None => (option.as_str(), Secret::new(value), format!("user mapping option {option}")),
            Some(name) => {
                owner_must_read_files(server, &option)?;
                (name, read_credential(&option, &value)?, format!("the file of user mapping option {option}"))
            }
        };
        // The value may have been written past the validator, by an older version, or into a file.
        check_sendable(dialect, name, value.reveal(), &what, Error::not_in_prerequisite_state)?;
        credentials.insert(name.to_owned(), value);
    }
    let given: Vec<&str> = credentials.keys().map(String::as_str).collect();
    credential_set(dialect, &given).map_err(|_| no_credentials(dialect, &server.name))?;
    let server = quoted(&shown(&server.name));
    proxy_credentials(&given)?;
    if options.proxy.is_none() && given.contains(&PROXY_CREDENTIALS[0]) {
        return Err(Error::invalid_parameter(
            "the user mapping has proxy_user and proxy_password, and the server has no option proxy",
            format!("ALTER SERVER {server} OPTIONS (ADD proxy 'http://host:port')."),
        ));
    }
    if credentials.contains_key("client_id")
        && dialect.server_options.iter().any(|option| option.name == "token_url")
        && options.token_url().is_none()
    {
        return Err(Error::invalid_parameter(
            "the user mapping has client_id and client_secret, and the server has no option token_url",
            format!("ALTER SERVER {server} OPTIONS (ADD token_url 'https://...')."),
        ));
    }
    Ok(credentials)
}

/// The error of missing credentials; its hint is the statement that makes them, without the values.
fn no_credentials(dialect: &Dialect, server: &str) -> Error {
    let server = shown(server);
    let options = |set: &[&str]| {
        let listed: Vec<String> = set.iter().map(|name| format!("{name} '...'")).collect();
        format!("({})", listed.join(", "))
    };
    let sets: Vec<String> = dialect.credential_sets().iter().map(|set| options(set)).collect();
    Error::undefined_object(
        format!("no user mapping with credentials for server {server} and this role"),
        format!(
            "CREATE USER MAPPING FOR PUBLIC SERVER {} OPTIONS {}; or for your role in place of PUBLIC. Each also as \
             <name>_file, the path of a file that holds it.{}",
            quoted(&server),
            sets.join("; or OPTIONS "),
            acting_owner()
        ),
    )
}

pub fn read_credential(option: &str, path: &str) -> Result<Secret, Error> {
    let text = open(path)
        .and_then(read_to_string)
        .map_err(|error| unreadable(&format!("user mapping option {option}"), &error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Error::not_in_prerequisite_state(
            format!("the file of user mapping option {option} is empty"),
            "It holds the credential, in one line.",
        ));
    }
    Ok(Secret::new(text))
}
