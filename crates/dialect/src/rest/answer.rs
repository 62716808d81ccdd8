use std::{ops::RangeInclusive, time::Duration};

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

/// A line of the description's `outcomes`. The first line that is about an answer decides its outcome.
pub(super) struct Line {
    of: Vec<Operation>,
    /// The HTTP statuses that the line is about; an empty list: every status.
    status: Vec<RangeInclusive<u16>>,
    /// What must stand in the answer: by JSON pointer, one of several values.
    when: Vec<(String, Vec<Wanted>)>,
    outcome: Outcome,
    is_guess: bool,
    is_personal: bool,
}

/// What a line wants of a member. Texts and numbers are compared as [`text_key`] makes them.
enum Wanted {
    Is(String),
    Contains(Vec<String>),
    HexDigits(Option<u64>),
    Exists(bool),
}

/// A place in an answer where a value may stand. Of several places, the first that has a value counts.
pub(super) struct Place {
    pointer: String,
    /// The sign after whose last occurrence in a text the value begins.
    after: Option<String>,
    /// How many hexadecimal digits the value must be to count.
    hex_digits: Option<u64>,
}

/// Returns whether an operation can end in an outcome: no line may claim more than its operation can mean.
fn may_end(operation: Operation, outcome: Outcome) -> bool {
    use Outcome::*;
    match outcome {
        Sent | AlreadyRegistered => matches!(operation, Send | Resend),
        Approved | InvalidCode | AlreadyUsed | MaxAttemptsReached => operation == Verify,
        Canceled => operation == Cancel,
        Expired | NotFound => operation != Send,
        // The gateway's own outcomes, which no vendor answers.
        Unreachable | Blocked => false,
        _ => true,
    }
}

/// Returns whether an outcome says that the vendor did what it was asked, which needs an HTTP status of success.
fn is_done(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled)
}

impl Line {
    /// Reads a line of `outcomes`. `described`: the operations that the description has.
    pub fn read(at: &Cursor, described: &[Operation]) -> Read<Self> {
        at.only("of status when outcome guess personal")?;
        let of = at.member("of").each(|at| at.choice(described, Operation::as_str))?;
        let of = if of.is_empty() { described.to_vec() } else { of };
        let label = at.member("outcome");
        let outcome = label.choice(&Outcome::ALL, Outcome::as_str)?;
        let whose = "of says whose answers a line is about";
        for operation in &of {
            let (may, operation) = (may_end(*operation, outcome), operation.as_str());
            label.need(may, format_args!("a {operation} cannot end as {}; {whose}", outcome.as_str()))?;
        }
        let status = at.member("status").each(|at| read_status(at, outcome))?;
        let wanted = |(pointer, at): (&str, Cursor)| Ok((read_pointer(&at, pointer)?, at.each(Wanted::read)?));
        let when: Vec<_> = at.member("when").members()?.into_iter().map(wanted).collect::<Read<_>>()?;
        at.need(!(status.is_empty() && when.is_empty()), "it is about every answer: it needs status or when")?;
        let (is_guess, is_personal) = (at.member("guess").flag()?, at.member("personal").flag()?);
        Ok(Self { of, status, when, outcome, is_guess, is_personal })
    }

    fn is_about(&self, operation: Operation, status: u16, answer: &Value) -> bool {
        self.of.contains(&operation)
            && (self.status.is_empty() || self.status.iter().any(|range| range.contains(&status)))
            && self.when.iter().all(|(at, wanted)| wanted.iter().any(|wanted| wanted.is_met(answer.pointer(at))))
    }
}

/// Reads a status, or a class of statuses: `"5xx"`.
fn read_status(at: &Cursor, outcome: Outcome) -> Read<RangeInclusive<u16>> {
    let (from, more) = match at.value.as_str().map(str::as_bytes) {
        Some([digit @ b'1'..=b'5', b'x', b'x']) => (u16::from(digit - b'0') * 100, 99),
        _ => (at.value.as_u64().and_then(|one| one.try_into().ok()).unwrap_or_default(), 0),
    };
    at.need((100..=599).contains(&from), r#"it is neither an HTTP status nor a class of them: 404, "5xx""#)?;
    let is_honest = !is_done(outcome) || is_success(from);
    at.need(is_honest, format_args!("an HTTP status that is no success cannot mean {}", outcome.as_str()))?;
    Ok(from..=from + more)
}

/// Reads a JSON pointer (RFC 6901).
fn read_pointer(at: &Cursor, pointer: &str) -> Read<String> {
    let is_escaped = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    at.need(pointer.starts_with('/') && is_escaped, "it is no JSON pointer, as /error/code")?;
    Ok(pointer.to_owned())
}

/// Longest text that is compared, in bytes. A longer one is no word of a vendor's, and each line of a description would
/// go through it.
const LONGEST: usize = 4096;

/// Returns a member's value as it is compared.
fn key(value: Option<&Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) if text.len() > LONGEST => None,
        Some(Value::Bool(is)) => Some(is.to_string()),
        value => scalar(value).map(|text| text_key(&text)),
    }
}

