use std::time::Duration;

use serde_json::Value;

use crate::{
    dialect::Dialect,
    operation::Operation,
    outcome::Outcome,
    redact::{names_a_person, whole},
};

/// Longest answer that is read, in bytes; the outcome of a longer one is `unknown`.
pub const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Deepest nesting of an answer that is read; the outcome of a deeper one is `unknown`.
pub const MAX_RESPONSE_DEPTH: usize = 64;
/// Longest `vendor_message` that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 500;
/// How many characters are kept of an answer that is not JSON.
const MAX_PLAIN_CHARS: usize = 200;
const MAX_CODE_CHARS: usize = 64;
const MAX_REFERENCE_CHARS: usize = 256;

/// An HTTP answer as it came.
pub struct HttpResponse<'a> {
    pub status: u16,
    /// The `Retry-After` header, whether it holds seconds or a date, as a wait from now.
    pub retry_after: Option<Duration>,
    /// The body, cut after [`MAX_RESPONSE_BYTES`] + 1 bytes.
    pub body: &'a [u8],
}

/// The meaning of an answer.
#[derive(Clone, PartialEq)]
pub struct CallResult {
    pub outcome: Outcome,
    pub vendor_code: Option<String>,
    /// The vendor's words, or the gateway's own where it must say why the outcome is `unknown`. Not yet redacted.
    pub vendor_message: Option<String>,
    /// The reference that the vendor gave to this flow.
    pub reference: Option<String>,
    pub attempts_left: Option<u32>,
    pub retry_after: Option<Duration>,
    /// The outcome is guessed from words that no page lists, or that pages read differently: it ends no verification.
    pub is_guess: bool,
    /// The failure may concern this recipient or journey alone: it says nothing of the provider's health.
    pub is_personal: bool,
    /// The answer as JSON, unaltered.
    pub response: Option<Value>,
}

/// Leaves out the vendor's words and answer, which may repeat what the vendor was sent.
impl std::fmt::Debug for CallResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallResult")
            .field("outcome", &self.outcome)
            .field("attempts_left", &self.attempts_left)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

impl CallResult {
    pub fn new(outcome: Outcome, vendor_code: Option<String>, vendor_message: Option<String>) -> Self {
        Self {
            outcome,
            vendor_code,
            vendor_message,
            reference: None,
            attempts_left: None,
            retry_after: None,
            is_guess: false,
            is_personal: false,
            response: None,
        }
    }

    /// Makes the result of an answer that nobody can act on; `why` goes before the vendor's words.
    pub(crate) fn unknown(why: &str, vendor_code: Option<String>, vendor_message: Option<String>) -> Self {
        let message = match vendor_message {
            Some(words) => format!("{why}: {words}"),
            None => why.into(),
        };
        Self::new(Outcome::Unknown, vendor_code, Some(message))
    }
}

/// Reads an answer: first the body, by the vendor's own table; if the table says nothing, the HTTP status, by the rules
/// that all vendors share (docs/vendors/README.md).
pub fn interpret(dialect: &Dialect, operation: Operation, answer: &HttpResponse) -> CallResult {
    let value = json(answer.body);
    // An empty body is read as null: an HTTP status may be all that a vendor says (204).
    let is_empty = answer.body.trim_ascii().is_empty();
    let body = value.as_ref().ok().or(is_empty.then_some(&Value::Null));
    let own = body.and_then(|body| dialect.read(operation, answer.status, body));
    let mut reading = own.unwrap_or_else(|| outcome_of_status(answer, why(dialect, &value, answer.body)));
    if reading.outcome == Outcome::InvalidCode && operation != Operation::Verify {
        // Only a verify carries a code, so no other operation can have had an invalid one.
        reading.outcome = Outcome::Refused;
    }
    if matches!(reading.outcome, Outcome::RateLimited | Outcome::ProviderError) {
        reading.retry_after = answer.retry_after.or(reading.retry_after);
    } else {
        reading.retry_after = None;
    }
    reading.vendor_code = reading.vendor_code.and_then(|code| tidy(&code, MAX_CODE_CHARS));
    reading.vendor_message = reading.vendor_message.and_then(|words| tidy(&words, MAX_MESSAGE_CHARS));
    if reading.outcome == Outcome::Unknown && reading.vendor_message.is_none() {
        reading.vendor_message = Some("the vendor does not say what became of the request".into());
    }
    reading.response = value.ok();
    reading
}

/// Parses a body; a byte order mark before the JSON is passed over. An error says in the gateway's words why the body
/// is not read.
pub(crate) fn json(body: &[u8]) -> Result<Value, &'static str> {
    if body.len() > MAX_RESPONSE_BYTES {
        return Err("the answer is longer than 1 MiB");
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return Err("the answer is not UTF-8");
    };
    if json_depth_exceeds(body, MAX_RESPONSE_DEPTH) {
        return Err("the answer is nested deeper than 64 levels");
    }
    let text = without_mark(text);
    serde_json::from_str(text).map_err(|_| match text.trim_start().chars().next() {
        None => "the answer is empty",
        Some('<') => "the answer is not JSON but HTML or XML, as of a proxy or another host",
        Some(_) => "the answer is not JSON, or not all of it came",
    })
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Says why the vendor's table could not be used, and appends the beginning of a body that is no JSON. A JSON that is
/// cut short is appended only if no member in it names a person: half a JSON cannot be redacted by its members.
fn why(dialect: &Dialect, value: &Result<Value, &'static str>, body: &[u8]) -> String {
    let why = match value {
        Ok(_) => return "the answer is not in the vendor's documented form".into(),
        Err(why) => *why,
    };
    // A character of UTF-8 has four bytes at most.
    let beginning = String::from_utf8_lossy(&body[..body.len().min(MAX_PLAIN_CHARS * 4 + 4)]);
    let words = tidy(without_mark(&beginning).trim_start(), MAX_PLAIN_CHARS);
    match words.filter(|words| !words.starts_with(['{', '[']) || !names_a_person(dialect, words)) {
        Some(words) => format!("{why}: {words}"),
        None => why.into(),
    }
}

