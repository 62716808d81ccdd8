//! What the vendors' pages allow in a request. A complaint says what was wrong with one, in words for whoever wrote it.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::dialect::{Call, is_form};

pub struct Field {
    name: &'static str,
    required: bool,
    rule: Rule,
}

impl Field {
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Ok, or what the value must be.
type Rule = fn(&Value) -> Result<(), &'static str>;

pub const fn required(name: &'static str, rule: Rule) -> Field {
    Field { name, required: true, rule }
}

pub const fn optional(name: &'static str, rule: Rule) -> Field {
    Field { name, required: false, rule }
}

/// Method, query string, content type, and that the body is a JSON object.
pub fn envelope(call: &Call<'_>) -> Option<String> {
    let http = call.http;
    if http.method != "POST" {
        return Some(format!("method {} in place of POST", http.method));
    }
    match http.header("content-type") {
        None => return Some("no content-type header".into()),
        Some(given) => {
            let media = given.split(';').next().unwrap_or("").trim();
            if !media.eq_ignore_ascii_case("application/json") {
                return Some(format!("content-type {given} in place of application/json"));
            }
        }
    }
    match &call.json {
        Value::Object(_) => None,
        // Parsed once more to say why: this is off the busy path.
        _ => Some(match serde_json::from_slice::<Value>(&http.body) {
            Ok(_) => "the body is not a JSON object".into(),
            Err(error) => format!("the body is not JSON: {error}"),
        }),
    }
}

/// The same of a form, whose fields are texts.
pub fn form_envelope(call: &Call<'_>) -> Option<String> {
    let http = call.http;
    if http.method != "POST" {
        return Some(format!("method {} in place of POST", http.method));
    }
    if !is_form(http) {
        return Some("the content-type is not application/x-www-form-urlencoded".into());
    }
    (!call.json.is_object()).then(|| "the body is no form, or has a field twice".to_owned())
}

pub fn no_query(call: &Call<'_>) -> Option<String> {
    (!call.http.query.is_empty()).then(|| format!("a query string: {}", call.http.query))
}

/// A header that must be there, and must not be empty.
pub fn header(call: &Call<'_>, name: &str) -> Option<String> {
    match call.http.header(name) {
        None => Some(format!("no {name} header")),
        Some("") => Some(format!("the {name} header is empty")),
        Some(_) => None,
    }
}

pub struct Wrong {
    pub field: String,
    pub missing: bool,
    pub text: String,
}

/// The first field of `object` that breaks its rule, is missing, or is known to nobody.
pub fn fields(object: &Value, fields: &[Field]) -> Option<Wrong> {
    // What must be an object says so in its own rule; here anything else has no members.
    let nothing = Map::new();
    let members = object.as_object().unwrap_or(&nothing);
    let mut found = 0;
    for field in fields {
        let Some(value) = members.get(field.name) else {
            if field.required {
                return Some(Wrong {
                    field: field.name.into(),
                    missing: true,
                    text: format!("{} is missing", field.name),
                });
            }
            continue;
        };
        found += 1;
        if let Err(rule) = (field.rule)(value) {
            return Some(Wrong {
                field: field.name.into(),
                missing: false,
                text: format!("{} must be {rule}", field.name),
            });
        }
    }
    if found == members.len() {
        return None;
    }
    let unknown = members.keys().find(|key| fields.iter().all(|field| field.name != key.as_str()))?;
    Some(Wrong { field: unknown.clone(), missing: false, text: format!("{unknown} is not a field of this call") })
}

fn text_where(value: &Value, test: impl Fn(&str) -> bool, rule: &'static str) -> Result<(), &'static str> {
    match value {
        Value::String(text) if test(text) => Ok(()),
        _ => Err(rule),
    }
}

pub fn is_digits(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub fn any_text(value: &Value) -> Result<(), &'static str> {
    text_where(value, |_| true, "a string")
}

pub fn text(value: &Value) -> Result<(), &'static str> {
    text_where(value, |text| !text.is_empty(), "a string that is not empty")
}

pub fn indian_mobile(value: &Value) -> Result<(), &'static str> {
    let is_mobile = |text: &str| is_digits(text, 10, 10) && text.starts_with(['6', '7', '8', '9']);
    text_where(value, is_mobile, "a string of 10 digits, the first of them 6 to 9")
}

pub fn aadhaar(value: &Value) -> Result<(), &'static str> {
    text_where(value, |text| is_digits(text, 12, 12), "a string of 12 digits")
}

pub fn pincode(value: &Value) -> Result<(), &'static str> {
    text_where(value, |text| is_digits(text, 6, 6), "a string of 6 digits")
}

pub fn ip_address(value: &Value) -> Result<(), &'static str> {
    text_where(value, |text| text.parse::<IpAddr>().is_ok(), "an IP address")
}

pub fn lat_long(value: &Value) -> Result<(), &'static str> {
    let is_pair = |text: &str| {
        text.split_once(',')
            .is_some_and(|(lat, long)| lat.trim().parse::<f64>().is_ok() && long.trim().parse::<f64>().is_ok())
    };
    text_where(value, is_pair, "a string \"lat,long\"")
}

pub fn boolean(value: &Value) -> Result<(), &'static str> {
    value.is_boolean().then_some(()).ok_or("true or false")
}

pub fn object(value: &Value) -> Result<(), &'static str> {
    value.is_object().then_some(()).ok_or("an object")
}

pub fn array(value: &Value) -> Result<(), &'static str> {
    value.is_array().then_some(()).ok_or("an array")
}

pub fn one_of(value: &Value, allowed: &[&str], rule: &'static str) -> Result<(), &'static str> {
    text_where(value, |text| allowed.contains(&text), rule)
}

/// A whole number in a range, written as a string.
pub fn number_text(
    value: &Value,
    range: std::ops::RangeInclusive<u64>,
    rule: &'static str,
) -> Result<(), &'static str> {
    let is_in_range = |text: &str| is_digits(text, 1, 9) && text.parse().is_ok_and(|number| range.contains(&number));
    text_where(value, is_in_range, rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FIELDS: [Field; 2] = [required("mobile", indian_mobile), optional("place", lat_long)];

    #[test]
    fn complaints_name_the_field() {
        let complaint = |body: Value| fields(&body, &FIELDS).map(|wrong| wrong.text);
        assert_eq!(complaint(json!({"mobile": "9123456789"})), None);
        assert_eq!(complaint(json!({})).unwrap(), "mobile is missing");
        assert_eq!(
            complaint(json!({"mobile": 123456789})).unwrap(),
            "mobile must be a string of 10 digits, the first of them 6 to 9"
        );
        assert_eq!(
            complaint(json!({"mobile": "5123456789"})).unwrap(),
            "mobile must be a string of 10 digits, the first of them 6 to 9"
        );
        assert_eq!(complaint(json!({"mobile": "9123456789", "place": "1.5, 2"})), None);
        assert_eq!(
            complaint(json!({"mobile": "9123456789", "Mobile": "x"})).unwrap(),
            "Mobile is not a field of this call"
        );
    }
}
