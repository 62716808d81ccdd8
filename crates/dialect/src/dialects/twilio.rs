//! Twilio Verify v2 (docs/vendors/twilio.md): forms in, JSON out, to a phone number or an e-mail address. A send while
//! a verification to the same recipient is pending repeats its code under the same sid: such a send is the resend.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    call::{Call, FindBy, HttpRequest, Prepared, form_request, path_segment},
    dialect::{Dialect, RESEND_AFTER, ServerOption},
    operation::Operation,
    outcome::Outcome,
    payload::{
        code::CodeForm,
        field::{Field, Invalid},
        fill::{FilledPayload, Recipient, code},
        rule::Rule,
    },
    response::{CallResult, DENIED, is_success, reference, scalar, unlisted},
    secret::Secret,
};

pub static DIALECT: Dialect = Dialect {
    name: "twilio",
    base_url: Some("https://verify.twilio.com"),
    test_host: None,
    code_lifetime: Some(Duration::from_secs(10 * 60)),
    code: CodeForm::Numeric,
    max_checks: 5,
    resend_after: RESEND_AFTER,
    is_found_by_reference: true,
    credential_sets: &[&["api_key", "api_secret"], &["account_sid", "auth_token"]],
    header_credentials: &[],
    server_options: &[ServerOption {
        name: SERVICE_SID,
        required: true,
        names_account: true,
        check: check_service_sid,
    }],
    fields,
    recipient: |typed| Some(Recipient::parse(typed)?.recipient),
    // The vendor must make the code itself, and word the message itself.
    set_members: &["Code", "Status", "CustomCode", "CustomMessage"],
    prepare,
    read,
    address_codes: &[],
    sensitive: &["to", "lookup", "payee"],
    opaque: &["sid", "service_sid", "attempt_sid"],
    description: None,
};

const SERVICE_SID: &str = "service_sid";

fn check_service_sid(value: &str) -> Result<(), Invalid> {
    let id = value.strip_prefix("VA").filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    id.map(|_| ()).ok_or_else(|| {
        Invalid::new(
            SERVICE_SID,
            "option service_sid is not the id of a Verify service",
            "VA and 32 hexadecimal digits, as the console shows it under Verify, Services",
        )
    })
}

const MOBILE: Field = Field::required("mobile", "To", Rule::PhoneOrEmail).fixed().personal();
const SID: Rule = Rule::Alphanumeric { min: 34, max: 34 };
const OBJECT: Rule = Rule::Object { members: &[], open: true };
const AMOUNT: Field = Field::optional("amount", "Amount", Rule::Identifier { max: 64 })
    .fixed()
    .personal()
    .like("\"39.00\"")
    .noted("of a payment (PSD2), with payee");
const PAYEE: Field = Field::optional("payee", "Payee", Rule::Text { min: 1, max: 256 })
    .fixed()
    .personal()
    .like("A Shop")
    .noted("of a payment (PSD2), with amount");

static SEND: &[Field] = &[
    MOBILE,
    // Twilio's channel `sna` is left out: it has no code.
    Field::optional(
        "channel",
        "Channel",
        Rule::Channel(&[
            ("sms", "sms"),
            ("voice", "call"),
            ("whatsapp", "whatsapp"),
            ("email", EMAIL),
            ("auto", "auto"),
        ]),
    )
    .noted("sms where it is left out, to an address email"),
    Field::optional("locale", "Locale", Rule::Text { min: 2, max: 16 })
        .like("en")
        .noted("the language of the number's country where it is left out"),
    Field::optional("template_id", "TemplateSid", SID)
        .like("HJ0123456789abcdef0123456789abcdef")
        .noted("of the text, by sms and voice"),
    Field::optional("substitutions", "TemplateCustomSubstitutions", OBJECT)
        .secret()
        .like("{\"name\": \"Asha\"}")
        .noted("of the template's variables"),
    Field::optional("friendly_name", "CustomFriendlyName", Rule::Text { min: 1, max: 64 })
        .like("A Bank")
        .noted("shown in the message"),
    Field::optional("send_digits", "SendDigits", Rule::Text { min: 1, max: 32 })
        .personal()
        .like("\"1234\"")
        .noted("the extension to dial, by voice"),
    Field::optional("app_hash", "AppHash", Rule::HeaderText { max: 64 })
        .like("FA+9qCX9VSu")
        .noted("for an Android app that reads the message, by sms"),
    Field::optional("device_ip", "DeviceIp", Rule::IpAddress).personal().noted("of the user's device, best with auto"),
    Field::optional("rate_limits", "RateLimits", OBJECT)
        .secret()
        .like("{\"session\": \"42\"}")
        .noted("the keys are Rate Limits of the service"),
    Field::optional("channel_configuration", "ChannelConfiguration", OBJECT)
        .like("{\"template_id\": \"d-0123\"}")
        .noted("of an e-mail alone"),
    Field::optional("risk_check", "RiskCheck", Rule::OneOf(&["enable", "disable"])),
    Field::optional("tags", "Tags", OBJECT).like("{\"flow\": \"sign-up\"}").noted("of no person"),
    AMOUNT,
    PAYEE,
    Field::extra(false),
];

