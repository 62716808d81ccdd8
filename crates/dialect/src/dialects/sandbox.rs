//! No vendor: a provider for development without any account. It sends nothing, takes a code that is known beforehand,
//! and ends each call as the payload says, so that an application can be tried against every outcome.

use std::time::Duration;

use serde_json::Value;

use crate::{
    call::{Call, FindBy, HttpRequest, Method, Prepared},
    dialect::Dialect,
    operation::Operation,
    outcome::Outcome,
    payload::{
        code::CodeForm,
        field::{Field, Invalid},
        fill::{FilledPayload, Recipient, code},
        rule::{IDENTIFIER, Rule},
    },
    response::CallResult,
    secret::Secret,
};

pub static DIALECT: Dialect = Dialect {
    name: "sandbox",
    // Reserved for names that must not resolve (RFC 2606): should a call ever leave, it reaches nobody.
    base_url: Some("https://sandbox.invalid"),
    test_host: None,
    code_lifetime: Some(Duration::from_secs(10 * 60)),
    code: CodeForm::Numeric,
    max_checks: 5,
    resend_after: Duration::ZERO,
    is_found_by_reference: true,
    credential_sets: &[&["code"], &[]],
    header_credentials: &[],
    server_options: &[],
    fields,
    recipient: |typed| Some(Recipient::parse(typed)?.recipient),
    set_members: &[],
    prepare,
    read,
    address_codes: &[],
    sensitive: &[],
    opaque: &[],
    description: None,
};

/// The right code, where the user mapping gives none.
const CODE: &str = "000000";

const REFERENCE: Field = Field::optional("reference", "reference", IDENTIFIER).fixed().personal().like("order-42");
/// A verify may find its flow by the mobile alone.
const OF_REFERENCE: Field =
    Field::optional("reference", "reference", IDENTIFIER).fixed().personal().or("mobile").like("order-42");
const TO: Field = Field::required("mobile", "mobile", Rule::PhoneOrEmail).fixed().personal();
/// A verify may find its flow by the reference alone.
const OF: Field = Field::optional("mobile", "mobile", Rule::PhoneOrEmail).fixed().personal().or("reference");

const fn ends(outcomes: &'static [&'static str]) -> Field {
    Field::optional("outcome", "outcome", Rule::OneOf(outcomes)).once().noted("how the call ends")
}

/// The channels of those vendors that have a choice.
const CHANNEL: Field = Field::optional(
    "channel",
    "channel",
    Rule::Channel(&[("sms", "sms"), ("voice", "voice"), ("whatsapp", "whatsapp"), ("email", "email")]),
);

static SEND: &[Field] = &[
    TO,
    REFERENCE,
    CHANNEL,
    ends(&[
        Outcome::Sent.as_str(),
        Outcome::AlreadyRegistered.as_str(),
        Outcome::RateLimited.as_str(),
        Outcome::InvalidRequest.as_str(),
        Outcome::AuthFailed.as_str(),
        Outcome::Refused.as_str(),
        Outcome::ProviderError.as_str(),
        Outcome::Unreachable.as_str(),
        Outcome::Unknown.as_str(),
    ]),
    Field::extra(false),
];

static RESEND: &[Field] = &[
    TO,
    REFERENCE,
    CHANNEL,
    ends(&[
        Outcome::Sent.as_str(),
        Outcome::AlreadyRegistered.as_str(),
        Outcome::NotFound.as_str(),
        Outcome::RateLimited.as_str(),
        Outcome::InvalidRequest.as_str(),
        Outcome::AuthFailed.as_str(),
        Outcome::Refused.as_str(),
        Outcome::ProviderError.as_str(),
        Outcome::Unreachable.as_str(),
        Outcome::Unknown.as_str(),
    ]),
    Field::extra(false),
];

