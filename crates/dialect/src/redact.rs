//! Removes from a vendor's answer what must not be kept: the secrets of the call, and the members that the vendor's
//! page calls sensitive.

mod aadhaar;
mod text_view;

use std::ops::Range;

use serde_json::Value;

pub(crate) use crate::redact::text_view::{ascii, is_invisible};
use crate::redact::{
    aadhaar::is_aadhaar,
    text_view::{Folded, View, views},
};
use crate::{dialect::Dialect, payload::phone_number::NumberingPlan, response::CallResult, secret::Secret};

/// The text that is put in place of a secret.
const REDACTED: &str = "[redacted]";
/// Deeper arrays and objects are redacted whole; [`crate::response::interpret`] keeps no answer that is deeper.
const MAX_DEPTH: usize = crate::response::MAX_RESPONSE_DEPTH;
/// Shortest secret that is searched for. A shorter one would blot out half of every answer, and no vendor makes so
/// short a code.
const MIN_SECRET: usize = 4;
/// Shortest number, in digits, that is also found with other signs between the digits: `123-456`.
const MIN_SPACED: usize = 6;
/// A secret of this length, in bytes, does not stand in an id, or in a longer number, by chance.
const MIN_NUMBER: usize = 9;

impl CallResult {
    /// Returns the result as it may be told, and its answer as it may be put on record. What a vendor repeats of the
    /// call's secrets stays in `response` alone, which goes to whoever sent them; a reference that holds one is
    /// dropped.
    pub fn redacted(mut self, dialect: &Dialect, secrets: &[Secret]) -> (Self, Option<Value>) {
        let needles = Needles::new(secrets);
        for text in [&mut self.vendor_code, &mut self.vendor_message].into_iter().flatten() {
            if let Some(clean) = needles.clean(text) {
                *text = clean;
            }
        }
        self.reference = self.reference.filter(|reference| !needles.stand_in(reference));
        let mut record = self.response.clone();
        if let Some(record) = &mut record {
            walk(dialect, &needles, record, 0);
        }
        (self, record)
    }
}

/// Removes from an answer what must not be stored: the vendor's sensitive members, this call's secrets, and whatever
/// looks like an Aadhaar number. Opaque ids, which the application needs unaltered, stay.
pub fn redact(dialect: &Dialect, secrets: &[Secret], value: &mut Value) {
    walk(dialect, &Needles::new(secrets), value, 0);
}

/// Removes this call's secrets, and whatever looks like an Aadhaar number, from a message.
pub fn redact_text(secrets: &[Secret], text: &str) -> String {
    Needles::new(secrets).clean(text).unwrap_or_else(|| text.into())
}

fn walk(dialect: &Dialect, needles: &Needles, value: &mut Value, depth: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => *value = REDACTED.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| walk(dialect, needles, item, depth + 1)),
        Value::Object(members) => {
            let old = std::mem::take(members);
            for (key, mut member) in old {
                if names(dialect.sensitive(), &key) {
                    continue;
                }
                let is_named = dialect.opaque().any(|name| name.eq_ignore_ascii_case(&key));
                let opaque = is_named && member.as_str().is_some_and(|id| needles.is_opaque(id));
                if !opaque {
                    walk(dialect, needles, &mut member, depth + 1);
                }
                members.insert(needles.clean(&key).unwrap_or(key), member);
            }
        }
        Value::String(text) => {
            if let Some(clean) = needles.clean(text) {
                *text = clean;
            }
        }
        Value::Number(number) => {
            if needles.is_number(&number.to_string()) {
                *value = REDACTED.into();
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Returns whether a key is one of the members, in any spelling: `mobileNumber` is also `MobileNumber` and
/// `mobile_number`. Sensitive members are matched so; opaque ones, which stay, by their exact letters.
fn names<'a>(mut members: impl Iterator<Item = &'a str>, key: &str) -> bool {
    let plain = |name| str::bytes(name).filter(|byte| !matches!(byte, b'_' | b'-' | b' '));
    members.any(|member| {
        plain(member).map(|byte| byte.to_ascii_lowercase()).eq(plain(key).map(|byte| byte.to_ascii_lowercase()))
    })
}

/// Returns whether the name of a sensitive member stands anywhere in a text.
pub(crate) fn names_a_person(dialect: &Dialect, text: &str) -> bool {
    let plain = |text: &str| text.replace(['_', '-', ' '], "").to_lowercase();
    let text = plain(text);
    dialect.sensitive().any(|name| text.contains(&plain(name)))
}

/// One call's secrets, ready to be searched for.
struct Needles {
    words: Vec<Secret>,
    /// The digits of those secrets that have no letters.
    numbers: Vec<Secret>,
}

impl Needles {
    fn new(secrets: &[Secret]) -> Self {
        let mut needles = Self { words: Vec::new(), numbers: Vec::new() };
        for secret in secrets {
            let view = View::new(secret.reveal(), |_| None);
            if view.words.text.len() >= MIN_SECRET {
                if view.digits.text.len() >= MIN_SPACED && !view.words.text.chars().any(char::is_alphabetic) {
                    needles.numbers.push(Secret::new(view.digits.text));
                }
                needles.words.push(Secret::new(view.words.text));
            }
        }
        needles
    }

    /// Returns the text without what must not be stored; None if the text may stay as it is.
    fn clean(&self, text: &str) -> Option<String> {
        let is_cut = text.ends_with('…') || text.ends_with("...");
        let mut spans = Vec::new();
        for view in views(text) {
            for (folded, needle) in self.sought(&view) {
                folded.find(needle, is_cut, &mut spans);
            }
            view.find_aadhaar(&mut spans);
        }
        if spans.is_empty() {
            return None;
        }
        let mut clean = String::with_capacity(text.len());
        let mut kept = 0;
        for span in merge(text, spans) {
            clean.push_str(&text[kept..span.start]);
            clean.push_str(REDACTED);
            kept = span.end;
        }
        clean.push_str(&text[kept..]);
        Some(clean)
    }

    /// Returns each secret with the view in which it is searched for.
    fn sought<'a>(&'a self, view: &'a View) -> impl Iterator<Item = (&'a Folded, &'a str)> {
        let words = self.words.iter().map(|word| (&view.words, word.reveal()));
        words.chain(self.numbers.iter().map(|number| (&view.digits, number.reveal())))
    }

    fn stand_in(&self, id: &str) -> bool {
        let holds = |(folded, needle): (&Folded, &str)| needle.len() >= MIN_NUMBER && folded.holds(needle);
        views(id).any(|view| self.sought(&view).any(holds))
    }

    /// Returns whether a JSON number is a secret (without the leading zeros that a number cannot have), an Aadhaar
    /// number, or a longer number that a secret stands in.
    fn is_number(&self, number: &str) -> bool {
        let Some(digits) = whole(number) else { return self.stand_in(number) };
        let is_secret = self.words.iter().any(|word| {
            let bare = word.reveal().trim_start_matches('0');
            bare.len() >= MIN_SECRET - 1 && digits == bare
        });
        is_secret || is_aadhaar(&digits) || self.stand_in(&digits)
    }

    /// Returns whether an id names nobody: it is no number of a person's length, and no number or credential of this
    /// call stands in it. A text with spaces is never an id, whatever its member is called: it may repeat the code.
    fn is_opaque(&self, id: &str) -> bool {
        if id.contains(char::is_whitespace) {
            return false;
        }
        let body = id.strip_prefix("tel:").unwrap_or(id);
        (body.chars().any(|c| c.is_ascii_alphabetic()) || body.len() > 15) && !self.stand_in(id)
    }
}

