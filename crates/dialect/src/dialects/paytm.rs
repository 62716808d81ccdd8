//! Paytm AI router (docs/vendors/paytm.md): the caller's order and token are the flow; the vendor gives no reference.
//! A resend is a send like the first.

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
        rule::Rule,
    },
    response::{CallResult, DENIED, is_success, scalar, unlisted},
    secret::Secret,
};

pub static DIALECT: Dialect = Dialect {
    name: "paytm",
    base_url: Some("https://stage-router.paytm.in"),
    test_host: Some("stage-router.paytm.in"),
    code_lifetime: None,
    code: CodeForm::Numeric,
    max_checks: 5,
    resend_after: RESEND_AFTER,
    is_found_by_reference: true,
    credential_sets: &[&["username", "password"], &[]],
    header_credentials: &[],
    server_options: &[],
    fields,
    recipient: |typed| Some(NumberingPlan::India.parse(typed)?.recipient()),
    set_members: &["head", "body"],
    prepare,
    read,
    address_codes: &[],
    sensitive: &["token", "txnToken", "ssoToken", "accessToken", "mobileNumber", "mobile", "otp"],
    opaque: &[],
    description: None,
};

const MID: Field = Field::required("mid", "mid", Rule::Identifier { max: 64 }).fixed().like("MID01");
const ORDER_ID: Field =
    Field::required("order_id", "orderId", Rule::Identifier { max: 64 }).fixed().personal().like("ORDER42");
/// Seconds or milliseconds since 1970: the page says "epoch" and no more.
const REQUEST_TIMESTAMP: Field =
    Field::optional("request_timestamp", "requestTimeStamp", Rule::Digits { min: 1, max: 19 })
        .once()
        .like("1763776800")
        .noted("seconds or milliseconds since 1970");
const TOKEN_TYPE: Field = Field::optional("token_type", "tokenType", Rule::Text { min: 1, max: 32 })
    .like("TXN_TOKEN")
    .noted("TXN_TOKEN where it is left out");
const TOKEN: Field =
    Field::required("token", "token", Rule::Text { min: 1, max: 4096 }).fixed().secret().like("token-of-this-order");

static SEND: &[Field] = &[
    MID,
    ORDER_ID,
    REQUEST_TIMESTAMP,
    TOKEN_TYPE,
    TOKEN,
    Field::required("mobile", "mobileNumber", Rule::IndianMobile).fixed().personal(),
    Field::optional("auto_read_hash", "autoReadHash", Rule::Text { min: 1, max: 128 }).like("FA+9qCX9VSu"),
    BY_SMS,
    Field::extra(false),
];

static VERIFY: &[Field] = &[
    MID,
    ORDER_ID,
    REQUEST_TIMESTAMP,
    Field::optional("channel_id", "channelId", Rule::OneOf(&["WEB", "WAP", "APP", "SYSTEM"]))
        .noted("the vendor takes WEB where it is left out"),
    TOKEN,
    TOKEN_TYPE,
    Field::optional("remember_me", "rememberMe", Rule::Boolean),
    Field::extra(true),
];

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    match operation {
        Operation::Send | Operation::Resend => Some(SEND.iter().collect()),
        Operation::Verify => Some(VERIFY.iter().collect()),
        Operation::Cancel => None,
    }
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    match call.operation {
        Operation::Send => send(call, "a send"),
        Operation::Resend => send(call, "a resend"),
        Operation::Verify => verify(call),
        Operation::Cancel => Err(no_operation(&DIALECT, call.operation)),
    }
}

fn send(call: &Call, what: &str) -> Result<Prepared, Invalid> {
    let mut filled = FilledPayload::new(&DIALECT, call, SEND, what)?;
    filled.or_default("token_type", "TXN_TOKEN");
    let mut head = Map::new();
    filled.write(&mut head, &["request_timestamp", "token_type", "token"]);
    let mut body = Map::new();
    filled.write(&mut body, &["mobile", "auto_read_hash"]);
    ordered(call, &filled, "/aoa-pay-option-service/v2/otp/generate", head, body)
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let mut filled = FilledPayload::new(&DIALECT, call, VERIFY, "a verify")?;
    filled.or_default("token_type", "TXN_TOKEN");
    // `version` stands in the page's sample, though not in its table.
    let mut head = Map::from_iter([("version".into(), json!("v1"))]);
    filled.write(&mut head, &["request_timestamp", "channel_id", "token", "token_type"]);
    let mut body = Map::from_iter([("otp".into(), code(call))]);
    filled.write(&mut body, &["remember_me"]);
    ordered(call, &filled, "/aoa-pay-option-service/v2/otp/verify", head, body)
}

