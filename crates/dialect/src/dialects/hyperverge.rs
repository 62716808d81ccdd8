//! HyperVerge mobile OTP (docs/vendors/hyperverge.md): Indian numbers, one journey id over send, resend and verify. The
//! answer's `statusCode` weighs more than the HTTP status; where both are too coarse, the words decide.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    call::{Call, FindBy, HttpRequest, Prepared, json_request},
    dialect::{Dialect, RESEND_AFTER},
    operation::Operation,
    outcome::Outcome,
    payload::{
        code::CodeForm,
        field::{BY_SMS, Field, Invalid},
        fill::{FilledPayload, code, no_operation},
        phone_number::NumberingPlan,
        rule::{IDENTIFIER, Rule},
    },
    response::{CallResult, reference, scalar},
    secret::Secret,
    wording::Verdict,
};

pub static DIALECT: Dialect = Dialect {
    name: "hyperverge",
    base_url: Some("https://ind-engine.thomas.hyperverge.co"),
    test_host: None,
    code_lifetime: Some(Duration::from_secs(24 * 60 * 60)),
    code: CodeForm::Digits { min: 4, max: 9 },
    max_checks: 5,
    resend_after: RESEND_AFTER,
    is_found_by_reference: false,
    credential_sets: &[&["app_id", "app_key"]],
    header_credentials: &["app_id", "app_key"],
    server_options: &[],
    fields,
    recipient: |typed| Some(NumberingPlan::India.parse(typed)?.recipient()),
    set_members: &[],
    prepare,
    read,
    address_codes: &[],
    sensitive: &["mobileNumber", "mobile", "otp"],
    opaque: &["requestId"],
    description: None,
};

const MOBILE: Field = Field::required("mobile", "mobileNumber", Rule::IndianMobile).fixed().personal();
/// The transaction id goes into a header, not into the body.
const TRANSACTION_ID: Field = Field::optional("transaction_id", "transactionId", Rule::HeaderText { max: 128 })
    .fixed()
    .personal()
    .like("journey-42")
    .noted("a header of each call; the verification id where it is left out");

static SEND: &[Field] = &[
    Field::required("template_id", "templateId", IDENTIFIER).like("login-code").noted("as HyperVerge has assigned it"),
    MOBILE,
    Field::optional("otp_length", "otpLength", Rule::IntegerText { min: 4, max: 9 })
        .noted("the code's length; the vendor takes 4 where it is left out"),
    Field::optional("otp_expiry", "otpExpiry", Rule::IntegerText { min: 1, max: 10080 })
        .like("10")
        .noted("minutes; the vendor takes 1440 where it is left out"),
    Field::optional("time", "time", Rule::Identifier { max: 32 })
        .like("10")
        .noted("shown in the message, with time_format"),
    Field::optional("time_format", "timeFormat", Rule::Text { min: 1, max: 32 }).like("minutes").noted("with time"),
    Field::optional("show_last_four_digits", "showLastFourDigits", Rule::YesNo).noted("no where it is left out"),
    TRANSACTION_ID,
    BY_SMS,
    Field::extra(false),
];

static RESEND: &[Field] = &[
    MOBILE,
    Field::optional("channel", "retryType", Rule::Channel(&[("sms", "text"), ("voice", "voice")]))
        .once()
        .noted("sms where it is left out"),
    TRANSACTION_ID,
    Field::extra(true),
];

static VERIFY: &[Field] = &[MOBILE, TRANSACTION_ID, Field::extra(true)];

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    match operation {
        Operation::Send => Some(SEND.iter().collect()),
        Operation::Resend => Some(RESEND.iter().collect()),
        Operation::Verify => Some(VERIFY.iter().collect()),
        Operation::Cancel => None,
    }
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    match call.operation {
        Operation::Send => send(call),
        Operation::Resend => resend(call),
        Operation::Verify => verify(call),
        Operation::Cancel => Err(no_operation(&DIALECT, call.operation)),
    }
}

fn send(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::checked(&DIALECT, call, SEND, "a send", |filled, faults| {
        for (one, other) in [("time", "time_format"), ("time_format", "time")] {
            let is_named = faults.iter().any(|fault| fault.field == other);
            if filled.get(one).is_some() && filled.get(other).is_none() && !is_named {
                faults.push(Invalid::new(
                    other,
                    format!("{other} is missing: {one} is given, and they go together"),
                    "give both time and time_format, or neither",
                ));
            }
        }
    })?;
    let mut body = Map::new();
    filled.write(
        &mut body,
        &["template_id", "mobile", "otp_length", "otp_expiry", "time", "time_format", "show_last_four_digits"],
    );
    let minutes = filled.text("otp_expiry").and_then(|minutes| minutes.parse::<u64>().ok());
    let code_lifetime = minutes.map(|minutes| Duration::from_secs(minutes * 60));
    Ok(Prepared { code_lifetime, ..journey(call, filled, "/v1/verifyMobileSendOtp", body)? })
}

fn resend(call: &Call) -> Result<Prepared, Invalid> {
    let mut filled = FilledPayload::new(&DIALECT, call, RESEND, "a resend")?;
    // If no channel is sent, the vendor rings the user up.
    filled.or_default("channel", "text");
    let mut body = Map::new();
    filled.write(&mut body, &["mobile", "channel"]);
    // The vendor sends the code that it has sent before.
    Ok(Prepared { keeps_code: true, ..journey(call, filled, "/v1/resendOtp", body)? })
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::new(&DIALECT, call, VERIFY, "a verify")?;
    let mut body = Map::new();
    filled.write(&mut body, &["mobile"]);
    body.insert("otp".into(), code(call));
    let reference = filled.reference("reference");
    Ok(Prepared { reference, ..journey(call, filled, "/v1/verifyMobileOtp", body)? })
}

