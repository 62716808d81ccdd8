use std::{collections::BTreeMap, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    operation::Operation,
    outcome::Outcome,
    secret::{Private, Secret},
};

/// One operation as the caller asked for it: a dialect makes an HTTP message of it.
pub struct Call<'a> {
    pub operation: Operation,
    /// The caller's JSON object, fields under our names or the vendor's own.
    pub payload: &'a Map<String, Value>,
    /// The server option `defaults`, laid under the payload. A default that this operation has no field for is ignored.
    pub defaults: &'a Map<String, Value>,
    /// What the verification already knows, under our names: the `retained` of its send, and `reference`. A payload's
    /// field weighs more, a default less. Empty for a send and for a flow begun elsewhere.
    pub retained_before: &'a Map<String, Value>,
    /// The server options that only this vendor has ([`crate::dialect::Dialect::server_options`]), as far as they are
    /// set. Each was checked when it was written; a required option is there.
    pub options: &'a BTreeMap<String, String>,
    /// The user mapping's options; of a `_file` option, the file's content. Complete: the provider checked them against
    /// [`crate::dialect::Dialect::credential_sets`].
    pub credentials: &'a BTreeMap<String, Secret>,
    /// The user's code, as [`crate::payload::code::CodeForm::read`] gives it; only a verify has one.
    pub code: Option<&'a Secret>,
    pub verification_id: &'a str,
    /// Unique to this attempt: a resend's trace id, since the send has used the verification's own.
    pub attempt_id: &'a str,
    /// The server option `code_lifetime`, if set.
    pub code_lifetime: Option<Duration>,
}

/// The HTTP method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub const ALL: [Method; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// An HTTP message. Its path is relative to a base URL, but for a token request.
#[derive(Debug, Serialize, Deserialize)]
pub struct HttpRequest {
    pub method: Method,
    /// Appended to `base_url`, starts with `/`. A value within the path is written by `path_segment`.
    pub path: Secret,
    /// URL-encoded by the HTTP client, in this order.
    pub query: Vec<(String, Secret)>,
    /// Every header's value is treated as a secret.
    pub headers: Vec<(String, Secret)>,
    /// An empty text means that the request has no body.
    pub body: Secret,
}

/// How long a call may take by default: from the wait for one of `max_in_flight` places to the answer's last byte.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How `otp_verify(provider, ...)` finds the verification that a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FindBy {
    Reference,
    Recipient,
}

/// What a dialect makes of a [`Call`].
pub struct Prepared {
    pub request: HttpRequest,
    /// A call that is made before `request`: REL-ID's resend. `request` follows if the vendor canceled (`canceled`) or
    /// says that there is nothing to cancel (`not_found`, `expired`). The answer is read as that of a cancel.
    pub cancel_first: Option<HttpRequest>,
    /// Whom the code goes to: a number, normalised so that every spelling of it is one recipient (`+94771234567`), or a
    /// user id. None where the operation does not say (a verify by reference of a flow begun elsewhere).
    pub recipient: Option<Secret>,
    /// The recipient as people may see it: `+94*****4567`-like, never more than a prefix and the last four characters.
    pub recipient_masked: Option<String>,
    /// The vendor's or the caller's reference of this flow, if one is known before the call.
    pub reference: Option<String>,
    pub find_by: FindBy,
    /// What a later verify, resend or cancel of this verification needs, under our names; the caller seals it.
    pub retained: Private<Map<String, Value>>,
    /// Values that are redacted from whatever a vendor answers: code, number (every spelling sent), Aadhaar number,
    /// token, credentials.
    pub secrets: Vec<Secret>,
    /// How long the code is valid, if this payload says so (else the provider's `code_lifetime`).
    pub code_lifetime: Option<Duration>,
    /// The vendor's page does not say how long a code of this kind lives, whatever
    /// [`crate::dialect::Dialect::code_lifetime`] says of other codes.
    pub has_no_life: bool,
    /// How long the call may take, if not [`TIMEOUT`] (the option `timeout` weighs more).
    pub timeout: Option<Duration>,
    /// The vendor sends the same code again, and the code lives no longer for it: HyperVerge's resend.
    pub keeps_code: bool,
    /// How many checks the vendor allows, if this payload says so (else the provider's `max_checks`).
    pub max_checks: Option<u32>,
    /// The gateway's own answer, without a call: only the sandbox sets it.
    pub local_outcome: Option<Outcome>,
}

