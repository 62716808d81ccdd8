//! Ideamart OTP (docs/vendors/ideamart.md): subscribes a Sri Lankan number to an application. Credentials travel in
//! the body. A resend is a request like the first.

use std::time::Duration;

use serde_json::{Map, Value, json};

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
        rule::{IDENTIFIER, Rule, TEXT},
    },
    response::{CallResult, DENIED, is_success, reference, scalar},
    secret::Secret,
};

pub static DIALECT: Dialect = Dialect {
    name: "ideamart",
    base_url: Some("https://api.ideamart.io"),
    test_host: None,
    code_lifetime: Some(Duration::from_secs(60 * 60)),
    code: CodeForm::Numeric,
    max_checks: 3,
    resend_after: RESEND_AFTER,
    is_found_by_reference: true,
    credential_sets: &[&["application_id", "password"]],
    header_credentials: &[],
    server_options: &[],
    fields,
    recipient: |typed| Some(NumberingPlan::SriLanka.parse(typed)?.recipient()),
    set_members: &["applicationId", "password"],
    prepare,
    read,
    address_codes: &["E13"],
    sensitive: &["password", "msisdn", "mobile", "mobileNumber"],
    opaque: &["subscriberId", "referenceNo"],
    description: None,
};

static METADATA: &[Field] = &[
    Field::optional("client", "client", TEXT).like("MOBILEAPP"),
    Field::optional("device", "device", TEXT).like("Samsung S10"),
    Field::optional("os", "os", TEXT).like("android 8"),
    Field::optional("app_code", "appCode", Rule::Text { min: 1, max: 1024 })
        .like("https://play.google.com/store/apps/details?id=example"),
];

static REQUEST: &[Field] = &[
    Field::required("mobile", "subscriberId", Rule::SriLankanMobile).fixed().personal(),
    Field::optional("application_hash", "applicationHash", Rule::Identifier { max: 128 })
        .once()
        .like("request-42")
        .noted("for tracing; an id of the gateway's where it is left out"),
    Field::optional("metadata", "applicationMetaData", Rule::Object { members: METADATA, open: false }),
    BY_SMS,
    Field::extra(false),
];

static VERIFY: &[Field] = &[
    Field::required("reference", "referenceNo", IDENTIFIER).fixed().personal().like("213561321321613"),
    Field::extra(true),
];

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    match operation {
        Operation::Send | Operation::Resend => Some(REQUEST.iter().collect()),
        Operation::Verify => Some(VERIFY.iter().collect()),
        Operation::Cancel => None,
    }
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    match call.operation {
        Operation::Send => request(call, "a send", call.verification_id),
        Operation::Resend => request(call, "a resend", call.attempt_id),
        Operation::Verify => verify(call),
        Operation::Cancel => Err(no_operation(&DIALECT, call.operation)),
    }
}

fn request(call: &Call, what: &str, hash: &str) -> Result<Prepared, Invalid> {
    let mut filled = FilledPayload::new(&DIALECT, call, REQUEST, what)?;
    filled.or_default("application_hash", hash);
    let mut body = account(call);
    filled.write(&mut body, &["mobile", "application_hash", "metadata"]);
    filled.lay_extra(&mut body)?;
    let request = post("/subscription/otp/request", body);
    Ok(addressed(filled.prepared(request, FindBy::Reference), &filled))
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::new(&DIALECT, call, VERIFY, "a verify")?;
    let mut body = account(call);
    filled.write(&mut body, &["reference"]);
    body.insert("otp".into(), code(call));
    filled.lay_extra(&mut body)?;
    let request = post("/subscription/otp/verify", body);
    let reference = filled.reference("reference");
    Ok(Prepared { reference, ..addressed(filled.prepared(request, FindBy::Reference), &filled) })
}

fn account(call: &Call) -> Map<String, Value> {
    let credential = |name| call.credentials.get(name).map(Secret::reveal).unwrap_or_default();
    let mut body = Map::new();
    body.insert("applicationId".into(), json!(credential("application_id")));
    body.insert("password".into(), json!(credential("password")));
    body
}

fn post(path: &str, body: Map<String, Value>) -> HttpRequest {
    json_request(path, vec![("Content-Type".into(), Secret::new("application/json"))], body)
}

fn addressed(prepared: Prepared, filled: &FilledPayload) -> Prepared {
    let mobile = filled.mobile(NumberingPlan::SriLanka);
    Prepared {
        recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
        recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
        ..prepared
    }
}

/// Reads the body alone; the HTTP status counts only where the body says success.
fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let code = scalar(answer.get("statusCode"))?.to_ascii_uppercase();
    let words = scalar(answer.get("statusDetail"));
    if code == "S1000" {
        return Some(success(operation, status, answer, code, words));
    }
    let number = code.strip_prefix('E').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number = number.parse().ok()?;
    let outcome = failure(operation, number);
    Some(CallResult {
        // The pages differ on what E1853 means to a verify.
        is_guess: number == 1853 && operation == Operation::Verify,
        // A delivery failed: at which end, nobody says.
        is_personal: matches!(number, 1332 | 1341 | 1602),
        ..CallResult::new(outcome, Some(code), words)
    })
}

fn success(operation: Operation, status: u16, answer: &Value, code: String, words: Option<String>) -> CallResult {
    if !is_success(status) {
        return CallResult::unknown(DENIED, Some(code), words);
    }
    match operation {
        // INITIAL CHARGING PENDING and others: the code is right whatever becomes of the subscription.
        Operation::Verify if ["subscriptionStatus", "subscriberId"].iter().any(|name| answer[name].is_string()) => {
            CallResult::new(Outcome::Approved, Some(code), words)
        }
        Operation::Verify => CallResult::unknown("S1000 without a subscriber", Some(code), words),
        _ => match reference(answer.get("referenceNo")) {
            Some(reference) => {
                CallResult { reference: Some(reference), ..CallResult::new(Outcome::Sent, Some(code), words) }
            }
            None => CallResult::unknown("S1000 without a referenceNo", Some(code), words),
        },
    }
}

fn failure(operation: Operation, number: u32) -> Outcome {
    let verify = operation == Operation::Verify;
    match number {
        1351 if verify => Outcome::AlreadyUsed,
        1351 => Outcome::AlreadyRegistered,
        1850 => Outcome::InvalidCode,
        1851 => Outcome::Expired,
        1852 => Outcome::MaxAttemptsReached,
        1853 if verify => Outcome::NotFound,
        1853 => Outcome::RateLimited,
        1854 | 1855 => Outcome::NotFound,
        1856 | 1312 | 1317 | 1325 | 1340 | 1362 => Outcome::InvalidRequest,
        1301..=1307 | 1309..=1311 | 1313 | 1315 | 1322 | 1324 | 1327 | 1381 => Outcome::AuthFailed,
        // These concern this recipient.
        1323 | 1357 => Outcome::Refused,
        1316 | 1318 | 1319 | 1364 | 1600 | 1603 | 1857 => Outcome::ProviderError,
        // No answer, or a late one, from behind the gateway, or a delivery that failed at an unknown end: it may be
        // done.
        1332 | 1341 | 1360 | 1363 | 1601 | 1602 => Outcome::Unknown,
        // To be charged for, the code must have been right.
        1376 | 1405 if verify => Outcome::Unknown,
        1367 => Outcome::RateLimited,
        _ => Outcome::Refused,
    }
}
