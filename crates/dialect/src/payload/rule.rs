use std::net::IpAddr;

use serde_json::{Map, Number, Value};

use crate::payload::{
    email_address::EmailAddress,
    field::{AnyField, Invalid},
    phone_number::NumberingPlan,
    placeholder::{holds_placeholder, placeholder},
};

/// Longest JSON text of a [`Rule::Any`], in bytes.
const MAX_ANY_BYTES: usize = 4096;
const MAX_ANY_DEPTH: usize = 8;
/// Longest JSON text of a [`Rule::Extra`], in bytes, and how many values it may hold: each is searched for in the
/// answer.
const MAX_EXTRA_BYTES: usize = 16 * 1024;
const MAX_EXTRA_VALUES: usize = 64;

/// The rule for a field's value. A value is accepted in every form in which people and vendors write it, and sent in
/// the documented one.
#[derive(Clone, Copy, Debug)]
pub enum Rule<'a> {
    /// Sent as ten digits.
    IndianMobile,
    /// Sent as `tel:94XXXXXXXXX`.
    SriLankanMobile,
    /// A number of any country; sent with its `+`.
    PhoneNumber,
    /// A number of any country, or an e-mail address.
    PhoneOrEmail,
    Email,
    /// A line of text, its length in characters.
    Text {
        min: usize,
        max: usize,
    },
    /// A text that may have line breaks.
    Message {
        max: usize,
    },
    /// A name that some system gave: a line of text, or a whole number; sent as text.
    Identifier {
        max: usize,
    },
    /// An identifier of printable ASCII, fit for a header.
    HeaderText {
        max: usize,
    },
    /// Letters and digits; sent as text.
    Alphanumeric {
        min: usize,
        max: usize,
    },
    /// Digits only; sent as text.
    Digits {
        min: usize,
        max: usize,
    },
    /// One of these words, in any case; sent as written here.
    OneOf(&'a [&'a str]),
    /// The way to the person: a word that is the same for every vendor (`sms`, `voice`, `whatsapp`, `email`), or the
    /// vendor's own; sent as the vendor's, which stands beside it.
    Channel(&'static [(&'static str, &'static str)]),
    /// As `Channel`, with the words of a server's description.
    Among(&'a [(String, String)]),
    /// A whole number; sent as a number.
    Integer {
        min: u64,
        max: u64,
    },
    /// A whole number; sent as text.
    IntegerText {
        min: u64,
        max: u64,
    },
    /// Sent as `true` or `false`.
    Boolean,
    /// Sent as `"yes"` or `"no"`.
    YesNo,
    /// Latitude and longitude in degrees: `lat,long`.
    LatLong,
    IpAddress,
    Uuid,
    /// REL-ID's form of a code: kinds of character, hyphen, length 4 to 9 (`N-6`).
    OtpSpec,
    /// An object of these members; with `open`, of others too.
    Object {
        members: &'a [AnyField<'a>],
        open: bool,
    },
    /// An array of objects of these members.
    List {
        members: &'a [AnyField<'a>],
        max: usize,
    },
    /// Any JSON of moderate size.
    Any,
    /// An object whose members go into the body as they are.
    Extra,
}

/// A line of text of the usual length.
pub(crate) const TEXT: Rule<'static> = Rule::Text { min: 1, max: 256 };
/// An identifier of the usual length.
pub(crate) const IDENTIFIER: Rule<'static> = Rule::Identifier { max: 256 };

