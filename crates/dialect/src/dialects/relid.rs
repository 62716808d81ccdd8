//! Uniken REL-ID Verify (docs/vendors/relid.md): pushes a code to the user's app. A resend voids the first
//! notification before it makes a new one, so that one code is good at a time.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    call::{Call, FindBy, HttpRequest, Prepared, json_request},
    dialect::{Dialect, RESEND_AFTER, ServerOption},
    operation::Operation,
    outcome::Outcome,
    payload::{
        code::CodeForm,
        field::{Field, Invalid},
        fill::{FilledPayload, code},
        phone_number::{NumberingPlan, mask_user},
        rule::{IDENTIFIER, Rule, TEXT},
    },
    response::{CallResult, DENIED, count, is_success, reference, scalar, unlisted},
    secret::Secret,
};

pub static DIALECT: Dialect = Dialect {
    name: "relid",
    base_url: None,
    test_host: None,
    code_lifetime: None,
    code: CodeForm::Text,
    max_checks: 3,
    resend_after: RESEND_AFTER,
    is_found_by_reference: true,
    credential_sets: &[&["username", "password"], &["access_token"], &["client_id", "client_secret"]],
    header_credentials: &["access_token"],
    // The provider checks that the option is a URL.
    server_options: &[ServerOption { name: "token_url", required: false, names_account: false, check: |_| Ok(()) }],
    fields,
    recipient: |typed| Some(recipient(IDENTIFIER.normalise("user_id", &typed.into()).ok()?.as_str()?)),
    set_members: &["msg_type"],
    prepare,
    read,
    address_codes: &["7019"],
    sensitive: &["user_id", "userId", "access_token", "mobile", "mobileNumber", "otp_value"],
    opaque: &["notification_uuid", "msg_id"],
    description: None,
};

/// The text in whose place the vendor puts the code.
const PLACE_OF_CODE: &str = "$$OTP$$";
/// Shortest life of a code that the vendor takes, in seconds.
const SHORTEST_LIFE: u64 = 15;
const LONGEST_LIFE: u64 = 604_800;
/// Fewest digits that a number has with its country's code.
const MIN_NUMBER: usize = 8;

static MSG: &[Field] = &[
    Field::required("lng", "lng", Rule::Text { min: 1, max: 64 }).like("English"),
    Field::required("subject", "subject", TEXT).like("Log-in"),
    Field::required("message", "message", Rule::Message { max: 4096 }).like("Your code is $$OTP$$"),
    Field::required("label", "label", Rule::Any),
];

static NOTIFICATION_MSG: &[Field] = &[
    Field::optional("message", "message", Rule::Message { max: 1024 }).like("A code for you"),
    Field::optional("subject", "subject", TEXT).like("Log-in"),
];

static ACTION: &[Field] = &[
    Field::optional("label", "label", TEXT).like("Approve"),
    Field::optional("action", "action", TEXT).like("approve"),
    Field::optional("authlevel", "authlevel", Rule::Any).like("1"),
];

static OTP_CONTROLS: &[Field] = &[
    Field::optional("attempts", "attempts", Rule::Integer { min: 1, max: 100 }).like("3"),
    Field::optional("hash_spec", "hash_spec", TEXT).like("SHA-256"),
    Field::optional("otp_spec", "otp_spec", Rule::OtpSpec),
];

static CONTROLS: &[Field] = &[Field::optional("otp", "otp", Rule::Object { members: OTP_CONTROLS, open: true })];

/// How long the code lives: the vendor requires it, and the option code_lifetime may give it.
const EXPIRES_IN: Field =
    Field::optional("expires_in", "expires_in", Rule::Integer { min: SHORTEST_LIFE, max: LONGEST_LIFE })
        .or("the option code_lifetime")
        .like("120")
        .noted("seconds");

static GENERATE: &[Field] = &[
    Field::optional("msg_id", "msg_id", Rule::Identifier { max: 128 })
        .once()
        .like("message-42")
        .noted("an id of the gateway's where it is left out"),
    Field::required("enterprise_id", "enterprise_id", IDENTIFIER).like("bank"),
    Field::required("user_id", "user_id", IDENTIFIER).fixed().secret().like("asha.rao"),
    Field::optional("user_type", "user_type", Rule::OneOf(&["userId", "mobile", "loginId"]))
        .fixed()
        .noted("the vendor takes userId where it is left out"),
    EXPIRES_IN,
    Field::required("msg", "msg", Rule::List { members: MSG, max: 64 })
        .noted("one message has $$OTP$$, where the vendor puts the code"),
    Field::required("notification_msg", "notification_msg", Rule::Object { members: NOTIFICATION_MSG, open: false })
        .noted("shown on the lock screen"),
    Field::optional("actions", "actions", Rule::List { members: ACTION, max: 16 }),
    Field::optional("ds_required", "ds_required", Rule::Boolean),
    Field::optional("controls", "controls", Rule::Object { members: CONTROLS, open: true }),
    Field::extra(false),
];

