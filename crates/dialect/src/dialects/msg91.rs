//! MSG91 OTP, API v5 (docs/vendors/msg91.md): numbers of any country, known by nothing but the number. A send is JSON,
//! later calls are forms. Every answer is an HTTP 200: `type` decides, and within it the words.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    call::{Call, FindBy, HttpRequest, Prepared, form_request, json_request},
    dialect::{Dialect, RESEND_AFTER},
    operation::Operation,
    outcome::Outcome,
    payload::{
        code::CodeForm,
        extra,
        field::{BY_SMS, Field, Invalid},
        fill::{FilledPayload, code, no_operation},
        phone_number::NumberingPlan,
        rule::Rule,
    },
    response::{CallResult, DENIED, is_success, reference, scalar, unlisted},
    secret::Secret,
};

pub static DIALECT: Dialect = Dialect {
    name: "msg91",
    base_url: Some("https://control.msg91.com"),
    test_host: None,
    code_lifetime: Some(Duration::from_secs(24 * 60 * 60)),
    code: CodeForm::Digits { min: 4, max: 9 },
    max_checks: 5,
    resend_after: RESEND_AFTER,
    is_found_by_reference: false,
    credential_sets: &[&["authkey"]],
    header_credentials: &["authkey"],
    server_options: &[],
    fields,
    recipient: |typed| Some(NumberingPlan::Any.parse(typed)?.recipient()),
    // `invisible` would verify without a code.
    set_members: &["otp", "authkey", "invisible"],
    prepare,
    read,
    address_codes: &["418", "208"],
    sensitive: &["mobile", "mobiles", "email", "otp"],
    opaque: &["request_id"],
    description: None,
};

const MOBILE: Field = Field::required("mobile", "mobile", Rule::PhoneNumber).fixed().personal();
const FLAG: Rule = Rule::Integer { min: 0, max: 1 };

static SEND: &[Field] = &[
    MOBILE,
    Field::required("template_id", "template_id", Rule::Identifier { max: 64 })
        .like("\"0123456789abcdef01234567\"")
        .noted("MSG91's own id of the template, not its DLT id"),
    Field::optional("otp_length", "otp_length", Rule::Integer { min: 4, max: 9 })
        .noted("the code's length; the vendor takes 4 where it is left out"),
    Field::optional("otp_expiry", "otp_expiry", Rule::Integer { min: 1, max: 1440 })
        .like("10")
        .noted("minutes; the vendor takes 1440 where it is left out"),
    Field::optional("sender", "sender", Rule::Identifier { max: 16 })
        .like("ABANK")
        .noted("the DLT sender id, of older accounts"),
    Field::optional("email", "email", Rule::Email).secret().noted("the code goes there, too"),
    Field::optional("public_ip", "userip", Rule::IpAddress).personal().noted("of the user's device"),
    Field::optional("unicode", "unicode", FLAG).like("0"),
    Field::optional("real_time_response", "realTimeResponse", FLAG).like("0").noted("1 waits for the operator's word"),
    BY_SMS,
    Field::optional(VARIABLES, VARIABLES, Rule::Object { members: &[], open: true })
        .secret()
        .like("{\"name\": \"Asha\"}")
        .noted("the template's variables, members of the body itself"),
    Field::extra(false),
];

/// The template's variables, which become members of the body itself.
const VARIABLES: &str = "variables";

static RESEND: &[Field] = &[
    MOBILE,
    Field::optional("channel", "retrytype", Rule::Channel(&[("sms", "text"), ("voice", "voice")]))
        .once()
        .noted("sms where it is left out"),
    Field::extra(true),
];