fn ordered(
    call: &Call,
    filled: &FilledPayload,
    path: &str,
    head: Map<String, Value>,
    body: Map<String, Value>,
) -> Result<Prepared, Invalid> {
    let mut whole = Map::from_iter([("head".into(), Value::Object(head)), ("body".into(), Value::Object(body))]);
    filled.lay_extra(&mut whole)?;
    let mobile = filled.mobile(NumberingPlan::India);
    Ok(Prepared {
        recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
        recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
        reference: filled.reference("order_id"),
        ..filled.prepared(post(call, filled, path, whole), FindBy::Reference)
    })
}

fn post(call: &Call, filled: &FilledPayload, path: &str, body: Map<String, Value>) -> HttpRequest {
    let mut headers = vec![
        ("Content-Type".into(), Secret::new("application/json")),
        ("Accept".into(), Secret::new("application/json")),
    ];
    if let (Some(name), Some(password)) = (call.credentials.get("username"), call.credentials.get("password")) {
        let basic = Secret::new(format!("Basic {}", Secret::basic(name, password).reveal()));
        headers.push(("Authorization".into(), basic));
    }
    let parameter = |name| Secret::new(filled.text(name).unwrap_or_default());
    HttpRequest {
        query: vec![("mid".into(), parameter("mid")), ("orderId".into(), parameter("order_id"))],
        ..json_request(path, headers, body)
    }
}

fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let body = answer.get("body")?;
    let info = body.get("resultInfo")?.as_object()?;
    let verdict = scalar(info.get("resultStatus")).map(|verdict| verdict.to_ascii_uppercase());
    let code = match info.get("resultCode") {
        // A vendor's 0000 may be written as a number, and is 0 then.
        Some(Value::Number(_)) if scalar(info.get("resultCode")).as_deref() == Some("0") => Some("0000".into()),
        other => scalar(other),
    };
    let words = scalar(info.get("resultMsg"));
    let verify = operation == Operation::Verify;
    let outcome = match (verdict.as_deref(), code.as_deref()) {
        (Some("S"), Some("0000")) if !is_success(status) => {
            return Some(CallResult::unknown(DENIED, code, words));
        }
        (Some("S"), Some("0000")) if !verify => Outcome::Sent,
        (Some("S"), Some("0000")) => match authenticated(body) {
            true => Outcome::Approved,
            false => {
                return Some(CallResult::unknown("0000 without authenticated: true", code, words));
            }
        },
        (Some("F"), Some(failed)) if failed != "0000" => failure(operation, status, failed),
        (Some("U"), _) => {
            return Some(CallResult::unknown("the vendor does not know the result (U)", code, words));
        }
        _ => {
            return Some(CallResult::unknown("resultStatus and resultCode do not agree", code, words));
        }
    };
    // "Authorization Failed" may be the journey's token, which comes with the payload.
    let is_personal = outcome == Outcome::AuthFailed;
    Some(CallResult { is_personal, ..CallResult::new(outcome, code, words) })
}

/// Returns whether the code was right: `authenticated` may be absent, but if it is there it must be true.
fn authenticated(body: &Value) -> bool {
    match body.get("authenticated") {
        None | Some(Value::Bool(true)) => true,
        Some(Value::String(word)) => word.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

fn failure(operation: Operation, status: u16, code: &str) -> Outcome {
    let verify = operation == Operation::Verify;
    match code {
        // 442 is "Invalid OTP, already used OTP entered": a wrong code, and the right one may still come.
        "403" | "442" if verify => Outcome::InvalidCode,
        "531" if verify => Outcome::MaxAttemptsReached,
        "531" => Outcome::RateLimited,
        "1006" => Outcome::Expired,
        "501" => Outcome::ProviderError,
        "401" => Outcome::AuthFailed,
        "403" | "442" | "432" | "433" | "435" | "827" => Outcome::Refused,
        "434" | "1001" | "1007" | "1011" | "1012" | "2013" | "2014" | "2222" | "431" => Outcome::InvalidRequest,
        _ => unlisted(operation, status),
    }
}