const REFERENCE: Field = Field::required("reference", "notification_uuid", Rule::Uuid).fixed().personal();

static VALIDATE: &[Field] = &[REFERENCE, Field::extra(true)];

static CANCEL: &[Field] = &[REFERENCE];

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    match operation {
        Operation::Send | Operation::Resend => Some(GENERATE.iter().collect()),
        Operation::Verify => Some(VALIDATE.iter().collect()),
        Operation::Cancel => Some(CANCEL.iter().collect()),
    }
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    match call.operation {
        Operation::Send => generate(call, "a send", call.verification_id),
        Operation::Resend => {
            // A send that got no reference left nothing that could be canceled.
            let old = call.retained_before.get("reference").filter(|reference| reference.is_string()).cloned();
            let first = old.map(|reference| cancel_request(call, reference));
            Ok(Prepared { cancel_first: first, ..generate(call, "a resend", call.attempt_id)? })
        }
        Operation::Verify => verify(call),
        Operation::Cancel => cancel(call),
    }
}

fn generate(call: &Call, what: &str, msg_id: &str) -> Result<Prepared, Invalid> {
    let holds_code = |msg: &Value| msg["message"].as_str().is_some_and(|text| text.contains(PLACE_OF_CODE));
    let mut filled = FilledPayload::checked(&DIALECT, call, GENERATE, what, |filled, faults| {
        let messages = filled.get("msg").and_then(Value::as_array);
        if messages.is_some_and(|messages| !messages.iter().any(holds_code)) {
            faults.push(Invalid::new(
                "msg",
                format!("msg has no message with {PLACE_OF_CODE} in it"),
                format!(
                    "the vendor writes the code in the place of {PLACE_OF_CODE}: without it nobody would see a code"
                ),
            ));
        }
        let is_wrong = faults.iter().any(|fault| fault.field == EXPIRES_IN.name);
        if filled.get(EXPIRES_IN.name).is_none() && call.code_lifetime.is_none() && !is_wrong {
            faults.push(Invalid::new(
                EXPIRES_IN.name,
                format!("expires_in is missing: {what} through relid needs it"),
                format!("expires_in: {}; or give the server the option code_lifetime", EXPIRES_IN.rule.describe()),
            ));
        }
    })?;
    filled.or_default("msg_id", msg_id);
    filled.or_default("actions", json!([]));
    if let Some(lifetime) = call.code_lifetime {
        filled.or_default("expires_in", lifetime.as_secs().clamp(SHORTEST_LIFE, LONGEST_LIFE));
    }
    let mut body = Map::from_iter([("msg_type".into(), json!("OTP"))]);
    filled.write(
        &mut body,
        &[
            "msg_id",
            "enterprise_id",
            "user_id",
            "user_type",
            "expires_in",
            "msg",
            "notification_msg",
            "actions",
            "ds_required",
            "controls",
        ],
    );
    filled.lay_extra(&mut body)?;
    let attempts = filled.get("controls").map(|controls| &controls["otp"]["attempts"]);
    let prepared = filled.prepared(post(call, "/generateRVN.htm", body), FindBy::Reference);
    Ok(Prepared {
        code_lifetime: filled.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs),
        max_checks: attempts.and_then(|attempts| count(Some(attempts))),
        ..addressed(prepared, filled.text("user_id"))
    })
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::new(&DIALECT, call, VALIDATE, "a verify")?;
    let mut body = Map::new();
    filled.write(&mut body, &["reference"]);
    body.insert("otp_value".into(), code(call));
    filled.lay_extra(&mut body)?;
    Ok(referred(call, &filled, post(call, "/validateOTP.htm", body)))
}

fn cancel(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::new(&DIALECT, call, CANCEL, "a cancel")?;
    let reference = filled.get("reference").cloned().unwrap_or_default();
    Ok(referred(call, &filled, cancel_request(call, reference)))
}

fn cancel_request(call: &Call, reference: Value) -> HttpRequest {
    post(call, "/cancelRVN.htm", Map::from_iter([("notification_uuid".into(), reference)]))
}

fn referred(call: &Call, filled: &FilledPayload, request: HttpRequest) -> Prepared {
    let prepared = filled.prepared(request, FindBy::Reference);
    let user_id = call.retained_before.get("user_id").and_then(Value::as_str);
    Prepared { reference: filled.reference("reference"), ..addressed(prepared, user_id) }
}