static VERIFY: &[Field] = &[
    OF,
    OF_REFERENCE,
    ends(&[
        Outcome::Approved.as_str(),
        Outcome::InvalidCode.as_str(),
        Outcome::Expired.as_str(),
        Outcome::AlreadyUsed.as_str(),
        Outcome::MaxAttemptsReached.as_str(),
        Outcome::NotFound.as_str(),
        Outcome::RateLimited.as_str(),
        Outcome::InvalidRequest.as_str(),
        Outcome::AuthFailed.as_str(),
        Outcome::Refused.as_str(),
        Outcome::ProviderError.as_str(),
        Outcome::Unreachable.as_str(),
        Outcome::Unknown.as_str(),
    ]),
    Field::extra(true),
];

static CANCEL: &[Field] = &[
    OF,
    OF_REFERENCE,
    ends(&[
        Outcome::Canceled.as_str(),
        Outcome::Expired.as_str(),
        Outcome::NotFound.as_str(),
        Outcome::RateLimited.as_str(),
        Outcome::InvalidRequest.as_str(),
        Outcome::AuthFailed.as_str(),
        Outcome::Refused.as_str(),
        Outcome::ProviderError.as_str(),
        Outcome::Unreachable.as_str(),
        Outcome::Unknown.as_str(),
    ]),
];

fn table(operation: Operation) -> &'static [Field] {
    match operation {
        Operation::Send => SEND,
        Operation::Resend => RESEND,
        Operation::Verify => VERIFY,
        Operation::Cancel => CANCEL,
    }
}

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    Some(table(operation).iter().collect())
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    let table = table(call.operation);
    match call.operation {
        Operation::Send => send(call, FilledPayload::new(&DIALECT, call, table, "a send")?),
        Operation::Resend => send(call, FilledPayload::new(&DIALECT, call, table, "a resend")?),
        Operation::Verify => {
            let right = is_right(call, &code(call));
            let outcome = if right { Outcome::Approved } else { Outcome::InvalidCode };
            follow(&FilledPayload::new(&DIALECT, call, table, "a verify")?, outcome)
        }
        Operation::Cancel => follow(&FilledPayload::new(&DIALECT, call, table, "a cancel")?, Outcome::Canceled),
    }
}

fn send(call: &Call, mut filled: FilledPayload) -> Result<Prepared, Invalid> {
    // Vendors give each flow a reference; an application that shows or stores it must find one here, too.
    filled.or_default("reference", call.verification_id);
    Ok(answered(&filled, FindBy::Reference, Outcome::Sent))
}

/// Prepares a call about a flow that was begun before, here or elsewhere.
fn follow(filled: &FilledPayload, outcome: Outcome) -> Result<Prepared, Invalid> {
    let find_by = match (filled.reference("reference"), filled.number_or_address()) {
        (Some(_), _) => FindBy::Reference,
        (None, Some(_)) => FindBy::Recipient,
        (None, None) => {
            return Err(Invalid::new(
                "reference",
                "reference is missing, and mobile too: one of them says which flow is meant",
                "give the reference or the mobile of the send",
            ));
        }
    };
    Ok(answered(filled, find_by, outcome))
}

fn answered(filled: &FilledPayload, find_by: FindBy, outcome: Outcome) -> Prepared {
    let nothing = HttpRequest {
        method: Method::Post,
        path: Secret::new("/"),
        query: Vec::new(),
        headers: Vec::new(),
        body: Secret::default(),
    };
    let (recipient, recipient_masked) = filled.number_or_address().map(|to| (to.recipient, to.masked)).unzip();
    Prepared {
        local_outcome: Some(filled.text("outcome").and_then(Outcome::from_label).unwrap_or(outcome)),
        recipient,
        recipient_masked,
        reference: filled.reference("reference"),
        ..filled.prepared(nothing, find_by)
    }
}

fn is_right(call: &Call, given: &Value) -> bool {
    let code = DIALECT.code.read(call.credentials.get("code").map_or(CODE, Secret::reveal));
    code.is_some_and(|code| given.as_str() == Some(code.reveal()))
}

/// Reads nothing: no vendor is called.
fn read(_: Operation, _: u16, _: &Value) -> Option<CallResult> {
    None
}