impl Rule<'_> {
    /// Returns the value in the form in which it is sent. A value in that form is returned unchanged.
    pub(crate) fn normalise(&self, path: &str, value: &Value) -> Result<Value, Invalid> {
        if value.is_null() {
            return Err(Invalid::new(path, format!("{path} is null"), "leave it out instead"));
        }
        let is_placeholder = match self {
            // Their members are checked one by one, so that the error names the member.
            Self::Object { .. } | Self::List { .. } => false,
            _ => holds_placeholder(value),
        };
        if is_placeholder {
            return Err(placeholder(path, &self.describe()));
        }
        match self {
            Self::IndianMobile => self.mobile(NumberingPlan::India, path, value),
            Self::SriLankanMobile => self.mobile(NumberingPlan::SriLanka, path, value),
            Self::PhoneNumber => NumberingPlan::Any
                .parse_value(value)
                .map(|number| number.recipient().reveal().into())
                .ok_or_else(|| self.broken(path)),
            Self::PhoneOrEmail if value.as_str().is_none_or(|text| !text.contains('@')) => {
                Self::PhoneNumber.normalise(path, value).map_err(|_| self.broken(path))
            }
            Self::PhoneOrEmail | Self::Email => EmailAddress::parse_value(value)
                .map(|address| address.recipient().reveal().into())
                .ok_or_else(|| self.broken(path)),
            Self::Object { members, open } => match value {
                Value::Object(given) => object(path, given, members, *open),
                _ => Err(self.broken(path)),
            },
            Self::List { members, max } => match value {
                Value::Array(items) if items.len() <= *max => {
                    let item = |(index, item): (usize, &Value)| match item {
                        Value::Object(given) => object(&format!("{path}[{index}]"), given, members, false),
                        _ => Err(self.broken(&format!("{path}[{index}]"))),
                    };
                    let (good, faults): (Vec<_>, Vec<_>) = items.iter().enumerate().map(item).partition(Result::is_ok);
                    Invalid::all(faults.into_iter().filter_map(Result::err).collect())?;
                    Ok(good.into_iter().filter_map(Result::ok).collect())
                }
                _ => Err(self.broken(path)),
            },
            Self::Extra if !value.is_object() || !is_extra(value) => Err(self.broken(path)),
            Self::Extra => Ok(value.clone()),
            _ => self.scalar(value).ok_or_else(|| self.broken(path)),
        }
    }

    fn mobile(&self, country: NumberingPlan, path: &str, value: &Value) -> Result<Value, Invalid> {
        if country == NumberingPlan::SriLanka
            && value.as_str().is_some_and(|text| text.trim().eq_ignore_ascii_case("tel:all"))
        {
            return Err(Invalid::new(
                path,
                format!("{path} is the vendor's broadcast address, tel:all, which reaches every subscriber"),
                "a code goes to one person: give one mobile number",
            ));
        }
        country.parse_value(value).map(|mobile| mobile.wire().reveal().into()).ok_or_else(|| self.broken(path))
    }

    fn scalar(&self, value: &Value) -> Option<Value> {
        let text = || value.as_str();
        // A whole number passes for its digits: a code length of 6 and "6" mean the same.
        let digits = || match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => number.as_u64().map(|number| number.to_string()),
            _ => None,
        };
        let long = |text: &str, min: usize, max: usize| {
            let chars = text.chars().take(max + 1).count();
            min <= chars && chars <= max
        };
        match self {
            Self::Text { min, max } => text()
                .filter(|text| long(text, *min, *max) && !text.trim().is_empty() && !text.chars().any(char::is_control))
                .map(Value::from),
            Self::Identifier { max } => digits()
                .filter(|text| long(text, 1, *max) && !text.trim().is_empty() && !text.chars().any(char::is_control))
                .map(Value::from),
            Self::HeaderText { max } => digits()
                .filter(|text| long(text, 1, *max) && text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)))
                .map(Value::from),
            Self::Message { max } => text().filter(|text| long(text, 1, *max) && !text.contains('\0')).map(Value::from),
            Self::Alphanumeric { min, max } => digits()
                .filter(|text| long(text, *min, *max) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
                .map(Value::from),
            Self::Digits { min, max } => digits()
                .filter(|text| long(text, *min, *max) && text.bytes().all(|byte| byte.is_ascii_digit()))
                .map(Value::from),
            Self::OneOf(words) => {
                let given = digits()?;
                words.iter().find(|word| word.eq_ignore_ascii_case(&given)).map(|word| Value::from(*word))
            }
            Self::Channel(channels) => {
                let is_given = |word: &str| text().is_some_and(|given| word.eq_ignore_ascii_case(given));
                let channel = channels.iter().find(|(ours, theirs)| is_given(ours) || is_given(theirs));
                channel.map(|(_, theirs)| Value::from(*theirs))
            }
            Self::Among(words) => {
                let given = digits()?;
                let is_given = |word: &str| word.eq_ignore_ascii_case(&given);
                let word = words.iter().find(|(ours, theirs)| is_given(ours) || is_given(theirs));
                word.map(|(_, theirs)| Value::from(theirs.as_str()))
            }
            Self::Integer { min, max } => {
                integer(&digits()?, *min, *max).map(|number| Value::Number(Number::from(number)))
            }
            Self::IntegerText { min, max } => integer(&digits()?, *min, *max).map(|number| number.to_string().into()),
            Self::Boolean => boolean(value).map(Value::Bool),
            Self::YesNo => boolean(value).map(|yes| if yes { "yes" } else { "no" }.into()),
            Self::LatLong => text().filter(|text| long(text, 3, 64) && is_lat_long(text)).map(Value::from),
            Self::IpAddress => text().filter(|text| text.parse::<IpAddr>().is_ok()).map(Value::from),
            Self::Uuid => text().filter(|text| is_uuid(text)).map(Value::from),
            Self::OtpSpec => text().filter(|text| otp_spec_length(text).is_some()).map(Value::from),
            Self::Any => Some(value).filter(|value| is_moderate(value, MAX_ANY_DEPTH)).cloned(),
            Self::IndianMobile
            | Self::SriLankanMobile
            | Self::PhoneNumber
            | Self::PhoneOrEmail
            | Self::Email
            | Self::Object { .. }
            | Self::List { .. }
            | Self::Extra => None,
        }
    }

    fn broken(&self, path: &str) -> Invalid {
        Invalid::new(path, format!("{path} does not follow its rule"), format!("{path}: {}", self.describe()))
    }

    /// Returns the rule in words, for a hint.
    pub fn describe(&self) -> String {
        let names = |members: &[AnyField]| {
            members
                .iter()
                .map(|field| if field.required { format!("{} (required)", field.name) } else { field.name.into() })
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::IndianMobile => NumberingPlan::India.rule().into(),
            Self::SriLankanMobile => NumberingPlan::SriLanka.rule().into(),
            Self::PhoneNumber => NumberingPlan::Any.rule().into(),
            Self::PhoneOrEmail => format!("{}; or {}", NumberingPlan::Any.rule(), EmailAddress::RULE),
            Self::Email => EmailAddress::RULE.into(),
            Self::Text { min, max } if min == max => format!("a text of exactly {min} characters, in one line"),
            Self::Text { min, max } => format!("a text of {min} to {max} characters, in one line"),
            Self::Message { max } => format!("a text of 1 to {max} characters"),
            Self::Identifier { max } => {
                format!("a text of 1 to {max} characters in one line, or a whole number")
            }
            Self::HeaderText { max } => {
                format!("1 to {max} printable ASCII characters without spaces")
            }
            Self::Alphanumeric { min, max } if min == max => format!("exactly {min} letters or digits"),
            Self::Alphanumeric { min, max } => format!("{min} to {max} letters or digits"),
            Self::Digits { min, max } if min == max => format!("exactly {min} digits"),
            Self::Digits { min, max } => format!("{min} to {max} digits and nothing else"),
            Self::OneOf([word]) => format!("only {word}"),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Channel([(channel, _)]) => format!("only {channel}"),
            Self::Channel(channels) => {
                format!("one of {}", channels.iter().map(|(ours, _)| *ours).collect::<Vec<_>>().join(", "))
            }
            Self::Among(words) => {
                format!("one of {}", words.iter().map(|(ours, _)| ours.as_str()).collect::<Vec<_>>().join(", "))
            }
            Self::Integer { min, max } | Self::IntegerText { min, max } => {
                format!("a whole number from {min} to {max}")
            }
            Self::Boolean => "true or false".into(),
            Self::YesNo => "yes or no".into(),
            Self::LatLong => "latitude and longitude in degrees with a comma between, as 20.29,85.82".into(),
            Self::IpAddress => "an IPv4 or IPv6 address".into(),
            Self::Uuid => "a UUID in its usual form, 8-4-4-4-12 hexadecimal digits".into(),
            Self::OtpSpec => "kinds of character, a hyphen and a length from 4 to 9, as N-6 or LN-8".into(),
            Self::Object { members: [], open: true } => "an object".into(),
            Self::Object { members, open: true } => format!("an object; known members: {}", names(members)),
            Self::Object { members, open: false } => format!("an object with members out of: {}", names(members)),
            Self::List { members, max } => {
                format!("an array of at most {max} objects, each with members out of: {}", names(members))
            }
            Self::Any => {
                format!("JSON of at most {MAX_ANY_BYTES} bytes and {MAX_ANY_DEPTH} levels")
            }
            Self::Extra => format!(
                "an object, whose members go into the vendor's body as they are; of at most {MAX_EXTRA_VALUES} values, \
                 {MAX_EXTRA_BYTES} bytes and {MAX_ANY_DEPTH} levels"
            ),
        }
    }
}