fn addressed(mut prepared: Prepared, user_id: Option<&str>) -> Prepared {
    let recipient = user_id.map(recipient);
    // A vendor may write a number in another spelling than the caller's.
    prepared.secrets.extend(recipient.clone());
    if let Some(mobile) = recipient.as_ref().and_then(|number| NumberingPlan::Any.parse(number.reveal())) {
        prepared.secrets.extend(mobile.spellings());
    }
    Prepared { recipient, recipient_masked: user_id.map(mask_user), ..prepared }
}

/// Returns a user id as a recipient. A number is one recipient in every spelling; its country is not known. A number is
/// told by its form and not by `user_type`: whoever looks a person up gives the user id alone.
fn recipient(user_id: &str) -> Secret {
    let is_sign = |c| matches!(c, ' ' | '-' | '(' | ')' | '.' | '+');
    let bare = Secret::new(user_id.replace(is_sign, ""));
    let is_number = bare.reveal().len() >= MIN_NUMBER && bare.reveal().bytes().all(|byte| byte.is_ascii_digit());
    match bare.reveal().strip_prefix("00") {
        _ if !is_number => Secret::new(user_id),
        Some(number) => Secret::new(number),
        None => bare,
    }
}

/// Makes a request. With the credential `client_id`, the HTTP client adds the token that it gets by
/// [`crate::token_request`].
fn post(call: &Call, path: &str, body: Map<String, Value>) -> HttpRequest {
    let mut headers = vec![("Content-Type".into(), Secret::new("application/json"))];
    let credential = |name| call.credentials.get(name);
    let authorization = match (credential("username"), credential("password"), credential("access_token")) {
        (Some(name), Some(password), _) => Some(format!("Basic {}", Secret::basic(name, password).reveal())),
        (_, _, Some(token)) => Some(format!("Bearer {}", token.reveal())),
        _ => None,
    };
    if let Some(authorization) = authorization {
        headers.insert(0, ("Authorization".into(), Secret::new(authorization)));
    }
    json_request(path, headers, body)
}

fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let error = match answer.get("error_code") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.trim().is_empty() => None,
        // The code 0 means no error.
        given => Some(scalar(given)?).filter(|code| code != "0"),
    };
    let words = scalar(answer.get("error_message")).or_else(|| scalar(answer.get("error_msg")));
    let response_code = match answer.get("response_code") {
        None | Some(Value::Null) => None,
        given => Some(scalar(given)?),
    };
    match (response_code.as_deref(), error) {
        (Some("0"), Some(error)) => Some(CallResult::unknown("response_code 0 with an error_code", Some(error), words)),
        (Some("0"), None) if !is_success(status) => Some(CallResult::unknown(DENIED, Some("0".into()), words)),
        (Some("0"), None) => success(operation, answer),
        (_, Some(error)) => {
            let outcome = failure(operation, status, &error);
            Some(CallResult::new(outcome, Some(error), words))
        }
        (_, None) => None,
    }
}

fn success(operation: Operation, answer: &Value) -> Option<CallResult> {
    let reading = |outcome| CallResult::new(outcome, Some("0".into()), None);
    match operation {
        Operation::Send | Operation::Resend => Some(match reference(answer.get("notification_uuid")) {
            Some(reference) => CallResult { reference: Some(reference), ..reading(Outcome::Sent) },
            None => CallResult::unknown("response_code 0 without a notification_uuid", Some("0".into()), None),
        }),
        Operation::Verify => {
            let verdict = scalar(answer.get("otp_validation_status"))?.to_ascii_uppercase();
            let attempts_left = count(answer.get("attempts_left"));
            match verdict.as_str() {
                "SUCCESS" => Some(CallResult { vendor_message: Some(verdict), ..reading(Outcome::Approved) }),
                "FAILED" => {
                    Some(CallResult { vendor_message: Some(verdict), attempts_left, ..reading(Outcome::InvalidCode) })
                }
                _ => None,
            }
        }
        Operation::Cancel => Some(reading(Outcome::Canceled)),
    }
}

fn failure(operation: Operation, status: u16, error: &str) -> Outcome {
    match error {
        "3565" => Outcome::Expired,
        "3575" => Outcome::MaxAttemptsReached,
        "3502" | "3564" | "3572" | "3593" | "7014" | "2607" | "2600" => Outcome::InvalidRequest,
        "3527" | "7019" => Outcome::AuthFailed,
        "3560" => Outcome::Refused,
        // In the answer to a cancel: the notification is gone, or was answered already.
        "3558" | "3620" if operation == Operation::Cancel => Outcome::NotFound,
        "2699" => Outcome::ProviderError,
        _ => unlisted(operation, status),
    }
}
