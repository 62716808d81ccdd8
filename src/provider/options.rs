//! The options of a server and of a user mapping: their names, their rules, their defaults. Read alike when they are
//! written (the validator) and when they are used.

use std::{str::FromStr, time::Duration};

use policy::Micros;
use serde_json::{Map, Value};
use vendor::{Dialect, nearest};

use crate::misuse::Misuse;

/// What every server takes; a vendor may have more.
const SERVER_OPTIONS: &[&str] = &[
    "base_url",
    "timeout",
    "connect_timeout",
    "ca_file",
    "client_cert_file",
    "client_key_file",
    "max_in_flight",
    "defaults",
    "allow_plain_http",
    "code_lifetime",
    "max_checks",
];

/// Server options that name a file which the server reads.
pub const FILE_OPTIONS: &[&str] = &["ca_file", "client_cert_file", "client_key_file"];

/// A server's options with their defaults filled in.
pub struct ServerOptions {
    pub base_url: String,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub ca_file: Option<String>,
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
    pub max_in_flight: u32,
    pub defaults: Map<String, Value>,
    pub code_lifetime: Option<Duration>,
    pub max_checks: u32,
    pub token_url: Option<String>,
}

impl ServerOptions {
    pub fn parse(dialect: &Dialect, options: &[(String, String)]) -> Result<Self, Misuse> {
        let mut parsed = Self {
            base_url: dialect.base_url.unwrap_or_default().to_owned(),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            max_in_flight: 256,
            defaults: Map::new(),
            code_lifetime: dialect.code_lifetime,
            max_checks: dialect.max_checks,
            token_url: None,
        };
        let mut plain_http = false;
        for (name, value) in options {
            match name.as_str() {
                "base_url" => parsed.base_url.clone_from(value),
                "token_url" if dialect.server_options.contains(&"token_url") => parsed.token_url = Some(value.clone()),
                "timeout" => {
                    parsed.timeout = duration(name, value, Duration::from_millis(10), Duration::from_secs(600))?
                }
                "connect_timeout" => {
                    parsed.connect_timeout =
                        duration(name, value, Duration::from_millis(10), Duration::from_secs(600))?;
                }
                "ca_file" => parsed.ca_file = Some(path(name, value)?),
                "client_cert_file" => parsed.client_cert_file = Some(path(name, value)?),
                "client_key_file" => parsed.client_key_file = Some(path(name, value)?),
                "max_in_flight" => parsed.max_in_flight = number(name, value, 1, 10_000)?,
                "defaults" => parsed.defaults = defaults(dialect, value)?,
                "allow_plain_http" => plain_http = boolean(name, value)?,
                "code_lifetime" => {
                    parsed.code_lifetime =
                        Some(duration(name, value, Duration::from_secs(1), Duration::from_secs(7 * 86_400))?);
                }
                "max_checks" => parsed.max_checks = number(name, value, 1, 1000)?,
                _ => return Err(unknown_server_option(dialect, name)),
            }
        }
        if parsed.base_url.is_empty() {
            return Err(Misuse::invalid(
                format!("option base_url is required: {} runs on your own premises", dialect.name),
                "OPTIONS (base_url 'https://host:port').",
            ));
        }
        check_url("base_url", &parsed.base_url, plain_http)?;
        if let Some(token_url) = &parsed.token_url {
            check_url("token_url", token_url, plain_http)?;
        }
        if parsed.client_cert_file.is_some() != parsed.client_key_file.is_some() {
            return Err(Misuse::invalid(
                "options client_cert_file and client_key_file go together, and one of them is missing",
                "Give both, or neither.",
            ));
        }
        Ok(parsed)
    }
}

fn unknown_server_option(dialect: &Dialect, name: &str) -> Misuse {
    let credential = name.strip_suffix("_file").unwrap_or(name);
    if dialect.credential_sets.iter().any(|set| set.contains(&credential)) {
        return Misuse::invalid_option(
            format!("option \"{name}\" is a credential and does not belong on the server"),
            format!("Give it on the user mapping: CREATE USER MAPPING FOR PUBLIC SERVER ... OPTIONS ({name} '...')."),
        );
    }
    let valid: Vec<&str> = SERVER_OPTIONS.iter().chain(dialect.server_options).copied().collect();
    unknown_option("server", name, &valid)
}

