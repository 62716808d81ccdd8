//! Reads the text of one option. An error says what is wrong with it and what to write instead.

use std::{str::FromStr, time::Duration};

use dialect::is_placeholder;
use policy::{Micros, ParseError};
use url::Url;

use crate::{error::Error, pg::settings};

/// Fails if a known option still holds a placeholder of a document; in an option that is a list, at any place of it.
pub fn refuse_placeholders(
    options: &[(String, String)],
    known: impl Iterator<Item = &'static str>,
) -> Result<(), Error> {
    let known: Vec<&str> = known.collect();
    let is_left = |value: &str| is_placeholder(value) || value.split(',').any(is_placeholder);
    let found = options.iter().find(|(name, value)| known.contains(&name.as_str()) && is_left(value));
    found.map_or(Ok(()), |(name, _)| Err(placeholder(name, "")))
}

/// The error of a placeholder; `how` ends its hint.
pub fn placeholder(option: &str, how: &str) -> Error {
    Error::invalid_parameter(
        format!("option {option} is a placeholder, not a value"),
        format!("Put the value itself in its place{how}."),
    )
}

/// Checks a URL: https, unless plain HTTP is allowed, and nothing that would send a credential along or elsewhere. It
/// is read by the parser of the HTTP client, so that the checked URL is the called one.
pub fn check_url(name: &str, value: &str, plain_http: bool) -> Result<Url, Error> {
    let refuse =
        |what: &str, hint: &str| Err(Error::invalid_parameter(format!("option {name} {what}"), hint.to_owned()));
    let example = "For example: https://host.example:8443/path.";
    let Some((scheme, rest)) = value.split_once("://") else { return refuse("is no URL", example) };
    match scheme.to_ascii_lowercase().as_str() {
        "https" => {}
        "http" if plain_http => {}
        "http" => {
            return refuse(
                "speaks plain HTTP, which shows numbers, codes and credentials to the network",
                "Use https; where there is none (a test installation), set allow_plain_http 'true'.",
            );
        }
        _ => return refuse("must begin with https://", example),
    }
    // If the host is missing, the parser would take the first word of the path for it.
    let parsed = Url::parse(value).ok().filter(|_| !rest.starts_with(['/', '@', '\\']));
    let Some(url) = parsed else { return refuse("has no valid host and port", example) };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not hold a user name or password", "Credentials belong on the user mapping.");
    }
    // The parser mends white space and backslashes, and would call another URL than the written one.
    let is_mended = value.contains('\\') || value.chars().any(|c| c.is_whitespace() || c.is_control());
    if value.len() > 2048 || url.query().is_some() || url.fragment().is_some() || is_mended {
        return refuse(
            "must be scheme, host, port and path alone",
            "Leave out the query, the fragment and white space; at most 2048 characters.",
        );
    }
    Ok(url)
}

/// Checks a proxy's URL: scheme, host and port. Plain HTTP to a proxy is usual: a call to an https host goes through a
/// tunnel.
pub fn proxy_url(name: &str, value: &str) -> Result<String, Error> {
    let example = "For example: http://proxy.example:3128; a user name and a password belong on the user mapping.";
    let scheme = value.split("://").next().unwrap_or_default().to_ascii_lowercase();
    if value.contains("://") && !matches!(scheme.as_str(), "http" | "https") {
        return Err(Error::invalid_parameter(
            format!("option {name} is neither an http:// nor an https:// proxy"),
            example,
        ));
    }
    if check_url(name, value, true)?.path() != "/" {
        return Err(Error::invalid_parameter(format!("option {name} must be scheme, host and port alone"), example));
    }
    Ok(value.to_owned())
}

/// Reads a duration as Postgres reads its own settings, but with a unit: a number alone is milliseconds to Postgres,
/// and seconds to most people.
pub fn duration(name: &str, value: &str, least: Duration, most: Duration) -> Result<Duration, Error> {
    let text = value.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    // Up to 0.4.0 these words were accepted, too: servers and dumps have them.
    let unit = match &text[number.len()..] {
        "sec" | "second" | "seconds" => "s",
        "minute" | "minutes" => "min",
        "hour" | "hours" => "h",
        "day" | "days" => "d",
        unit => unit,
    };
    let millis = if unit.is_empty() { None } else { settings::milliseconds(&format!("{number}{unit}")) };
    let parsed = millis.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
    parsed.filter(|duration| (least..=most).contains(duration)).ok_or_else(|| {
        Error::invalid_parameter(
            format!("option {name} is not a duration within its bounds"),
            format!(
                "A number and one of ms, s, min, h, d, as in 10s: at least {} and at most {}.",
                shown(least),
                shown(most)
            ),
        )
    })
}

/// Returns the text that [`duration`] reads as this duration.
pub fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        millis if millis % 86_400_000 == 0 => format!("{}d", millis / 86_400_000),
        millis if millis % 3_600_000 == 0 => format!("{}h", millis / 3_600_000),
        millis if millis % 60_000 == 0 => format!("{}min", millis / 60_000),
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

pub fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, Error> {
    value.trim().parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        Error::invalid_parameter(
            format!("option {name} is not a number within its bounds"),
            format!("A whole number from {least} to {most}."),
        )
    })
}

/// Reads a boolean as Postgres reads its own settings.
pub fn boolean(name: &str, value: &str) -> Result<bool, Error> {
    settings::boolean(value)
        .ok_or_else(|| Error::invalid_parameter(format!("option {name} is not a boolean"), "true or false."))
}

pub fn path(name: &str, value: &str) -> Result<String, Error> {
    if !value.starts_with('/') {
        return Err(Error::invalid_parameter(
            format!("option {name} is not an absolute path"),
            "The file is read by the server, on the server's machine.",
        ));
    }
    Ok(value.to_owned())
}

/// Reads an option whose form the crate policy knows.
pub fn policy<T: FromStr<Err = ParseError>>(name: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|malformed: ParseError| {
        Error::invalid_parameter(format!("option {name}: {}", malformed.message), malformed.hint)
    })
}

/// Returns a duration in microseconds, as Postgres counts time.
pub fn micros(duration: Duration) -> Micros {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