static VERIFY: &[Field] = &[MOBILE, Field::extra(true)];

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
        faults.extend(extra::faults(&DIALECT, SEND, VARIABLES, filled.get(VARIABLES)));
    })?;
    let mut body = begun(&filled);
    filled.write(
        &mut body,
        &["template_id", "otp_length", "otp_expiry", "sender", "email", "public_ip", "unicode", "real_time_response"],
    );
    if let Some(variables) = filled.get(VARIABLES).and_then(Value::as_object) {
        extra::lay(&mut body, VARIABLES, variables)?;
    }
    filled.lay_extra(&mut body)?;
    let minutes = filled.get("otp_expiry").and_then(Value::as_u64);
    let code_lifetime = minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let mut headers = account(call);
    headers.push(("Content-Type".into(), Secret::new("application/json")));
    let request = json_request("/api/v5/otp", headers, body);
    Ok(Prepared { code_lifetime, ..addressed(&filled, request) })
}

fn resend(call: &Call) -> Result<Prepared, Invalid> {
    let mut filled = FilledPayload::new(&DIALECT, call, RESEND, "a resend")?;
    // If no channel is sent, the vendor rings the user up.
    filled.or_default("channel", "text");
    let mut body = begun(&filled);
    filled.write(&mut body, &["channel"]);
    filled.lay_extra(&mut body)?;
    // The vendor sends the code that it has sent before.
    Ok(Prepared { keeps_code: true, ..addressed(&filled, form_request("/api/v5/otp/retry", account(call), body)) })
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let filled = FilledPayload::new(&DIALECT, call, VERIFY, "a verify")?;
    let mut body = begun(&filled);
    body.insert("otp".into(), code(call));
    filled.lay_extra(&mut body)?;
    let reference = filled.reference("reference");
    Ok(Prepared { reference, ..addressed(&filled, form_request("/api/v5/otp/verify", account(call), body)) })
}

/// Returns a body that begins with the number, as the vendor takes it: digits alone, the country's first.
fn begun(filled: &FilledPayload) -> Map<String, Value> {
    let mobile = filled.mobile(NumberingPlan::Any).map(|mobile| mobile.recipient());
    let digits = mobile.as_ref().map(|mobile| mobile.reveal().trim_start_matches('+')).unwrap_or_default();
    Map::from_iter([("mobile".into(), digits.into())])
}

fn account(call: &Call) -> Vec<(String, Secret)> {
    vec![
        ("authkey".into(), call.credentials.get("authkey").cloned().unwrap_or_default()),
        ("Accept".into(), Secret::new("application/json")),
    ]
}

fn addressed(filled: &FilledPayload, request: HttpRequest) -> Prepared {
    let mobile = filled.mobile(NumberingPlan::Any);
    Prepared {
        recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
        recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
        ..filled.prepared(request, FindBy::Recipient)
    }
}

fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let words = scalar(answer.get("message"));
    let code = match answer.get("code") {
        None | Some(Value::Null) => None,
        given => Some(scalar(given)?),
    };
    let Some(verdict) = scalar(answer.get("type")) else {
        let is_unauthorized = status == 401 && answer.get("hasError") == Some(&Value::Bool(true));
        return is_unauthorized.then(|| CallResult::new(Outcome::AuthFailed, code, scalar(answer.get("errors"))));
    };
    let said = key(words.as_deref().unwrap_or_default());
    match verdict.to_ascii_lowercase().as_str() {
        "success" if !is_success(status) => Some(CallResult::unknown(DENIED, code, words)),
        "success" => Some(success(operation, answer, &said, code, words)),
        "error" => Some(CallResult::new(failure(operation, status, &said, code.as_deref()), code, words)),
        _ => None,
    }
}

/// Returns the words of a message without case, spaces, underscores and final stops.
fn key(words: &str) -> String {
    let plain: String = words.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    plain.trim_end_matches('.').to_lowercase()
}