impl Wanted {
    fn read(at: &Cursor) -> Read<Self> {
        let what =
            r#"it is no value, {"contains": "..."}, {"hex_digits": 24} or {"exists": true}, nor an array of these"#;
        let words = |at: &Cursor| {
            let words = text_key(&at.text()?);
            at.need(!words.is_empty(), "every text contains an empty one")?;
            Ok(words)
        };
        let members: Vec<&str> = at.value.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        match members[..] {
            ["exists"] => at.member("exists").flag().map(Self::Exists),
            ["hex_digits"] => at.member("hex_digits").number(1, 256).map(Self::HexDigits),
            ["contains"] => at.member("contains").each(words).map(Self::Contains),
            _ => key(Some(at.value)).map(Self::Is).map_or_else(|| at.mistake(what), Ok),
        }
    }

    fn is_met(&self, member: Option<&Value>) -> bool {
        match self {
            Self::Is(wanted) => key(member).as_ref() == Some(wanted),
            Self::Contains(words) => key(member).is_some_and(|key| words.iter().all(|words| key.contains(words))),
            Self::HexDigits(digits) => is_hex(member, *digits),
            Self::Exists(wanted) => {
                let is_empty = |member: &Value| member.as_str().is_some_and(|text| text.trim().is_empty());
                *wanted == member.is_some_and(|member| !member.is_null() && !is_empty(member))
            }
        }
    }
}

fn is_hex(member: Option<&Value>, digits: Option<u64>) -> bool {
    let text = scalar(member).unwrap_or_default();
    Some(text.len() as u64) == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Place {
    pub fn read(at: &Cursor) -> Read<Self> {
        let pointer = |at: &Cursor| read_pointer(at, &at.text()?);
        if !at.value.is_object() {
            return Ok(Self { pointer: pointer(at)?, after: None, hex_digits: None });
        }
        at.only("at after hex_digits")?;
        let after = at.member("after").given(Cursor::text)?;
        Ok(Self { pointer: pointer(&at.member("at"))?, after, hex_digits: at.member("hex_digits").number(1, 256)? })
    }

    /// Returns the name of the member that the place points at, if the member holds an id and nothing else: a text
    /// around the id may repeat a code.
    pub fn id_name(&self) -> Option<String> {
        let name = self.pointer.rsplit('/').next()?.replace("~1", "/").replace("~0", "~");
        (self.after.is_none() && self.hex_digits.is_none()).then_some(name)
    }
}

fn find<T>(places: &[Place], answer: &Value, read: impl Fn(Option<&Value>) -> Option<T>) -> Option<T> {
    places.iter().find_map(|place| {
        let is_it = |member: &&Value| place.hex_digits.is_none() || is_hex(Some(member), place.hex_digits);
        let member = answer.pointer(&place.pointer).filter(is_it);
        let Some(sign) = &place.after else { return read(member) };
        read(Some(&member?.as_str()?.rsplit_once(sign.as_str())?.1.into()))
    })
}

impl Description {
    /// Reads an answer. Returns None for an empty answer that no line is about: the rules that all vendors share decide
    /// then.
    pub fn read(&self, operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
        let (code, words) = (find(&self.vendor_code, answer, scalar), find(&self.vendor_message, answer, scalar));
        let unknown = |why| Some(CallResult::unknown(why, code.clone(), words.clone()));
        let Some(line) = self.lines.iter().find(|line| line.is_about(operation, status, answer)) else {
            return if answer.is_null() { None } else { unknown("no line of the description is about this answer") };
        };
        if is_done(line.outcome) && !is_success(status) {
            return unknown(DENIED);
        }
        let places = self.reference.as_ref().filter(|_| line.outcome == Outcome::Sent);
        let reference = places.and_then(|places| find(places, answer, reference));
        let begins = operation == Send || self.message(operation).is_some_and(|message| message.cancel_first);
        let is_needed = begins && places.is_some() && self.is_found_by_reference();
        if is_needed && reference.is_none() {
            return unknown("the vendor says sent, and gives no reference");
        }
        // Words that are the reference are no message.
        let words = words.filter(|words| reference.as_ref() != Some(words));
        Some(CallResult {
            reference,
            attempts_left: find(&self.attempts_left, answer, count),
            retry_after: find(&self.retry_after, answer, count).map(|seconds| Duration::from_secs(seconds.into())),
            is_guess: line.is_guess,
            is_personal: line.is_personal,
            ..CallResult::new(line.outcome, code, words)
        })
    }
}