/// Leaves out the reference, which may be a value of the caller's, and whatever names the recipient.
impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("request", &self.request)
            .field("cancel_first", &self.cancel_first)
            .field("recipient_masked", &self.recipient_masked)
            .field("find_by", &self.find_by)
            .finish_non_exhaustive()
    }
}

/// Makes a POST of a JSON object. The caller's headers say that it is JSON.
pub(crate) fn json_request(path: &str, headers: Vec<(String, Secret)>, body: Map<String, Value>) -> HttpRequest {
    let body = Private::from(Value::Object(body));
    let (path, body) = (Secret::new(path), Secret::new(body.to_string()));
    HttpRequest { method: Method::Post, path, query: Vec::new(), headers, body }
}

/// Makes a POST of a form, and adds its Content-Type. A value that is no text is written as its JSON.
pub(crate) fn form_request(path: &str, mut headers: Vec<(String, Secret)>, fields: Map<String, Value>) -> HttpRequest {
    headers.push(("Content-Type".into(), Secret::new("application/x-www-form-urlencoded")));
    let fields = Private::from(fields);
    let mut body = String::new();
    for (name, value) in fields.iter() {
        let text = Secret::new(plain_text(value));
        let separator = if body.is_empty() { "" } else { "&" };
        let pair = Secret::new(format!("{separator}{}={}", percent_encoded(name), percent_encoded(text.reveal())));
        body.push_str(pair.reveal());
    }
    let body = Secret::new(body);
    HttpRequest { method: Method::Post, path: Secret::new(path), query: Vec::new(), headers, body }
}

/// Returns a text as it is, and any other value as its JSON.
pub(crate) fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns whether a value can stand in a header: visible ASCII, with spaces inside alone.
pub(crate) fn is_header_value(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value
}

/// Returns a value as one segment of a path, percent-encoded. Returns None for an empty value, `.` and `..`, which lead
/// to another path however they are encoded (WHATWG URL).
pub(crate) fn path_segment(value: &str) -> Option<String> {
    (!matches!(value, "" | "." | "..")).then(|| percent_encoded(value).to_string())
}

/// The characters that are encoded, in a path as in a form: all but the unreserved ones (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn percent_encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_stays_one_segment_of_a_path() {
        for (value, segment) in [
            ("VE0a1b", "VE0a1b"),
            ("a/../b", "a%2F..%2Fb"),
            ("a?b#c", "a%3Fb%23c"),
            ("%2e%2e", "%252e%252e"),
            ("a\\b;c", "a%5Cb%3Bc"),
            ("+94 77", "%2B94%2077"),
            ("ü\r\n", "%C3%BC%0D%0A"),
            ("...", "..."),
        ] {
            assert_eq!(path_segment(value).as_deref(), Some(segment));
        }
        for value in ["", ".", ".."] {
            assert_eq!(path_segment(value), None, "{value:?}");
        }
    }

    #[test]
    fn only_unreserved_characters_stand_for_themselves() {
        for byte in 0..=0x7F_u8 {
            let text = char::from(byte).to_string();
            let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let encoded = if is_unreserved { text.clone() } else { format!("%{byte:02X}") };
            assert_eq!(percent_encoded(&text).to_string(), encoded);
        }
        assert_eq!(percent_encoded("é€😀").to_string(), "%C3%A9%E2%82%AC%F0%9F%98%80");
    }

    #[test]
    fn a_value_of_a_form_stays_one_value() {
        let fields =
            json!({"To": "+94771234567", "a&b": "1=2&Code=3", "Tags": {"n": "é"}, "n": 5, "yes": true, "no": ""});
        let Value::Object(fields) = fields else { unreachable!() };
        let request = form_request("/p", Vec::new(), fields);
        assert_eq!(
            request.body.reveal(),
            "To=%2B94771234567&a%26b=1%3D2%26Code%3D3&Tags=%7B%22n%22%3A%22%C3%A9%22%7D&n=5&yes=true&no="
        );
        assert_eq!(request.headers[0].1.reveal(), "application/x-www-form-urlencoded");
    }
}
