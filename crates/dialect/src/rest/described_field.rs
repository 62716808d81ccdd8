use serde_json::Value;

use crate::{
    operation::Operation,
    payload::{
        field::{AnyField, Invalid, is_identifier},
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
    without: String,
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

/// Least and most of min and max, and the max that is usual. None: a rule has neither.
type Bounds = Option<(u64, u64, u64)>;

const LENGTH: Bounds = Some((1, 4096, 256));
const RANGE: Bounds = Some((0, 1 << 53, 1 << 53));

type NamedRule = (&'static str, Bounds, fn(u64, u64) -> Rule<'static>);

static RULES: [NamedRule; 12] = [
    ("phone", None, |_, _| Rule::PhoneNumber),
    ("text", LENGTH, |min, max| Rule::Text { min: min as usize, max: max as usize }),
    ("message", Some((1, 4096, 4096)), |_, max| Rule::Message { max: max as usize }),
    ("identifier", LENGTH, |_, max| Rule::Identifier { max: max as usize }),
    ("alphanumeric", LENGTH, |min, max| Rule::Alphanumeric { min: min as usize, max: max as usize }),
    ("digits", LENGTH, |min, max| Rule::Digits { min: min as usize, max: max as usize }),
    ("one_of", None, |_, _| Rule::Any),
    ("integer", RANGE, |min, max| Rule::Integer { min, max }),
    ("integer_text", RANGE, |min, max| Rule::IntegerText { min, max }),
    ("boolean", None, |_, _| Rule::Boolean),
    ("uuid", None, |_, _| Rule::Uuid),
    ("json", None, |_, _| Rule::Any),
];

/// The name of a field or a credential.
pub(super) fn read_name(at: &Cursor, name: &str) -> Read<String> {
    if !is_identifier(name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return at.mistake("a name is at most 63 lower-case letters, digits and underscores, and begins with no digit");
    }
    if is_code(name) || GIVEN.contains(&name) || name == "extra" {
        return at.mistake("a name of the gateway's own");
    }
    Ok(name.to_owned())
}

/// Words, or an object of the vendor's by ours.
fn read_words(at: &Cursor) -> Read<Vec<(String, String)>> {
    match at.value {
        Value::Object(_) => {
            let members = at.members()?.into_iter();
            members.map(|(ours, at)| Ok((ours.to_owned(), at.text()?.to_owned()))).collect()
        }
        _ => at.each(|at| at.text().map(|word| (word.to_owned(), word.to_owned()))),
    }
}

impl DescribedField {
    pub fn read(at: &Cursor, name: &str) -> Read<Self> {
        const FLAGS: [&str; 3] = ["personal", "secret", "once"];
        const OTHERS: [&str; 9] =
            ["rule", "min", "max", "values", "without", "vendor_name", "required", "default", "code_lifetime"];
        at.only(&[FLAGS.as_slice(), &OTHERS].concat())?;
        let (kind, required, vendor_name) = (at.member("rule"), at.member("required"), at.member("vendor_name"));
        let [personal, secret, once] = FLAGS.map(|name| at.member(name).flag());
        let (_, bounds, rule) = kind.choice(&RULES.each_ref(), |rule| rule.0)?;
        let is_one_of = kind.value == "one_of";
        if is_one_of == at.member("values").is_missing() {
            return at.mistake("values goes with the rule one_of, and with no other");
        }
        if bounds.is_none() && !(at.member("min").is_missing() && at.member("max").is_missing()) {
            return at.mistake("its rule has neither min nor max");
        }
        let (least, most, usual) = bounds.unwrap_or_default();
        let min = at.member("min").number(least, most)?.unwrap_or(least);
        let max = at.member("max").number(min, most)?.unwrap_or(usual.max(min));
        let units = [("seconds", 1), ("minutes", 60)];
        let (lifetime, without) = (at.member("code_lifetime"), at.member("without"));
        let unit = if lifetime.is_missing() { None } else { Some(lifetime.choice(&units, |unit| unit.0)?.1) };
        if unit.is_some() && *bounds != RANGE {
            return lifetime.mistake("it goes with the rules integer and integer_text alone");
        }
        let mut field = Self {
            name: read_name(at, name)?,
            vendor_name: if vendor_name.is_missing() { name } else { vendor_name.text()? }.to_owned(),
            rule: (!is_one_of).then(|| rule(min, max)),
            words: read_words(&at.member("values"))?,
            without: if without.is_missing() { "" } else { without.text()? }.to_owned(),
            required: match required.value {
                Value::Bool(true) => Operation::ALL.to_vec(),
                Value::Bool(false) => Vec::new(),
                _ => required.each(|at| at.choice(&Operation::ALL, Operation::as_str))?,
            },
            personal: personal?,
            secret: secret?,
            once: once?,
            default: None,
            lifetime_unit: unit,
        };
        let is_prefix =
            field.without.strip_prefix('+').is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        let is_sound = field.is_phone_number() && is_prefix && field.without.len() <= 4;
        if !(without.is_missing() || is_sound) {
            return without.mistake("it is + or + and a country's code, of a phone");
        }
        let default = at.member("default");
        if !default.is_missing() {
            let read = field.rule().normalise(name, default.value);
            field.default = Some(read.or_else(|invalid| default.mistake(invalid.hint))?);
        }
        Ok(field)
    }

    fn rule(&self) -> Rule<'_> {
        self.rule.unwrap_or(Rule::Among(&self.words))
    }

    pub fn is_phone_number(&self) -> bool {
        matches!(self.rule, Some(Rule::PhoneNumber))
    }

    /// Whether it goes into a body of JSON alone.
    pub fn is_json(&self) -> bool {
        matches!(self.rule, Some(Rule::Any))
    }

    /// A value as this vendor takes it.
    pub fn as_sent(&self, value: &Value) -> Value {
        value.as_str().and_then(|text| text.strip_prefix(&self.without)).map_or_else(|| value.clone(), Value::from)
    }

    /// That a number is of the country whose code it is sent without.
    pub fn check_country(&self, value: &Value) -> Result<(), Invalid> {
        if value.as_str().is_none_or(|number| number.starts_with(&self.without)) {
            return Ok(());
        }
        let (name, hint) = (&self.name, format!("a number that begins with {}", self.without));
        Err(Invalid::new(name, format!("{name} is of a country that this vendor does not send to"), hint))
    }

    /// As an operation takes it. `in_path`: without it there is no URL.
    pub fn of(&self, operation: Operation, in_path: bool) -> AnyField<'_> {
        let is_recipient = self.name == "mobile";
        AnyField {
            required: (in_path || self.required.contains(&operation)) && self.default.is_none(),
            fixed: is_recipient,
            personal: is_recipient || self.personal || self.secret || self.once,
            secret: self.secret,
            once: self.once,
            ..AnyField::optional(&self.name, &self.vendor_name, self.rule())
        }
    }
}
