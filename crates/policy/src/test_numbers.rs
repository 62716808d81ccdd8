use std::collections::BTreeMap;
use std::str::FromStr;

use dialect::Secret;

use crate::parse_error::ParseError;

const HINT: &str = "For example: '+919999900001=123456, +94770000001=0000'.";

/// The numbers that never reach a vendor, each with the one code that it takes. There is no `Display`, and `Debug`
/// shows no codes: whoever has a code passes the verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestNumbers(BTreeMap<String, Secret>);

impl TestNumbers {
    pub const MOST: usize = 100;

    /// Returns the code that this recipient takes (a number in its one spelling, `+94771234567`); None if it is no test
    /// number.
    pub fn code_of(&self, recipient: &str) -> Option<&str> {
        self.0.get(recipient).map(Secret::reveal)
    }

    /// Returns the numbers as anybody may see them: `+919999900001=***`.
    pub fn masked(&self) -> String {
        self.0.keys().map(|number| format!("{number}=***")).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for TestNumbers {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut codes = BTreeMap::new();
        for (index, entry) in text.split(',').enumerate() {
            // The error names the entry by its place alone: a code may have slipped into any part of the entry.
            let refuse = |what: &str| Err(ParseError::new(format!("test number {} {what}", index + 1), HINT));
            if index == Self::MOST {
                return refuse("is one too many: at most 100 are taken");
            }
            let Some((recipient, code)) = entry.split_once('=') else {
                return refuse("is not of the form '<number>=<code>'");
            };
            let (recipient, code) = (recipient.trim(), code.trim());
            let digits = recipient.strip_prefix('+').unwrap_or_default();
            if !(8..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return refuse("does not begin with '+' and 8 to 15 digits");
            }
            if !(1..=64).contains(&code.len()) || !code.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=') {
                return refuse("has a code that is not 1 to 64 printable ASCII characters without ' ', ',' and '='");
            }
            if codes.insert(recipient.to_owned(), Secret::new(code)).is_some() {
                return refuse("is the same number as one before it");
            }
        }
        Ok(Self(codes))
    }
}
