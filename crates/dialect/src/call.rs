use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    operation::Operation,
    outcome::Outcome,
    secret::{Private, Secret},
};

/// One operation as the caller asked for it: what a dialect turns into an HTTP message.
pub struct Call<'a> {
    pub operation: Operation,
    /// The caller's JSON object, fields under our names or the vendor's own.
    pub payload: &'a Map<String, Value>,
    /// The server option `defaults`, laid under the payload. A field that this operation does not have is passed over.
    pub defaults: &'a Map<String, Value>,
    /// What the verification already knows, under our names: the `retained` of its send, and `reference`. Lies between
    /// payload and defaults; empty for a send and for a flow begun elsewhere.
    pub retained_before: &'a Map<String, Value>,
    /// The user mapping's options, `_file` ones already read. Complete: the provider checked them against
    /// [`crate::dialect::Dialect::credential_sets`].
    pub credentials: &'a BTreeMap<String, Secret>,
    /// The user's code, as [`crate::payload::code::CodeForm::read`] gives it; a verify has one, nothing else has.
    pub code: Option<&'a Secret>,
    pub verification_id: &'a str,
    /// Unique to this attempt: the trace id of a resend, where the verification's own was used by the send.
    pub attempt_id: &'a str,
    /// The server option `code_lifetime`, if set.
    pub code_lifetime: Option<Duration>,
}

/// An HTTP message, always POST. Relative to a base URL, but for a token request.
#[derive(Debug, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Appended to `base_url`, starts with `/`.
    pub path: String,
    /// URL-encoded by the HTTP client, in this order.
    pub query: Vec<(String, Secret)>,
    /// Every value is treated as a secret.
    pub headers: Vec<(String, Secret)>,
    pub body: Secret,
}

/// How long a call may take, from waiting for a place to the whole of the answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How `otp_verify(provider, ...)` finds the verification that a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FindBy {
    Reference,
    Recipient,
}

/// What a dialect made of a [`Call`].
pub struct Prepared {
    pub request: HttpRequest,
    /// A call that goes first, and whose success (`canceled`), or the vendor's word that there is nothing to cancel
    /// (`not_found`, `expired`), lets `request` go: REL-ID's resend. Its answer is read as a cancel's.
    pub cancel_first: Option<HttpRequest>,
    /// Whom the code goes to, normalised so that every spelling of one number is one recipient (`+94771234567`), or a
    /// user id. None where the operation does not say (a verify by reference of a flow begun elsewhere).
    pub recipient: Option<Secret>,
    /// The recipient as it may be shown: `+94*****4567`-like, never more than the last four characters and a prefix.
    pub recipient_masked: Option<String>,
    /// The vendor's or the caller's reference of this flow, as far as it is known before the call.
    pub reference: Option<String>,
    pub find_by: FindBy,
    /// What a later verify, resend or cancel of this verification needs, under our names: sealed by the caller.
    pub retained: Private<Map<String, Value>>,
    /// Values that must not survive in anything a vendor answers: code, number (every spelling sent), Aadhaar number,
    /// token, credentials.
    pub secrets: Vec<Secret>,
    /// How long the code is valid, where this payload says so (else the provider's `code_lifetime`).
    pub code_lifetime: Option<Duration>,
    /// Of how long such a code lives the page says nothing, whatever [`crate::dialect::Dialect::code_lifetime`] says of
    /// others.
    pub has_no_life: bool,
    /// How long the call may take, where that is not [`TIMEOUT`] (the option `timeout` weighs more).
    pub timeout: Option<Duration>,
    /// The vendor sends the code that it has sent before, which lives no longer for it: HyperVerge's resend.
    pub keeps_code: bool,
    /// How many checks the vendor allows, where this payload says so (else the provider's `max_checks`).
    pub max_checks: Option<u32>,
    /// The gateway's own answer, with no call: set by the sandbox alone.
    pub local_outcome: Option<Outcome>,
}

/// Without the reference, which is the caller's as often as the vendor's.
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

/// A POST of a JSON object.
pub(crate) fn json_request(path: &str, headers: Vec<(String, Secret)>, body: Map<String, Value>) -> HttpRequest {
    let body = Private::from(Value::Object(body));
    HttpRequest { path: path.into(), query: Vec::new(), headers, body: Secret::new(body.to_string()) }
}
