//! The options of a user mapping: credentials, and nothing but credentials.

use vendor::Dialect;

use super::options::{self, unknown_option};
use crate::misuse::Misuse;

/// What a proxy wants, whatever the vendor: both or neither.
pub const PROXY_CREDENTIALS: [&str; 2] = ["proxy_user", "proxy_password"];

/// Checks the options of a user mapping.
pub fn check_user_mapping(dialect: &Dialect, options: &[(String, String)]) -> Result<(), Misuse> {
    let mut given: Vec<&str> = Vec::new();
    for (option, value) in options {
        let name = option.strip_suffix("_file").unwrap_or(option);
        if options::of_server(dialect).any(|name| name == option) {
            return Err(Misuse::invalid_option(
                format!("option \"{option}\" belongs on the server, not on the user mapping"),
                "ALTER SERVER ... OPTIONS (ADD ...).",
            ));
        }
        if !dialect.credential_sets.iter().any(|set| set.contains(&name)) && !PROXY_CREDENTIALS.contains(&name) {
            let mut valid: Vec<&str> = dialect.credential_sets.concat();
            valid.dedup();
            valid.extend(PROXY_CREDENTIALS);
            return Err(unknown_option("user mapping", option, &valid));
        }
        if value.is_empty() {
            return Err(Misuse::invalid(format!("option {option} is empty"), "Give its value."));
        }
        if name == option {
            check_sendable(dialect, name, value, &format!("option {option}"), Misuse::invalid)?;
        }
        if given.contains(&name) {
            return Err(Misuse::invalid(
                format!("{name} is given twice, as {name} and as {name}_file"),
                "Give one of them.",
            ));
        }
        given.push(name);
    }
    proxy_credentials(&given)?;
    credential_set(dialect, &given).map_err(|wanted| {
        Misuse::invalid(
            "the credentials are not complete, or of more than one kind",
            format!("Exactly one of these sets is needed, each name also as <name>_file: {wanted}."),
        )
    })
}

/// Whether a credential can stand where it is sent.
pub fn check_sendable(
    dialect: &Dialect,
    name: &str,
    value: &str,
    what: &str,
    kind: fn(String, String) -> Misuse,
) -> Result<(), Misuse> {
    if !dialect.can_send(name, value) {
        return Err(kind(
            format!("{what} holds what cannot stand in an HTTP header, where this vendor takes it"),
            "Visible ASCII characters alone: no line break, no tab, no space at either end.".to_owned(),
        ));
    }
    // A colon ends the user in `Basic` (RFC 7617).
    let is_proxys = PROXY_CREDENTIALS.contains(&name);
    if is_proxys && (value.chars().any(char::is_control) || name == PROXY_CREDENTIALS[0] && value.contains(':')) {
        return Err(kind(
            format!("{what} holds what cannot be sent to a proxy"),
            "No control characters, and no colon in proxy_user.".to_owned(),
        ));
    }
    Ok(())
}

/// A proxy's credentials go together.
pub fn proxy_credentials(given: &[&str]) -> Result<(), Misuse> {
    let [user, password] = PROXY_CREDENTIALS.map(|name| given.contains(&name));
    if user == password {
        return Ok(());
    }
    Err(Misuse::invalid(
        "proxy_user and proxy_password go together, and one of them is missing",
        "Give both on the user mapping, each also as <name>_file, or neither.",
    ))
}

/// Whether exactly one of the vendor's sets of credentials is given, whole; the error is the list of the sets.
pub fn credential_set(dialect: &Dialect, given: &[&str]) -> Result<(), String> {
    let given: Vec<&&str> = given.iter().filter(|name| !PROXY_CREDENTIALS.contains(name)).collect();
    let is_one = |set: &&&[&str]| set.len() == given.len() && set.iter().all(|name| given.contains(&name));
    match dialect.credential_sets.iter().find(is_one) {
        Some(_) => Ok(()),
        None => Err(dialect
            .credential_sets
            .iter()
            .map(|set| if set.is_empty() { "none".to_owned() } else { set.join(" and ") })
            .collect::<Vec<_>>()
            .join("; or ")),
    }
}
