use std::time::Duration;

use serde_json::Value;

use crate::{
    operation::Operation,
    payload::{
        field::{AnyField, Invalid, is_identifier},
        fill::is_code,
        rule::Rule,
    },
    response::scalar,
    rest::cursor::{Cursor, Read},
};

/// A field of a payload, as a description declares it.
pub(super) struct DescribedField {
    pub name: String,
    vendor_name: String,
    pub rule: Rule<'static>,
    /// The words of the rule one_of: ours, and the vendor's.
    words: Vec<(String, String)>,
    /// The prefix that is cut off a phone number before it is sent: `+`, or `+` and the code of the one country.
    without: String,
    required: Vec<Operation>,
    personal: bool,
    secret: bool,
    once: bool,
    /// The default, in the form in which it is sent.
    pub default: Option<Value>,
    /// How many seconds one unit of the value is, if the field says how long the code lives.
    lifetime_unit: Option<u64>,
}

/// Placeholders that are neither a field nor a credential.
pub(super) const GIVEN: [&str; 4] = ["code", "reference", "verification_id", "attempt_id"];

/// The least and the most that `min` and `max` may be, and the usual `max`.
type Bounds = (u64, u64, u64);

const NONE: Bounds = (0, 0, 0);
const LENGTH: Bounds = (1, 4096, 256);
const RANGE: Bounds = (0, 1 << 53, 1 << 53);

