use std::fmt;
use std::str::FromStr;

use crate::parse_error::ParseError;

const HINT: &str = "For example: '+91, +94'.";

/// The beginnings of the numbers that may be sent to, in the order given, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPrefixes(Vec<String>);

impl AllowedPrefixes {
    /// Whether this recipient (a number in its one spelling, `+94771234567`) may be sent to. One that is no number,
    /// such as a user's id, has no prefix and is allowed.
    pub fn allows(&self, recipient: &str) -> bool {
        !recipient.starts_with('+') || self.0.iter().any(|prefix| recipient.starts_with(prefix.as_str()))
    }
}

impl FromStr for AllowedPrefixes {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut prefixes: Vec<String> = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            let prefix = entry.trim();
            let digits = prefix.strip_prefix('+').unwrap_or_default();
            if !(1..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ParseError::new(format!("prefix {} is not '+' and 1 to 15 digits", index + 1), HINT));
            }
            if !prefixes.iter().any(|known| known == prefix) {
                prefixes.push(prefix.to_owned());
            }
        }
        Ok(Self(prefixes))
    }
}

impl fmt::Display for AllowedPrefixes {
    /// The canonical text: `+91, +94`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
