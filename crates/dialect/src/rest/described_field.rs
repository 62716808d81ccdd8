use serde_json::Value;

use crate::{
    operation::Operation,
    payload::{
        field::{AnyField, is_identifier},
        fill::is_code,
        rule::Rule,
    },
    rest::cursor::{Cursor, Read},
};

/// A field of a payload, as a description has it.
pub(super) struct DescribedField {
    pub name: String,
    pub vendor_name: String,
    /// None: one of `words`.
    rule: Option<Rule<'static>>,
    /// Ours, and the vendor's.
    words: Vec<(String, String)>,
    /// What a phone number is sent without: its `+`, or the one country's code as well.
    pub without: String,
    required: Vec<Operation>,
    personal: bool,
    secret: bool,
    once: bool,
    /// As it goes on the wire.
    pub default: Option<Value>,
    /// It says how long the code lives, in so many seconds each.
    pub lifetime_unit: Option<u64>,
}

/// Placeholders that are neither a field nor a credential.
pub(super) const GIVEN: [&str; 4] = ["code", "reference", "verification_id", "attempt_id"];

/// Least and most of min and max, and the max that is usual.
type Bounds = (u64, u64, u64);

const NONE: Bounds = (0, 0, 0);
const LENGTH: Bounds = (1, 4096, 256);
const RANGE: Bounds = (0, 1 << 53, 1 << 53);

/// Its name, the members that a field of this rule alone has, and what it is of min and max.
type NamedRule = (&'static str, &'static [&'static str], Bounds, fn(u64, u64) -> Option<Rule<'static>>);

const LONG: &[&str] = &["min", "max"];
const NUMBER: &[&str] = &["min", "max", "code_lifetime"];

static RULES: [NamedRule; 12] = [
    ("phone", &["without"], NONE, |_, _| Some(Rule::PhoneNumber)),
    ("text", LONG, LENGTH, |min, max| Some(Rule::Text { min: min as usize, max: max as usize })),
    ("message", LONG, (1, 4096, 4096), |_, max| Some(Rule::Message { max: max as usize })),
    ("identifier", LONG, LENGTH, |_, max| Some(Rule::Identifier { max: max as usize })),
    ("alphanumeric", LONG, LENGTH, |min, max| Some(Rule::Alphanumeric { min: min as usize, max: max as usize })),
    ("digits", LONG, LENGTH, |min, max| Some(Rule::Digits { min: min as usize, max: max as usize })),
    ("one_of", &["values"], NONE, |_, _| None),
    ("integer", NUMBER, RANGE, |min, max| Some(Rule::Integer { min, max })),
    ("integer_text", NUMBER, RANGE, |min, max| Some(Rule::IntegerText { min, max })),
    ("boolean", &[], NONE, |_, _| Some(Rule::Boolean)),
    ("uuid", &[], NONE, |_, _| Some(Rule::Uuid)),
    ("json", &[], NONE, |_, _| Some(Rule::Any)),
];

/// The name of a field or a credential, which nobody else has.
pub(super) fn read_name(at: &Cursor, name: &str, taken: &[String]) -> Read<String> {
    let is_name = is_identifier(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    at.need(is_name, "a name is at most 63 lower-case letters, digits and underscores, and begins with no digit")?;
    let is_ours = is_code(name) || GIVEN.contains(&name) || ["extra", "proxy_user", "proxy_password"].contains(&name);
    let is_taken = is_ours || name.ends_with("_file") || taken.iter().any(|other| other == name);
    at.need(!is_taken, "the name is taken, by another field or credential or by the gateway itself")?;
    Ok(name.to_owned())
}

/// Words, or an object of the vendor's by ours.
fn read_words(at: &Cursor) -> Read<Vec<(String, String)>> {
    match at.value.is_object() {
        true => at.members()?.into_iter().map(|(ours, at)| Ok((ours.to_owned(), at.text()?.to_owned()))).collect(),
        false => at.each(|at| at.text().map(|word| (word.to_owned(), word.to_owned()))),
    }
}

fn read_without(at: &Cursor) -> Read<String> {
    let without = at.text()?;
    let is_prefix = without.strip_prefix('+').is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    at.need(is_prefix && without.len() <= 4, "it is + or + and a country's code")?;
    Ok(without.to_owned())
}

impl DescribedField {
    pub fn read(at: &Cursor, name: &str, taken: &mut Vec<String>) -> Read<Self> {
        const ANY: [&str; 7] = ["rule", "vendor_name", "required", "default", "personal", "secret", "once"];
        let (kind, own, (least, most, usual), rule) = at.member("rule").choice(&RULES, |rule| rule.0)?;
        at.only(&[&ANY, own].concat())?;
        let is_person = kind == "phone" && at.member("default").value.is_null();
        at.need(name != "mobile" || is_person, "a code goes to the rule phone, and to nobody by default")?;
        let min = at.member("min").number(least, most)?.unwrap_or(least);
        let max = at.member("max").number(min, most)?.unwrap_or(min.max(usual));
        let required = at.member("required");
        let units = [("seconds", 1), ("minutes", 60)];
        let mut field = Self {
            name: read_name(at, name, taken)?,
            vendor_name: at.member("vendor_name").given(Cursor::text)?.unwrap_or(name).to_owned(),
            rule: rule(min, max),
            words: read_words(&at.member("values"))?,
            without: at.member("without").given(read_without)?.unwrap_or_default(),
            required: match required.value.as_bool() {
                Some(true) => Operation::ALL.to_vec(),
                _ => required.each(|at| at.choice(&Operation::ALL, |operation| operation.as_str()))?,
            },
            personal: at.member("personal").flag()?,
            secret: at.member("secret").flag()?,
            once: at.member("once").flag()?,
            default: None,
            lifetime_unit: at.member("code_lifetime").given(|at| at.choice(&units, |unit| unit.0))?.map(|unit| unit.1),
        };
        at.member("values").need(field.rule.is_some() || !field.words.is_empty(), "it is missing: one of what")?;
        let default = |at: &Cursor| field.rule().normalise(name, at.value).or_else(|invalid| at.mistake(invalid.hint));
        field.default = at.member("default").given(default)?;
        let is_taken = taken.contains(&field.vendor_name) || GIVEN.contains(&field.vendor_name.as_str());
        at.member("vendor_name").need(!is_taken, "another field is called so")?;
        taken.extend([field.name.clone(), field.vendor_name.clone()]);
        Ok(field)
    }

    fn rule(&self) -> Rule<'_> {
        self.rule.unwrap_or(Rule::Among(&self.words))
    }

    /// Whether it goes into a body of JSON alone.
    pub fn is_json(&self) -> bool {
        matches!(self.rule, Some(Rule::Any))
    }

    /// A value as this vendor takes it; none: a number of another country than that whose code it is sent without.
    pub fn as_sent(&self, value: &Value) -> Option<Value> {
        value.as_str().map_or_else(|| Some(value.clone()), |text| Some(text.strip_prefix(&self.without)?.into()))
    }

    /// As an operation takes it. `in_path`: without it there is no URL. A send is to somebody: whom the limits count.
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