const EMAIL: &str = "email";

const REFERENCE: Field = Field::optional("reference", "VerificationSid", SID)
    .fixed()
    .personal()
    .like("VE0123456789abcdef0123456789abcdef")
    .noted("the sid of the send");

static VERIFY: &[Field] = &[
    REFERENCE.or("mobile"),
    // A verify may find its flow by the reference alone.
    Field::optional("mobile", "To", Rule::PhoneOrEmail).fixed().personal().or("reference"),
    AMOUNT,
    PAYEE,
    Field::extra(true),
];

static CANCEL: &[Field] = &[Field { required: true, ..REFERENCE }];

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    Some(match operation {
        Operation::Send | Operation::Resend => SEND.iter().collect(),
        Operation::Verify => VERIFY.iter().collect(),
        Operation::Cancel => CANCEL.iter().collect(),
    })
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    match call.operation {
        Operation::Send => send(call, "a send"),
        // The vendor sends the same code under the same sid, and the code lives no longer for it.
        Operation::Resend => Ok(Prepared { keeps_code: true, ..send(call, "a resend")? }),
        Operation::Verify => verify(call),
        Operation::Cancel => cancel(call),
    }
}

fn send(call: &Call, what: &str) -> Result<Prepared, Invalid> {
    let mut filled = FilledPayload::checked(&DIALECT, call, SEND, what, |filled, faults| {
        let is_named = |faults: &[Invalid], name: &str| faults.iter().any(|fault| fault.field == name);
        if filled.get("mobile").is_some() && !filled.is_default("channel") && !channel_fits(filled) {
            faults.push(Invalid::new(
                "channel",
                "channel does not go with mobile: by e-mail a code goes to an address, and by any other way to a \
                 number",
                "channel: email with an e-mail address; sms, voice, whatsapp or auto with a phone number; or leave \
                 channel out",
            ));
        }
        for (one, other) in [("amount", "payee"), ("payee", "amount")] {
            if filled.get(one).is_some() && filled.get(other).is_none() && !is_named(faults, other) {
                faults.push(Invalid::new(
                    other,
                    format!("{other} is missing: {one} is given, and they go together"),
                    "give both amount and payee, or neither",
                ));
            }
        }
    })?;
    // A default channel that does not fit the recipient is meant for other recipients.
    if !channel_fits(&filled) {
        filled.drop_default("channel");
    }
    filled.or_default("channel", if filled.email().is_some() { EMAIL } else { "sms" });
    let mut body = Map::new();
    let names: Vec<&str> = SEND.iter().map(|field| field.name).filter(|name| *name != "extra").collect();
    filled.write(&mut body, &names);
    filled.lay_extra(&mut body)?;
    let request = post(call, "Verifications", body);
    Ok(addressed(filled.prepared(request, FindBy::Reference), &filled))
}

/// Returns whether the channel reaches the recipient: email an address, any other channel a number.
fn channel_fits(filled: &FilledPayload) -> bool {
    filled.text("channel").is_none_or(|channel| (channel == EMAIL) == filled.email().is_some())
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::checked(&DIALECT, call, VERIFY, "a verify", |filled, faults| {
        let is_told = |name: &str| filled.get(name).is_some() || faults.iter().any(|fault| fault.field == name);
        if !is_told("reference") && !is_told("mobile") {
            faults.push(Invalid::new(
                "reference",
                "reference is missing, and mobile too: one of them says which verification is meant",
                "give the reference or the mobile of the send",
            ));
        }
    })?;
    let reference = filled.reference("reference");
    // Never both keys: the vendor does not say which of them counts.
    let (key, find_by) = match &reference {
        Some(_) => ("reference", FindBy::Reference),
        None => ("mobile", FindBy::Recipient),
    };
    let mut body = Map::new();
    filled.write(&mut body, &[key, "amount", "payee"]);
    body.insert("Code".into(), code(call));
    filled.lay_extra(&mut body)?;
    let request = post(call, "VerificationCheck", body);
    Ok(Prepared { reference, ..addressed(filled.prepared(request, find_by), &filled) })
}

fn cancel(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::new(&DIALECT, call, CANCEL, "a cancel")?;
    let reference = filled.reference("reference");
    let sid = reference.as_deref().and_then(path_segment).ok_or_else(|| {
        Invalid::new("reference", "reference cannot stand in a path", "the sid that the vendor answered the send with")
    })?;
    let body = Map::from_iter([("Status".into(), "canceled".into())]);
    let request = post(call, &format!("Verifications/{sid}"), body);
    Ok(Prepared { reference, ..addressed(filled.prepared(request, FindBy::Reference), &filled) })
}

fn post(call: &Call, path: &str, body: Map<String, Value>) -> HttpRequest {
    let service = call.options.get(SERVICE_SID).and_then(|sid| path_segment(sid)).unwrap_or_default();
    let credential = |one, other| call.credentials.get(one).or_else(|| call.credentials.get(other));
    let pair = (credential("api_key", "account_sid"), credential("api_secret", "auth_token"));
    let headers = match pair {
        (Some(user), Some(password)) => {
            vec![("Authorization".into(), Secret::new(format!("Basic {}", Secret::basic(user, password).reveal())))]
        }
        _ => Vec::new(),
    };
    form_request(&format!("/v2/Services/{service}/{path}"), headers, body)
}

