use std::fmt;
use std::str::FromStr;

use crate::parse_error::ParseError;

const HINT: &str = "For example: '+91, +94'; for e-mail addresses '@example.org', or '@' for all.";

/// The beginnings of the numbers, and the domains of the e-mail addresses, that may be sent to, in the order given,
/// each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPrefixes(Vec<String>);

impl AllowedPrefixes {
    /// Returns whether this recipient may be sent to: a number in its one spelling, `+94771234567`, or an address, its
    /// domain in lower case. An address needs an entry of its own: who lists countries has not thought of addresses.
    pub fn allows(&self, recipient: &str) -> bool {
        self.0.iter().any(|entry| match recipient.rfind('@') {
            Some(at) => entry == "@" || recipient[at..] == **entry,
            None => recipient.starts_with(entry.as_str()),
        })
    }
}

impl FromStr for AllowedPrefixes {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut entries: Vec<String> = Vec::new();
        for (index, typed) in text.split(',').enumerate() {
            let entry = typed.trim().to_ascii_lowercase();
            if !is_prefix(&entry) && !is_domain(&entry) {
                let what = "is neither '+' and 1 to 15 digits nor '@' and a domain";
                return Err(ParseError::new(format!("prefix {} {what}", index + 1), HINT));
            }
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        Ok(Self(entries))
    }
}

fn is_prefix(entry: &str) -> bool {
    let digits = entry.strip_prefix('+').unwrap_or_default();
    (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether an entry is `@` and a domain of two labels or more, or `@` alone, for every address.
fn is_domain(entry: &str) -> bool {
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    entry == "@"
        || entry
            .strip_prefix('@')
            .is_some_and(|domain| domain.len() <= 253 && domain.contains('.') && domain.split('.').all(is_label))
}

impl fmt::Display for AllowedPrefixes {
    /// Writes the canonical text: `+91, +94, @example.org`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