/// An option that is not there, with the one that was probably meant and the list.
fn unknown_option(place: &str, name: &str, valid: &[&str]) -> Misuse {
    let meant = nearest(name, valid.iter().copied())
        .map_or_else(String::new, |nearest| format!("Perhaps you meant \"{nearest}\". "));
    Misuse::invalid_option(
        format!("a {place} of this kind has no option \"{name}\""),
        format!("{meant}Valid options: {}.", valid.join(", ")),
    )
}

/// Checks the options of a user mapping.
pub fn check_user_mapping(dialect: &Dialect, options: &[(String, String)]) -> Result<(), Misuse> {
    let mut given: Vec<&str> = Vec::new();
    for (option, value) in options {
        let name = option.strip_suffix("_file").unwrap_or(option);
        if SERVER_OPTIONS.contains(&option.as_str()) || dialect.server_options.contains(&option.as_str()) {
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

fn defaults(dialect: &Dialect, value: &str) -> Result<Map<String, Value>, Misuse> {
    let Ok(Value::Object(defaults)) = serde_json::from_str(value) else {
        return Err(Misuse::invalid(
            "option defaults is not a JSON object",
            r#"For example: defaults '{"template_id": "..."}'; its members are laid under every payload."#,
        ));
    };
    vendor::check_defaults(dialect, &defaults)
        .map_err(|invalid| Misuse::invalid(format!("option defaults: {}", invalid.message), invalid.hint))?;
    Ok(defaults)
}

/// https, unless plain HTTP is allowed; nothing that would send a credential along or elsewhere.
fn check_url(name: &str, value: &str, plain_http: bool) -> Result<(), Misuse> {
    let refuse = |what: &str, hint: &str| Err(Misuse::invalid(format!("option {name} {what}"), hint.to_owned()));
    let Some((scheme, rest)) = value.split_once("://") else {
        return refuse("is no URL", "For example: https://host.example:8443/path.");
    };
    match scheme.to_ascii_lowercase().as_str() {
        "https" => {}
        "http" if plain_http => {}
        "http" => {
            return refuse(
                "speaks plain HTTP, which shows numbers, codes and credentials to the network",
                "Use https; where there is none (a test installation), set allow_plain_http 'true'.",
            );
        }
        _ => return refuse("must begin with https://", "For example: https://host.example:8443/path."),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if authority.contains('@') {
        return refuse("must not hold a user name or password", "Credentials belong on the user mapping.");
    }
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return refuse("has no valid host and port", "For example: https://host.example:8443/path.");
    }
    if value.len() > 2048
        || rest.contains(['?', '#', '\\'])
        || value.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return refuse(
            "must be scheme, host, port and path alone",
            "Leave out the query, the fragment and white space; at most 2048 characters.",
        );
    }
    Ok(())
}

fn duration(name: &str, value: &str, least: Duration, most: Duration) -> Result<Duration, Misuse> {
    let text = value.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[split..].trim() {
        "ms" => Some(1u64),
        "s" | "sec" | "second" | "seconds" => Some(1_000),
        "min" | "minute" | "minutes" => Some(60_000),
        "h" | "hour" | "hours" => Some(3_600_000),
        "d" | "day" | "days" => Some(86_400_000),
        _ => None,
    };
    let parsed = unit
        .and_then(|unit| u64::from_str(&text[..split]).ok()?.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|duration| (least..=most).contains(duration));
    parsed.ok_or_else(|| {
        Misuse::invalid(
            format!("option {name} is not a duration within its bounds"),
            format!(
                "A whole number and one of ms, s, min, h, d: at least {} and at most {}.",
                shown(least),
                shown(most)
            ),
        )
    })
}

fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 86_400_000 == 0 => format!("{}d", millis / 86_400_000),
        millis if millis % 60_000 == 0 => format!("{}min", millis / 60_000),
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, Misuse> {
    value.trim().parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        Misuse::invalid(
            format!("option {name} is not a number within its bounds"),
            format!("A whole number from {least} to {most}."),
        )
    })
}

fn boolean(name: &str, value: &str) -> Result<bool, Misuse> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(Misuse::invalid(format!("option {name} is not a boolean"), "true or false.")),
    }
}

fn path(name: &str, value: &str) -> Result<String, Misuse> {
    if !value.starts_with('/') {
        return Err(Misuse::invalid(
            format!("option {name} is not an absolute path"),
            "The file is read by the server, on the server's machine.",
        ));
    }
    Ok(value.to_owned())
}

/// A duration as Postgres counts time.
pub fn micros(duration: Duration) -> Micros {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
