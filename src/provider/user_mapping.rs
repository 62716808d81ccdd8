//! The options of a user mapping: credentials, and nothing but credentials.

use vendor::Dialect;

use super::options::{self, unknown_option};
use crate::misuse::Misuse;

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
        if !dialect.credential_sets.iter().any(|set| set.contains(&name)) {
            let mut valid: Vec<&str> = dialect.credential_sets.concat();
            valid.dedup();
            return Err(unknown_option("user mapping", option, &valid));
        }
        if value.is_empty() {
            return Err(Misuse::invalid(format!("option {option} is empty"), "Give its value."));
        }
        if name == option && !dialect.can_send(name, value) {
            return Err(unsendable(&format!("option {option}"), Misuse::invalid));
        }
        if given.contains(&name) {
            return Err(Misuse::invalid(
                format!("{name} is given twice, as {name} and as {name}_file"),
                "Give one of them.",
            ));
        }
        given.push(name);
    }
    credential_set(dialect, &given).map_err(|wanted| {
        Misuse::invalid(
            "the credentials are not complete, or of more than one kind",
            format!("Exactly one of these sets is needed, each name also as <name>_file: {wanted}."),
        )
    })
}

/// An error about a credential that no HTTP header can hold.
pub fn unsendable(what: &str, kind: fn(String, String) -> Misuse) -> Misuse {
    kind(
        format!("{what} holds what cannot stand in an HTTP header, where this vendor takes it"),
        "Visible ASCII characters alone: no line break, no tab, no space at either end.".to_owned(),
    )
}

/// Whether exactly one of the vendor's sets of credentials is given, whole; the error is the list of the sets.
pub fn credential_set(dialect: &Dialect, given: &[&str]) -> Result<(), String> {
    let is_one = |set: &&&[&str]| set.len() == given.len() && set.iter().all(|name| given.contains(name));
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