fn addressed(prepared: Prepared, filled: &FilledPayload) -> Prepared {
    let (recipient, recipient_masked) = filled.number_or_address().map(|to| (to.recipient, to.masked)).unzip();
    Prepared { recipient, recipient_masked, ..prepared }
}

/// Reads an answer. `code`, where there is one, weighs more than the HTTP status. Where there is none, `status` is a
/// word: what became of the verification.
fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let words = scalar(answer.get("message"));
    let code = match answer.get("code") {
        None | Some(Value::Null) => None,
        given => Some(scalar(given)?),
    };
    if let Some(code) = code {
        if answer.get("status").is_some_and(Value::is_string) {
            return Some(CallResult::unknown(
                "an error's code beside what became of a verification",
                Some(code),
                words,
            ));
        }
        let number = code.parse().ok()?;
        let outcome = failure(operation, status, number);
        return Some(CallResult { is_personal: is_personal(number), ..CallResult::new(outcome, Some(code), words) });
    }
    let said = match answer.get("status")? {
        Value::String(said) => said.trim().to_ascii_lowercase(),
        // An error that is not one of Verify's own has its HTTP status here.
        Value::Number(_) if words.is_some() && !is_success(status) => {
            return Some(CallResult::new(unlisted(operation, status), None, words));
        }
        _ => return None,
    };
    let valid = match answer.get("valid") {
        None | Some(Value::Null) => None,
        Some(valid) => Some(valid.as_bool()?),
    };
    if !is_success(status) {
        return Some(CallResult::unknown(DENIED, Some(said), words));
    }
    Some(match operation {
        Operation::Send | Operation::Resend => sent(answer, said),
        Operation::Verify => checked(said, valid),
        Operation::Cancel if said == "canceled" => CallResult::new(Outcome::Canceled, Some(said), None),
        Operation::Cancel => CallResult::unknown("an answer to a cancel without status canceled", Some(said), None),
    })
}

fn sent(answer: &Value, said: String) -> CallResult {
    match reference(answer.get("sid")) {
        Some(sid) if said == "pending" => {
            CallResult { reference: Some(sid), ..CallResult::new(Outcome::Sent, Some(said), None) }
        }
        Some(_) => CallResult::unknown("an answer to a send without status pending", Some(said), None),
        None => CallResult::unknown("an answer to a send without a sid", Some(said), None),
    }
}

/// Reads the answer to a check, in which `pending` means a wrong code.
fn checked(said: String, valid: Option<bool>) -> CallResult {
    let outcome = match (said.as_str(), valid) {
        ("approved", None | Some(true)) => Outcome::Approved,
        ("pending", None | Some(false)) => Outcome::InvalidCode,
        ("approved" | "pending", _) => {
            return CallResult::unknown("status and valid say different things", Some(said), None);
        }
        ("max_attempts_reached", _) => Outcome::MaxAttemptsReached,
        ("expired", _) => Outcome::Expired,
        ("canceled" | "deleted", _) => Outcome::NotFound,
        ("failed", _) => Outcome::Refused,
        _ => return CallResult::unknown("a status of a check that the page does not list", Some(said), None),
    };
    CallResult::new(outcome, Some(said), None)
}

fn failure(operation: Operation, status: u16, code: u32) -> Outcome {
    let is_check = operation == Operation::Verify;
    let begins = matches!(operation, Operation::Send | Operation::Resend);
    match code {
        20003 | 20005 | 20006 | 70051 => Outcome::AuthFailed,
        // In the answer to a send, the service is what was not found.
        20404 if begins => Outcome::AuthFailed,
        20404 => Outcome::NotFound,
        60201 if is_check => Outcome::InvalidCode,
        60202 if is_check => Outcome::MaxAttemptsReached,
        20429 | 60202 | 60203 | 60212 => Outcome::RateLimited,
        60200 | 60201 | 60206 | 60214 | 60221 | 60425 => Outcome::InvalidRequest,
        // The page does not say whether a check that ended so has compared the code; 502 and 504 come from a gateway.
        20500 | 60441 if !is_check && !matches!(status, 502 | 504) => Outcome::ProviderError,
        20500 | 60441 => Outcome::Unknown,
        60204 | 60205 | 60217 | 60220 | 60223 | 60238 | 60410 | 60413 | 60605 => Outcome::Refused,
        60200..=60699 if matches!(status, 400 | 403) => Outcome::Refused,
        _ => unlisted(operation, status),
    }
}

/// Returns whether a failure concerns this recipient or verification alone: its sends or checks are spent, it cannot be
/// sent to, or it is blocked.
fn is_personal(code: u32) -> bool {
    matches!(code, 60202 | 60203 | 60205 | 60212 | 60220 | 60238 | 60410 | 60413 | 60605)
}