/// Reads the outcome from the HTTP status, where the body is not in the vendor's form.
fn outcome_of_status(answer: &HttpResponse, why: String) -> CallResult {
    let status = answer.status;
    let redirects = "the host redirects, which is never followed; the option base_url may name an old host";
    let is_bare = answer.body.trim_ascii().is_empty();
    // A bare 503, or one with Retry-After, comes from a server that has not let the request in. A 503 with other words
    // may come from a proxy whose server hung up after it had read the request.
    let is_turned_away = is_bare || answer.retry_after.is_some();
    let elsewhere = "the option base_url may name a wrong host or path";
    let (outcome, message) = match status {
        401 | 403 => (Outcome::AuthFailed, format!("HTTP {status}, and {why}")),
        429 => (Outcome::RateLimited, format!("HTTP 429, and {why}")),
        503 if is_turned_away => (Outcome::ProviderError, format!("HTTP 503, and {why}")),
        // The host asks for the same request at another place: here nothing was done.
        307 | 308 => (Outcome::ProviderError, format!("HTTP {status}: {redirects}; {why}")),
        // Other redirects may point to the result of a request that was carried out.
        300..=399 => (Outcome::Unknown, format!("HTTP {status}: {redirects}; {why}")),
        // The other side gave up reading the request, or hung up.
        408 | 499 => (Outcome::Unknown, format!("HTTP {status}, and {why}")),
        // HTTP's own words alone, for a request that was not carried out.
        400..=499 if is_bare => (Outcome::Refused, format!("HTTP {status}, and {why}; {elsewhere}")),
        // Another host than the vendor's answers, or the vendor not as its page says: nobody can tell what was done.
        400..=499 => (Outcome::Unknown, format!("HTTP {status}; {elsewhere}; {why}")),
        _ => (Outcome::Unknown, format!("HTTP {status}, and {why}")),
    };
    CallResult::new(outcome, None, Some(message))
}

/// Returns the outcome of a failure in the vendor's form whose code the vendor's page does not list: only the HTTP
/// status is left to tell. After a server error nobody knows whether a verify compared the code.
pub(crate) fn unlisted(operation: Operation, status: u16) -> Outcome {
    match status {
        401 | 403 => Outcome::AuthFailed,
        429 => Outcome::RateLimited,
        500 | 501 | 503 if operation != Operation::Verify => Outcome::ProviderError,
        500..=599 => Outcome::Unknown,
        _ => Outcome::Refused,
    }
}

/// The gateway's words for an answer whose body says success and whose HTTP status does not.
pub(crate) const DENIED: &str = "the body says success and the HTTP status does not";

pub(crate) fn is_success(status: u16) -> bool {
    (200..=299).contains(&status)
}

/// Returns a text, or a whole number as text: vendors write the same member both ways, and a number also as `200.0`.
pub(crate) fn scalar(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => integer(&number.to_string()),
        _ => None,
    }
}

fn integer(number: &str) -> Option<String> {
    let digits = whole(number)?;
    Some(match (digits.as_str(), number.starts_with('-')) {
        ("", _) => "0".into(),
        (digits, true) => format!("-{digits}"),
        (digits, false) => digits.into(),
    })
}

/// Reads a count, which may come as text.
pub(crate) fn count(value: Option<&Value>) -> Option<u32> {
    scalar(value).and_then(|text| text.parse().ok())
}

/// Reads a reference; returns None for one that is too long or has control characters, and cannot be sent back.
pub(crate) fn reference(value: Option<&Value>) -> Option<String> {
    scalar(value).filter(|text| text.chars().count() <= MAX_REFERENCE_CHARS && !text.chars().any(char::is_control))
}

/// Makes one line of bounded length of a vendor's words. A cut is marked by `…`: the last word may be half a secret.
fn tidy(text: &str, max: usize) -> Option<String> {
    let is_long = text.chars().nth(max).is_some();
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max - usize::from(is_long));
    let line: String = shown.chain(is_long.then_some('…')).collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Returns whether arrays and objects nest deeper than `depth`, without parsing or recursion.
pub fn json_depth_exceeds(body: &[u8], depth: usize) -> bool {
    let mut open = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                open += 1;
                if open > depth {
                    return true;
                }
            }
            b']' | b'}' if !in_text => open = open.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_but_not_those_in_text() {
        assert!(!json_depth_exceeds(br#"[[1],[2]]"#, 2));
        assert!(json_depth_exceeds(br#"[[[1]]]"#, 2));
        assert!(!json_depth_exceeds(br#"["[[[[\"[[["]"#, 1));
        assert!(!json_depth_exceeds(br#"["\\",[1]]"#, 2));
        assert!(json_depth_exceeds(br#"["\\",[[1]]]"#, 2));
        assert!(json_depth_exceeds(&b"[".repeat(1_000_000), 64));
    }
}