fn success(
    operation: Operation,
    answer: &Value,
    said: &str,
    code: Option<String>,
    words: Option<String>,
) -> CallResult {
    let is_sentence = |sentences: &[&str]| sentences.contains(&said);
    // The older API gives the id in the message's place.
    let is_id = |text: &&str| text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = reference(answer.get("request_id")).or_else(|| words.as_deref().filter(is_id).map(str::to_owned));
    match operation {
        Operation::Send if id.is_some() => {
            // The id is shown as the reference, and not again as words.
            let words = words.filter(|words| id.as_ref() != Some(words));
            CallResult { reference: id, ..CallResult::new(Outcome::Sent, code, words) }
        }
        Operation::Send | Operation::Resend if is_sentence(&["otpsentsuccessfully"]) => {
            CallResult { reference: id, ..CallResult::new(Outcome::Sent, code, words) }
        }
        Operation::Resend if is_sentence(&["retrysendsuccessfully"]) => {
            CallResult { reference: id, ..CallResult::new(Outcome::Sent, code, words) }
        }
        // "Already verified" approves nothing, even under type success: after the right code any code may be answered
        // so.
        Operation::Verify if is_already_verified(said) => CallResult::new(Outcome::AlreadyUsed, code, words),
        Operation::Verify if is_sentence(&["otpverifiedsuccess", "otpverified", "numberverifiedsuccessfully"]) => {
            CallResult::new(Outcome::Approved, code, words)
        }
        _ => CallResult::unknown("type success with a message that the page does not list", code, words),
    }
}

fn is_already_verified(said: &str) -> bool {
    matches!(said, "mobileno.alreadyverified" | "alreadyverified" | "otpalreadyverified")
}

fn failure(operation: Operation, status: u16, said: &str, code: Option<&str>) -> Outcome {
    let by_words = match operation {
        Operation::Verify => checked(said),
        Operation::Resend => match said {
            "nootprequestfoundtoretryotp" | "norequestfound" => Some(Outcome::NotFound),
            "otpexpired" => Some(Outcome::Expired),
            "otpretrycountmaxedout" | "maxretrycountexceeded" => Some(Outcome::RateLimited),
            _ => None,
        },
        Operation::Send | Operation::Cancel => match said {
            "pleaseenteratleastonenumbertosendsms"
            | "templateidmissingorinvalidtemplate"
            | "invalidotplength"
            | "invalidotpexpiry" => Some(Outcome::InvalidRequest),
            _ => None,
        },
    };
    let of_any = match said {
        "mobileno.emptyornotnumeric" | "mobilenumberemptyornotnumeric" | "invalidmobile" | "invalidmobilenumber" => {
            Some(Outcome::InvalidRequest)
        }
        "invalidauthkey" | "authkeymissing" | "authenticationfailure" | "ipnotwhitelisted" => Some(Outcome::AuthFailed),
        "ipblocked" => Some(Outcome::RateLimited),
        _ if said.contains("toomany") || said.contains("wait") && said.contains("minute") => Some(Outcome::RateLimited),
        _ => None,
    };
    by_words.or(of_any).unwrap_or_else(|| by_code(operation, status, code))
}

fn checked(said: &str) -> Option<Outcome> {
    Some(match said {
        "otpnotmatch" | "otpnotverified" | "invalidotp" => Outcome::InvalidCode,
        "otpexpired" => Outcome::Expired,
        said if is_already_verified(said) => Outcome::AlreadyUsed,
        "mobileno.notfound" | "mobilenotfound" | "lastotprequestonthisnumberisinvalid" => Outcome::NotFound,
        "maxlimitreachedforthisotpverification" => Outcome::MaxAttemptsReached,
        _ => return None,
    })
}

/// Returns the outcome by the list of codes of the older API.
fn by_code(operation: Operation, status: u16, code: Option<&str>) -> Outcome {
    match code.and_then(|code| code.parse().ok()) {
        Some(101..=103 | 107 | 202 | 203 | 211 | 307..=310) => Outcome::InvalidRequest,
        Some(104..=106 | 201 | 207 | 208 | 401 | 418) => Outcome::AuthFailed,
        Some(205 | 209 | 210 | 301..=303 | 306 | 505 | 506) => Outcome::Refused,
        Some(311) => Outcome::RateLimited,
        // The page does not say whether a check that ended so has compared the code.
        Some(1 | 2 | 601) if operation == Operation::Verify => Outcome::Unknown,
        Some(1 | 2 | 601) => Outcome::ProviderError,
        // This machine's address is not on the list of the authkey.
        _ if status == 418 => Outcome::AuthFailed,
        _ => unlisted(operation, status),
    }
}