/// Returns an object with its members under the vendor's names, in the order of the table; accepts either name.
fn object(path: &str, given: &Map<String, Value>, members: &[AnyField], open: bool) -> Result<Value, Invalid> {
    let mut written = Map::new();
    let mut faults = Vec::new();
    for field in members {
        let path = format!("{path}.{}", field.name);
        let value = match (given.get(field.name), given.get(field.wire)) {
            (Some(_), Some(_)) if field.name != field.wire => {
                faults.push(twice(&path, field.name, field.wire));
                continue;
            }
            (ours, theirs) => ours.or(theirs),
        };
        match value.map(|value| field.rule.normalise(&path, value)) {
            Some(Ok(value)) => drop(written.insert(field.wire.into(), value)),
            Some(Err(fault)) => faults.push(fault),
            None if field.required => faults.push(Invalid::new(
                &path,
                format!("{path} is missing"),
                format!("{path}: {}", field.rule.describe()),
            )),
            None => {}
        }
    }
    for (key, value) in given {
        if members.iter().any(|field| field.is_called(key)) {
            continue;
        }
        if !open {
            faults.push(Invalid::unknown_key(path, &format!("{path}."), key, members.iter()));
        } else if key.chars().any(char::is_control) || key.len() > 256 || !is_moderate(value, MAX_ANY_DEPTH) {
            faults.push(Rule::Any.broken(path));
        } else if holds_placeholder(value) {
            faults.push(placeholder(path, &Rule::Any.describe()));
        } else {
            written.insert(key.clone(), value.clone());
        }
    }
    Invalid::all(faults)?;
    Ok(Value::Object(written))
}

