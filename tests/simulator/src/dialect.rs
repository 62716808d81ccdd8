//! What every vendor's dialect has to tell the simulator, and the names that tests use for operations.

use std::borrow::Cow;

use serde_json::Value;

use crate::code::Dice;
use crate::http::{Request, query_pairs};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Send,
    Verify,
    Resend,
    Cancel,
    Token,
    Unknown,
}

impl Operation {
    pub const ALL: [Operation; 6] = [
        Operation::Send,
        Operation::Verify,
        Operation::Resend,
        Operation::Cancel,
        Operation::Token,
        Operation::Unknown,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Send => "send",
            Operation::Verify => "verify",
            Operation::Resend => "resend",
            Operation::Cancel => "cancel",
            Operation::Token => "token",
            Operation::Unknown => "unknown",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// A request on its way into a dialect.
pub struct Call<'a> {
    pub operation: Operation,
    /// Behind the vendor's prefix.
    pub path: &'a str,
    pub http: &'a Request<'a>,
    /// The body: JSON, or the fields of a form as an object of texts. Null if it is neither, or if a form has a field
    /// twice.
    pub json: Value,
}

impl<'a> Call<'a> {
    pub fn new(operation: Operation, path: &'a str, http: &'a Request<'a>) -> Self {
        let json = if is_form(http) { form(&http.body) } else { serde_json::from_slice(&http.body).ok() };
        Call { operation, path, http, json: json.unwrap_or(Value::Null) }
    }

    /// A text in the body; empty where there is none, so only for what [`crate::strict`] has let through.
    pub fn text(&self, name: &str) -> &str {
        self.json.get(name).and_then(Value::as_str).unwrap_or("")
    }

    pub fn text_if_any(&self, name: &str) -> Option<Cow<'_, str>> {
        self.json.get(name).and_then(Value::as_str).map(Cow::Borrowed)
    }
}

pub fn is_form(http: &Request<'_>) -> bool {
    let media = http.header("content-type").and_then(|given| given.split(';').next()).unwrap_or("").trim();
    media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn form(body: &[u8]) -> Option<Value> {
    let mut fields = serde_json::Map::new();
    for (name, value) in query_pairs(std::str::from_utf8(body).ok()?) {
        if fields.insert(name.into_owned(), Value::from(value)).is_some() {
            return None;
        }
    }
    Some(Value::Object(fields))
}

/// Whom and what a request is about, as far as it can be told, whether or not the request is in order.
#[derive(Default)]
pub struct About<'a> {
    pub recipient: Option<Cow<'a, str>>,
    pub reference: Option<Cow<'a, str>>,
    /// The key that a caller makes unique for each send, or for each journey.
    pub key: Option<Cow<'a, str>>,
}

pub struct Reply {
    pub status: u16,
    pub body: String,
    /// What the request did that the vendor's page does not allow.
    pub complaint: Option<String>,
    /// Recipient and code, when a message went out.
    pub message: Option<(String, String)>,
}

impl Reply {
    pub fn ok(body: impl Into<String>) -> Self {
        Reply::status(200, body)
    }

    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Reply { status, body: body.into(), complaint: None, message: None }
    }

    pub fn complaining(mut self, complaint: impl Into<String>) -> Self {
        self.complaint = Some(complaint.into());
        self
    }

    pub fn delivering(mut self, recipient: impl Into<String>, code: impl Into<String>) -> Self {
        self.message = Some((recipient.into(), code.into()));
        self
    }
}

pub trait Dialect {
    /// By the path behind the prefix alone: a wrong method is a complaint, not another operation.
    fn operation(&self, path: &str) -> Operation;

    /// The same where the method tells two operations of one path apart.
    fn operation_of(&self, _method: &str, path: &str) -> Operation {
        self.operation(path)
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a>;

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply;
}

/// `text` as a JSON string, quotes and all.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The one word that is refused in every credential; every other that is not empty is accepted.
pub fn is_refused(credential: &str) -> bool {
    credential.contains("wrong")
}

/// User name and password of `Basic ...`.
pub fn basic_credentials(authorization: &str) -> Option<(String, String)> {
    use base64::Engine;
    let encoded = authorization.strip_prefix("Basic ")?;
    let plain = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let plain = String::from_utf8(plain).ok()?;
    let (user, password) = plain.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Sends one request straight into a dialect.
    pub fn ask(dialect: &mut dyn Dialect, target: &str, headers: &[(&str, &str)], body: &str, now_ms: u64) -> Reply {
        ask_by("POST", dialect, target, headers, body, now_ms)
    }

    pub fn ask_by(
        method: &str,
        dialect: &mut dyn Dialect,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
        now_ms: u64,
    ) -> Reply {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let http = Request { method, path, query, headers: &headers, body: body.as_bytes().into() };
        let call = Call::new(dialect.operation_of(method, path), path, &http);
        dialect.answer(&call, now_ms, &mut Dice::new())
    }

    /// A code that is surely not `code`, of the same length.
    pub fn other_than(code: &str) -> String {
        let first = if code.starts_with('1') { '2' } else { '1' };
        format!("{first}{}", &code[1..])
    }
}
