use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::parse_error::ParseError;

/// A million numbers that differ in their last six digits, `+918144`: in most countries a part of one operator's
/// series. It names no person.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NumberRange(String);

impl NumberRange {
    /// How many digits at the end of a number do not belong to its range.
    pub const HIDDEN: usize = 6;

    /// Returns the range of a number in its one spelling, `+918144094480`; None if it is no number.
    pub fn of(recipient: &str) -> Option<Self> {
        let digits = recipient.strip_prefix('+').filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?;
        let shown = digits.len().checked_sub(Self::HIDDEN).filter(|shown| *shown > 0)?;
        Some(Self(format!("+{}", &digits[..shown])))
    }

    /// Reads a range as a person writes it: with or without what stands for the six digits. Returns None if it is no
    /// range.
    pub fn read(typed: &str) -> Option<Self> {
        let range = typed.trim().trim_end_matches(['*', 'x', 'X', '.', '…', ' ']);
        let digits = range.strip_prefix('+')?;
        // More digits would be a number.
        let is_range = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_range.then(|| Self(range.to_owned()))
    }

    /// Returns the text `+918144`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NumberRange {
    /// Writes `+918144******`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, "*".repeat(Self::HIDDEN))
    }
}

/// The share of codes that are typed in, below which sends to a range are held back: from 1% to 30%.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinConversion(u8);

impl Default for MinConversion {
    /// Returns the share that is watched for where no provider's option says another one.
    fn default() -> Self {
        Self(10)
    }
}

impl MinConversion {
    /// Returns whether `converted` of `sends` are less than this share, `times` over.
    pub(crate) fn exceeds(self, times: u32, converted: u32, sends: u32) -> bool {
        u64::from(converted) * 100 < u64::from(self.0) * u64::from(times) * u64::from(sends)
    }

    pub fn of_percent(percent: u8) -> Option<Self> {
        (1..=30).contains(&percent).then_some(Self(percent))
    }

    pub fn percent(self) -> u8 {
        self.0
    }
}

impl FromStr for MinConversion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let percent = text.trim().strip_suffix('%').map(str::trim_end).filter(|digits| digits.len() <= 2);
        let digits = percent.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let share = digits.and_then(|digits| digits.parse().ok()).and_then(Self::of_percent);
        share.ok_or_else(|| ParseError::new("not a share from 1% to 30%", "For example: '10%'."))
    }
}

impl fmt::Display for MinConversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}