/// Makes the request for one step of the journey. Every step carries the same id, so the id is kept even if it is the
/// verification's own.
fn journey(
    call: &Call,
    mut filled: FilledPayload,
    path: &str,
    mut body: Map<String, Value>,
) -> Result<Prepared, Invalid> {
    filled.lay_extra(&mut body)?;
    filled.or_default("transaction_id", call.verification_id);
    let mobile = filled.mobile(NumberingPlan::India);
    let prepared = filled.prepared(post(call, &filled, path, body), FindBy::Recipient);
    Ok(Prepared {
        recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
        recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
        ..prepared
    })
}

fn post(call: &Call, filled: &FilledPayload, path: &str, body: Map<String, Value>) -> HttpRequest {
    let credential = |name| call.credentials.get(name).cloned().unwrap_or_default();
    let headers = vec![
        ("content-type".into(), Secret::new("application/json")),
        ("appId".into(), credential("app_id")),
        ("appKey".into(), credential("app_key")),
        ("transactionId".into(), Secret::new(filled.text("transaction_id").unwrap_or_default())),
    ];
    json_request(path, headers, body)
}

fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let word = scalar(answer.get("status")).map(|word| word.to_ascii_lowercase());
    let given = match answer.get("statusCode") {
        None | Some(Value::Null) => None,
        given => Some(scalar(given)?.parse::<u16>().ok()?),
    };
    if word.is_none() && given.is_none() {
        return None;
    }
    let code = given.unwrap_or(status);
    let shown = Some(code.to_string());
    let words = words(answer);
    match word.as_deref() {
        Some("success") if code == 200 && answer.get("error").is_none_or(Value::is_null) => {
            let outcome = if operation == Operation::Verify { Outcome::Approved } else { Outcome::Sent };
            // The requestId of a verify names that call, not the flow.
            let id = answer.get("metaData").and_then(|data| reference(data.get("requestId")));
            let reference = id.filter(|_| operation != Operation::Verify);
            Some(CallResult { reference, ..CallResult::new(outcome, shown, words) })
        }
        Some("success") => {
            Some(CallResult::unknown("status success with a failure's statusCode or error", shown, words))
        }
        // Every failure of the vendor's has this word; a statusCode alone may come from another host.
        Some("failure") => {
            let (outcome, is_guess) = failure(operation, status, code, words.as_deref().unwrap_or_default());
            Some(CallResult { is_guess, ..CallResult::new(outcome, shown, words) })
        }
        _ => None,
    }
}

/// Returns the vendor's words. `error` is an object, a string or absent; if it is absent, `message` has the words.
fn words(answer: &Value) -> Option<String> {
    let error = answer.get("error");
    scalar(error.and_then(|error| error.get("message")))
        .or_else(|| scalar(error))
        .or_else(|| scalar(answer.get("message")))
}

/// Returns the outcome of a failure, and whether that is a guess. A 502 or 504, as HTTP status or as statusCode, is of
/// a gateway before the vendor: the vendor may have done its work. In the answer to a verify, words about the code
/// weigh more than a number that says that nothing was done: whoever says something of the code has compared it, and a
/// check that ended in a server error may have compared it.
fn failure(operation: Operation, status: u16, code: u16, words: &str) -> (Outcome, bool) {
    let is_check = operation == Operation::Verify;
    if is_check && matches!(code, 400 | 500..=599) {
        let said = by_words(words);
        if said.0 != Outcome::Refused {
            return said;
        }
    }
    let outcome = match code {
        400 => Outcome::InvalidRequest,
        401 | 403 => Outcome::AuthFailed,
        429 => Outcome::RateLimited,
        500 | 501 | 503 if !is_check && !matches!(status, 502 | 504) => Outcome::ProviderError,
        500..=599 => Outcome::Unknown,
        _ => return by_words(words),
    };
    (outcome, false)
}

/// The vendor's sentences, without case, spaces and underscores.
const SENTENCES: &[(&str, Outcome)] = &[
    ("otpnotmatch", Outcome::InvalidCode),
    ("mobileno.alreadyverified", Outcome::AlreadyUsed),
    ("lastotprequestonthisnumberisinvalid", Outcome::NotFound),
    ("nootprequestfoundtoretryotp", Outcome::NotFound),
    ("maxlimitreachedforthisotpverification", Outcome::MaxAttemptsReached),
    ("otpretrycountmaxedout", Outcome::RateLimited),
];

/// Returns the outcome that the words name, and whether it is guessed, because they are no sentence of the vendor's.
fn by_words(words: &str) -> (Outcome, bool) {
    let plain: String = words.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    let plain = plain.to_lowercase();
    let says = |words: &str| plain.contains(words);
    if let Some((_, outcome)) = SENTENCES.iter().find(|(sentence, _)| says(sentence)) {
        return (*outcome, false);
    }
    let outcome = match Verdict::read(words) {
        Some(Verdict::Expired) => Outcome::Expired,
        Some(Verdict::Wrong) => Outcome::InvalidCode,
        None if says("alreadyverified") => Outcome::AlreadyUsed,
        None => Outcome::Refused,
    };
    (outcome, true)
}