/// A rule: its name, the members that only a field of this rule has, its bounds, and the rule made of min and max.
type NamedRule = (&'static str, &'static str, Bounds, fn(u64, u64) -> Rule<'static>);

static RULES: [NamedRule; 12] = [
    ("phone", "without", NONE, |_, _| Rule::PhoneNumber),
    ("text", "min max", LENGTH, |min, max| Rule::Text { min: min as usize, max: max as usize }),
    ("message", "min max", (1, 4096, 4096), |_, max| Rule::Message { max: max as usize }),
    ("identifier", "min max", LENGTH, |_, max| Rule::Identifier { max: max as usize }),
    ("alphanumeric", "min max", LENGTH, |min, max| Rule::Alphanumeric { min: min as usize, max: max as usize }),
    ("digits", "min max", LENGTH, |min, max| Rule::Digits { min: min as usize, max: max as usize }),
    ("one_of", "values", NONE, |_, _| Rule::Among(&[])),
    ("integer", "min max code_lifetime", RANGE, |min, max| Rule::Integer { min, max }),
    ("integer_text", "min max code_lifetime", RANGE, |min, max| Rule::IntegerText { min, max }),
    ("boolean", "", NONE, |_, _| Rule::Boolean),
    ("uuid", "", NONE, |_, _| Rule::Uuid),
    ("json", "", NONE, |_, _| Rule::Any),
];

/// Reads the name of a field or a credential; fails if the name is taken.
pub(super) fn read_name(at: &Cursor, name: &str, taken: &mut Vec<String>) -> Read<String> {
    let is_name = is_identifier(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    at.need(is_name, "a name is at most 63 lower-case letters, digits and underscores, and begins with no digit")?;
    let is_ours = is_code(name) || GIVEN.contains(&name) || ["extra", "proxy_user", "proxy_password"].contains(&name);
    let is_taken = is_ours || name.ends_with("_file") || taken.iter().any(|other| other == name);
    at.need(!is_taken, "the name is taken, by another field or credential or by the gateway itself")?;
    taken.push(name.to_owned());
    Ok(name.to_owned())
}

/// Reads words, or an object of the vendor's words by ours.
fn read_words(at: &Cursor) -> Read<Vec<(String, String)>> {
    let Value::Object(_) = at.value else { return at.each(|at| Ok((at.text()?, at.text()?))) };
    at.members()?.into_iter().map(|(ours, at)| Ok((ours.to_owned(), at.text()?))).collect()
}

fn read_without(at: &Cursor) -> Read<String> {
    let without = at.text()?;
    let is_prefix = without.strip_prefix('+').is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    at.need(is_prefix && without.len() <= 4, "it is + or + and a country's code")?;
    Ok(without)
}

impl DescribedField {
    pub fn read(at: &Cursor, name: &str, taken: &mut Vec<String>) -> Read<Self> {
        let (kind, own, (least, most, usual), rule) = at.member("rule").choice(&RULES, |rule| rule.0)?;
        at.only(&format!("rule vendor_name required default personal secret once {own}"))?;
        let is_person = kind == "phone" && at.member("default").value.is_null();
        at.need(name != "mobile" || is_person, "a code goes to the rule phone, and to nobody by default")?;
        let min = at.member("min").number(least, most)?.unwrap_or(least);
        let max = at.member("max").number(min, most)?.unwrap_or(min.max(usual));
        let required = at.member("required");
        let units = [("seconds", 1), ("minutes", 60)];
        let mut field = Self {
            name: read_name(at, name, taken)?,
            vendor_name: at.member("vendor_name").given(Cursor::text)?.unwrap_or_else(|| name.to_owned()),
            rule: rule(min, max),
            words: read_words(&at.member("values"))?,
            without: at.member("without").given(read_without)?.unwrap_or_default(),
            required: match required.value {
                Value::Bool(true) => Operation::ALL.to_vec(),
                _ => required.each(|at| at.choice(&Operation::ALL, Operation::as_str))?,
            },
            personal: at.member("personal").flag()?,
            secret: at.member("secret").flag()?,
            once: at.member("once").flag()?,
            default: None,
            lifetime_unit: at.member("code_lifetime").given(|at| at.choice(&units, |unit| unit.0))?.map(|unit| unit.1),
        };
        at.member("values").need(kind != "one_of" || !field.words.is_empty(), "it is missing: one of what")?;
        let default = |at: &Cursor| field.rule().normalise(name, at.value).or_else(|invalid| at.mistake(invalid.hint));
        field.default = at.member("default").given(default)?;
        let vendor_name = &field.vendor_name;
        let is_taken = vendor_name != name && (taken.contains(vendor_name) || GIVEN.contains(&vendor_name.as_str()));
        at.member("vendor_name").need(!is_taken, "another field is called so")?;
        taken.push(vendor_name.clone());
        Ok(field)
    }

    /// Returns the rule; one_of with the words of the description.
    fn rule(&self) -> Rule<'_> {
        if let Rule::Among(_) = self.rule { Rule::Among(&self.words) } else { self.rule }
    }

    /// Returns how long the code lives, if the field says so.
    pub fn code_lifetime(&self, value: &Value) -> Option<Duration> {
        let unit = self.lifetime_unit?;
        let count: u64 = scalar(Some(value))?.parse().ok()?;
        Some(Duration::from_secs(count.saturating_mul(unit)))
    }

    /// Returns a value as this vendor takes it. Fails for a number of another country than the one whose code is cut
    /// off.
    pub fn as_sent(&self, value: &Value) -> Result<Value, Invalid> {
        let Some(text) = value.as_str() else { return Ok(value.clone()) };
        text.strip_prefix(&self.without).map(Value::from).ok_or_else(|| {
            let what = format!("{} is of a country that this vendor does not send to", self.name);
            Invalid::new(&self.name, what, format!("a number that begins with {}", self.without))
        })
    }

    /// Returns the field as an operation takes it. A field in the path is required: without it there is no URL.
    /// `mobile` is required for a send: the limits count by it.
    pub fn of(&self, operation: Operation, in_path: bool) -> AnyField<'_> {
        let is_recipient = self.name == "mobile";
        AnyField {
            required: (in_path || is_recipient && operation == Operation::Send || self.required.contains(&operation))
                && self.default.is_none(),
            fixed: is_recipient,
            personal: is_recipient || self.personal || self.secret || self.once,
            secret: self.secret,
            once: self.once,
            ..AnyField::optional(&self.name, &self.vendor_name, self.rule())
        }
    }
}