/// Returns the fault of a field that is given under two of its names.
pub(crate) fn twice(path: &str, one: &str, other: &str) -> Invalid {
    Invalid::of_fields(
        path,
        format!("{path} is given twice, as {one} and as {other}"),
        "both are the same field: leave one out",
    )
}

fn integer(text: &str, min: u64, max: u64) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && min <= *number && *number <= max)
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Returns whether a text is two decimal numbers. Their range is not checked: the vendor's own sample has a latitude of
/// 123.23.
fn is_lat_long(text: &str) -> bool {
    let decimal = |part: &str| {
        let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
        let mut halves = digits.splitn(2, '.');
        halves.all(|half| !half.is_empty() && half.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.split_once(',').is_some_and(|(lat, long)| decimal(lat.trim()) && decimal(long.trim()))
        && !text.chars().any(char::is_control)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn otp_spec_length(text: &str) -> Option<u8> {
    let (kinds, length) = text.split_once('-')?;
    let plain = (1..=8).contains(&kinds.len()) && kinds.bytes().all(|byte| byte.is_ascii_uppercase());
    let length = (length.len() == 1).then(|| length.parse().ok()).flatten()?;
    (plain && (4..=9).contains(&length)).then_some(length)
}

/// Returns whether a value has bounded size, depth and number of values, and each name in it fits into one line.
fn is_extra(value: &Value) -> bool {
    fn values(value: &Value, depth: usize) -> Option<usize> {
        match value {
            Value::Array(_) | Value::Object(_) if depth == 0 => None,
            Value::Array(items) => items.iter().map(|item| values(item, depth - 1)).sum(),
            Value::Object(members) => members
                .iter()
                .map(|(key, item)| {
                    let is_name = (1..=256).contains(&key.len()) && !key.chars().any(char::is_control);
                    values(item, depth - 1).filter(|_| is_name)
                })
                .sum(),
            _ => Some(1),
        }
    }
    values(value, MAX_ANY_DEPTH).is_some_and(|count| count <= MAX_EXTRA_VALUES)
        && serde_json::to_string(value).is_ok_and(|text| text.len() <= MAX_EXTRA_BYTES)
}

/// Returns whether a value has bounded size and depth, and no control characters.
fn is_moderate(value: &Value, depth: usize) -> bool {
    fn plain(text: &str) -> bool {
        !text.chars().any(char::is_control)
    }
    fn shallow(value: &Value, depth: usize) -> bool {
        match value {
            Value::Array(items) => depth > 0 && items.iter().all(|item| shallow(item, depth - 1)),
            Value::Object(members) => {
                depth > 0 && members.iter().all(|(key, item)| plain(key) && shallow(item, depth - 1))
            }
            Value::String(text) => plain(text),
            _ => true,
        }
    }
    shallow(value, depth) && serde_json::to_string(value).is_ok_and(|text| text.len() <= MAX_ANY_BYTES)
}