/// Returns the spans of a text in order, those that touch or overlap merged into one.
fn merge(text: &str, mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            // The span lies within one that is redacted already.
            Some(last) if span.end < last.end => {}
            Some(last) => {
                let wide = widen_over_digits(text, span.start.max(last.end)..span.end, last.end);
                if wide.start == last.end { last.end = wide.end } else { merged.push(wide) }
            }
            None => merged.push(widen_over_digits(text, span, 0)),
        }
    }
    merged
}

/// Widens a span that begins or ends with a digit over the digits beside it: the country's code and the trunk's zero
/// are redacted with a number, and no rest becomes a number of its own. Nothing before `kept` is taken: that text is
/// redacted already.
fn widen_over_digits(text: &str, span: Range<usize>, kept: usize) -> Range<usize> {
    let is_digit = |c: char| is_invisible(c) || ascii(c).is_ascii_digit();
    let Range { mut start, mut end } = span;
    if text[start..].starts_with(is_digit) {
        start = kept + text[kept..start].trim_end_matches(is_digit).len();
    }
    if text[..end].ends_with(is_digit) {
        end = text.len() - text[end..].trim_start_matches(is_digit).len();
    }
    start..end
}

/// Returns the digits of a whole number, however it is written: `8144094480.0` and `8.14409448e9` are 8144094480. Sign
/// and leading zeros are left out, so that of zero nothing is left. Returns None for any other text.
pub(crate) fn whole(number: &str) -> Option<String> {
    let number = number.trim().trim_start_matches(['-', '+']).to_ascii_lowercase();
    let (mantissa, exponent) = number.split_once('e').unwrap_or((&number, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{before}{after}");
    let point = exponent.parse::<isize>().ok().filter(|exponent| exponent.unsigned_abs() < 32)?;
    let point = before.len().checked_add_signed(point)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if point < digits.len() {
        let fraction = digits.split_off(point);
        if fraction.bytes().any(|digit| digit != b'0') {
            return None;
        }
    } else {
        digits.extend(std::iter::repeat_n('0', point - digits.len()));
    }
    Some(digits.trim_start_matches('0').to_owned())
}

/// Gathers the secrets of one call, each once.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Secret>);

impl Secrets {
    pub(crate) fn add(&mut self, value: &str) {
        if !value.is_empty() && !self.0.iter().any(|secret| secret.reveal() == value) {
            self.0.push(Secret::new(value));
        }
    }

    pub(crate) fn add_values<const N: usize>(&mut self, values: [Option<&Value>; N]) {
        for value in values.into_iter().flatten() {
            match value {
                Value::String(text) => self.add(text),
                Value::Number(number) => self.add(&number.to_string()),
                Value::Array(items) => items.iter().for_each(|item| self.add_values([Some(item)])),
                Value::Object(members) => members.values().for_each(|member| self.add_values([Some(member)])),
                Value::Null | Value::Bool(_) => {}
            }
        }
    }

    /// Adds a phone number as it is sent, as it was typed, and as a vendor may write it.
    pub(crate) fn add_mobile(&mut self, country: NumberingPlan, value: Option<&Value>, typed: Option<&Value>) {
        let Some(mobile) = value.and_then(|value| country.parse_value(value)) else {
            return;
        };
        self.add(mobile.wire().reveal());
        self.add(mobile.recipient().reveal());
        for spelling in mobile.spellings() {
            self.add(spelling.reveal());
        }
        self.add_values([typed]);
    }

    pub(crate) fn into_vec(self) -> Vec<Secret> {
        self.0
    }
}

#[cfg(test)]
mod tests;
