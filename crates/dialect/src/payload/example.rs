//! Examples of fields' values, for people to see and to paste.

use serde_json::{Map, Value, json};

use crate::payload::{field::AnyField, rule::Rule};

impl AnyField<'_> {
    /// Returns a value that follows the rule: the field's own example, or a value that the rule makes.
    pub fn example(&self) -> Value {
        match self.example {
            Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            None => self.rule.example(),
        }
    }
}

impl Rule<'_> {
    fn example(&self) -> Value {
        match self {
            // Numbers of nobody: digits in a row, and one that is reserved for films.
            Self::IndianMobile => "+919876543210".into(),
            Self::SriLankanMobile => "+94771234567".into(),
            Self::PhoneNumber | Self::PhoneOrEmail => "+12025550123".into(),
            Self::Email => "asha.rao@example.org".into(),
            Self::Text { min, max } => repeated("text", 4, *min, *max),
            Self::Message { max } => repeated("text", 4, 1, *max),
            Self::Identifier { max } | Self::HeaderText { max } => repeated("name-1", 6, 1, *max),
            Self::Alphanumeric { min, max } => repeated("AB12CD34", 8, *min, *max),
            Self::Digits { min, max } => repeated("1234567890", 6, *min, *max),
            Self::OneOf(words) => words.first().copied().into(),
            Self::Channel(channels) => channels.first().map(|(ours, _)| *ours).into(),
            Self::Among(words) => words.first().map(|(ours, _)| ours.as_str()).into(),
            Self::Integer { min, max } | Self::IntegerText { min, max } => 6.clamp(*min, *max).into(),
            Self::Boolean => true.into(),
            Self::YesNo => "yes".into(),
            Self::LatLong => "20.29,85.82".into(),
            Self::IpAddress => "203.0.113.7".into(),
            Self::Uuid => "01a200f7-5a48-7047-9b45-35f21e75f89a".into(),
            Self::OtpSpec => "N-6".into(),
            Self::Object { members, .. } => object(members),
            Self::List { members, .. } => json!([object(members)]),
            Self::Any => json!({}),
            Self::Extra => json!({"member": "value"}),
        }
    }
}

/// Repeats a text up to its usual length, or to the nearest length that is allowed.
fn repeated(text: &str, usual: usize, min: usize, max: usize) -> Value {
    text.chars().cycle().take(usual.clamp(min, max)).collect::<String>().into()
}

/// Returns an object of the required members; of all members if none is required.
fn object(members: &[AnyField]) -> Value {
    let needs_some = members.iter().any(|member| member.required);
    let shown = members.iter().filter(|member| member.required || !needs_some);
    Value::Object(shown.map(|member| (member.name.to_owned(), member.example())).collect::<Map<_, _>>())
}
