use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    operation::Operation::{self, Cancel, Resend, Send, Verify},
    outcome::Outcome,
    response::{CallResult, DENIED, count, is_success, reference, scalar},
    rest::{
        Description,
        cursor::{Cursor, Read},
    },
    wording::text_key,
};

/// What decides: the first line that is about an answer.
pub(super) struct Line {
    of: Vec<Operation>,
    /// HTTP statuses, from and to; none: all.
    status: Vec<(u16, u16)>,
    /// What must stand where, by JSON pointer.
    when: Map<String, Value>,
    outcome: Outcome,
    is_guess: bool,
    is_personal: bool,
}

/// Where something stands: the first of them that is there.
#[derive(Default)]
pub(super) struct Places(Vec<Place>);

struct Place {
    pointer: String,
    /// Of a text what comes after the last of these.
    after: Option<String>,
    /// It is there only as so many hexadecimal digits.
    hex_digits: Option<u64>,
}

/// What an outcome may be of: none may claim more than its operation can mean.
fn may_end(operation: Operation, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Sent | Outcome::AlreadyRegistered => matches!(operation, Send | Resend),
        Outcome::Approved | Outcome::InvalidCode | Outcome::AlreadyUsed | Outcome::MaxAttemptsReached => {
            operation == Verify
        }
        Outcome::Canceled => operation == Cancel,
        Outcome::Expired | Outcome::NotFound => operation != Send,
        // The gateway's own words, for what no vendor answers.
        Outcome::Unreachable | Outcome::Blocked => false,
        _ => true,
    }
}

/// Whether the vendor did what it was asked: only an HTTP status of success can say so.
fn is_done(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled)
}

impl Line {
    /// `described`: the operations that there are.
    pub fn read(at: &Cursor, described: &[Operation]) -> Read<Self> {
        at.only(&["of", "status", "when", "outcome", "guess", "personal"])?;
        let mut of = at.member("of").each(|at| at.choice(described, Operation::as_str))?;
        if of.is_empty() {
            of = described.to_vec();
        }
        let label = at.member("outcome");
        let outcome = label.choice(&Outcome::ALL, Outcome::as_str)?;
        if let Some(operation) = of.iter().find(|operation| !may_end(**operation, outcome)) {
            let (operation, outcome) = (operation.as_str(), outcome.as_str());
            return label
                .mistake(format!("a {operation} cannot end as {outcome}; of says whose answers a line is about"));
        }
        let status = at.member("status").each(|at| read_status(at, outcome))?;
        let when = at.member("when");
        for (pointer, at) in when.members()? {
            read_pointer(&at, pointer)?;
            at.each(check_wanted)?;
        }
        let when = when.value.as_object().cloned().unwrap_or_default();
        if status.is_empty() && when.is_empty() {
            return at.mistake("it is about every answer: it needs status or when");
        }
        let (is_guess, is_personal) = (at.member("guess").flag()?, at.member("personal").flag()?);
        Ok(Self { of, status, when, outcome, is_guess, is_personal })
    }

    fn is_about(&self, operation: Operation, status: u16, answer: &Value) -> bool {
        self.of.contains(&operation)
            && (self.status.is_empty() || self.status.iter().any(|(from, to)| (*from..=*to).contains(&status)))
            && self.when.iter().all(|(pointer, wanted)| is_met(wanted, answer.pointer(pointer)))
    }
}

/// A status, or a class of them: `"5xx"`.
fn read_status(at: &Cursor, outcome: Outcome) -> Read<(u16, u16)> {
    let one = at.value.as_u64().and_then(|number| u16::try_from(number).ok()).map(|one| (one, one));
    let class = || match at.value.as_str()?.as_bytes() {
        [digit @ b'1'..=b'5', b'x', b'x'] => Some(u16::from(digit - b'0') * 100).map(|from| (from, from + 99)),
        _ => None,
    };
    match one.or_else(class).filter(|(from, to)| *from >= 100 && *to <= 599) {
        Some((from, to)) if is_done(outcome) && !(is_success(from) && is_success(to)) => {
            at.mistake(format!("an HTTP status that is no success cannot mean {}", outcome.as_str()))
        }
        Some(range) => Ok(range),
        None => at.mistake(r#"it is neither an HTTP status nor a class of them: 404, "5xx""#),
    }
}

/// A JSON pointer (RFC 6901).
fn read_pointer(at: &Cursor, pointer: &str) -> Read<String> {
    let is_escaped = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if pointer.starts_with('/') && is_escaped {
        return Ok(pointer.to_owned());
    }
    at.mistake("it is no JSON pointer, as /error/code")
}

/// A value, the texts that another has in it, or whether there is one.
fn check_wanted(at: &Cursor) -> Read<()> {
    let is_text = |at: &Cursor| match at.text()? {
        words if text_key(words).is_empty() => at.mistake("every text contains an empty one"),
        _ => Ok(()),
    };
    match at.value {
        Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(_) if scalar(Some(at.value)).is_some() => Ok(()),
        Value::Object(members) if members.len() == 1 && members.contains_key("exists") => {
            at.member("exists").flag().map(drop)
        }
        Value::Object(members) if members.len() == 1 && members.contains_key("hex_digits") => {
            at.member("hex_digits").number(1, 256).map(drop)
        }
        Value::Object(members) if members.len() == 1 && members.contains_key("contains") => {
            at.member("contains").each(is_text).map(drop)
        }
        _ => at.mistake(
            r#"it is no value, {"contains": "..."}, {"hex_digits": 24} or {"exists": true}, nor an array of these"#,
        ),
    }
}

/// Whether a member of an answer is what a line wants: texts and numbers are compared as [`text_key`] has them.
fn is_met(wanted: &Value, member: Option<&Value>) -> bool {
    let key = |value: Option<&Value>| match value {
        Some(Value::Bool(is)) => Some(is.to_string()),
        value => scalar(value).map(|text| text_key(&text)),
    };
    match wanted {
        Value::Array(several) => several.iter().any(|wanted| is_met(wanted, member)),
        Value::Object(kind) => match (kind.get("exists"), kind.get("hex_digits"), kind.get("contains")) {
            (Some(exists), ..) => {
                let is_empty = |member: &Value| member.as_str().is_some_and(|text| text.trim().is_empty());
                *exists == member.is_some_and(|member| !member.is_null() && !is_empty(member))
            }
            (_, Some(digits), _) => is_hex(member, digits.as_u64()),
            (.., words) => key(member).is_some_and(|key| match words {
                Some(Value::Array(words)) => {
                    words.iter().filter_map(Value::as_str).all(|words| key.contains(&text_key(words)))
                }
                words => words.and_then(Value::as_str).is_some_and(|words| key.contains(&text_key(words))),
            }),
        },
        wanted => key(member).is_some_and(|given| key(Some(wanted)).as_ref() == Some(&given)),
    }
}

fn is_hex(member: Option<&Value>, digits: Option<u64>) -> bool {
    let text = scalar(member).unwrap_or_default();
    Some(text.len() as u64) == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Places {
    pub fn read(at: &Cursor) -> Read<Self> {
        let place = |at: &Cursor| {
            if !at.value.is_object() {
                return Ok(Place { pointer: read_pointer(at, at.text()?)?, after: None, hex_digits: None });
            }
            at.only(&["at", "after", "hex_digits"])?;
            let (pointer, after) = (at.member("at"), at.member("after"));
            let after = if after.is_missing() { None } else { Some(after.text()?.to_owned()) };
            let hex_digits = at.member("hex_digits").number(1, 256)?;
            Ok(Place { pointer: read_pointer(&pointer, pointer.text()?)?, after, hex_digits })
        };
        at.each(place).map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the members that they point at.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let last = |pointer: &str| pointer.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
        self.0.iter().map(move |place| last(&place.pointer))
    }

    fn find<T>(&self, answer: &Value, read: impl Fn(Option<&Value>) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|place| {
            let member = answer.pointer(&place.pointer);
            if place.hex_digits.is_some() && !is_hex(member, place.hex_digits) {
                return None;
            }
            let Some(sign) = &place.after else { return read(member) };
            read(Some(&member?.as_str()?.rsplit_once(sign.as_str())?.1.into()))
        })
    }
}

impl Description {
    /// None: an empty answer of which no line says anything. The rules that all vendors share decide.
    pub fn read(&self, operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
        let (code, words) = (self.vendor_code.find(answer, scalar), self.vendor_message.find(answer, scalar));
        let unknown = |why| Some(CallResult::unknown(why, code.clone(), words.clone()));
        let Some(line) = self.lines.iter().find(|line| line.is_about(operation, status, answer)) else {
            return if answer.is_null() { None } else { unknown("no line of the description is about this answer") };
        };
        if is_done(line.outcome) && !is_success(status) {
            return unknown(DENIED);
        }
        let reference = self.reference.find(answer, reference).filter(|_| line.outcome == Outcome::Sent);
        let begins = operation == Send || self.message(operation).is_some_and(|message| message.cancel_first);
        let needs_reference = self.is_found_by_reference && !self.gives_reference;
        if line.outcome == Outcome::Sent && begins && reference.is_none() && needs_reference {
            return unknown("the vendor says sent, and gives no reference");
        }
        // What is a reference is no message.
        let words = words.filter(|words| reference.as_ref() != Some(words));
        Some(CallResult {
            reference,
            attempts_left: self.attempts_left.find(answer, count),
            retry_after: self.retry_after.find(answer, count).map(|seconds| Duration::from_secs(seconds.into())),
            is_guess: line.is_guess,
            is_personal: line.is_personal,
            ..CallResult::new(line.outcome, code, words)
        })
    }
}
