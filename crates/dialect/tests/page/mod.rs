//! What the vendors' pages say of their answers, in as few words as possible and without the crate's code: an oracle.

use dialect::{Operation, Operation::*, Outcome};
use serde_json::{Value, json};

/// Returns every documented success and some failures, with the operation that they answer.
pub fn documented() -> Vec<(&'static str, Operation, Value)> {
    let uuid = "03f67f9e-ec4f-11e6-b006-92361f002671";
    vec![
        ("iserveu", Send, json!({"status": "SUCCESS", "statusCode": "0", "statusDesc": "OTP Sent Successfully."})),
        ("iserveu", Verify, json!({"status": "SUCCESS", "statusCode": "0", "name": "A", "mobileNumber": "8144094480"})),
        ("iserveu", Verify, json!({"status": "FAILED", "statusCode": "1", "statusDesc": "Invalid OTP"})),
        ("hyperverge", Send, json!({"status": "success", "statusCode": 200, "metaData": {"requestId": "r"}})),
        ("hyperverge", Verify, json!({"status": "success", "statusCode": 200, "metaData": {"requestId": "r"}})),
        ("hyperverge", Verify, json!({"statusCode": 200, "status": "failure", "error": {"message": "OTP not match"}})),
        ("paytm", Send, json!({"body": {"resultInfo": {"resultStatus": "S", "resultCode": "0000"}}})),
        (
            "paytm",
            Verify,
            json!({"body": {"resultInfo": {"resultStatus": "S", "resultCode": "0000"}, "authenticated": true}}),
        ),
        ("paytm", Verify, json!({"body": {"resultInfo": {"resultStatus": "F", "resultCode": "403"}}})),
        ("relid", Send, json!({"response_code": 0, "notification_uuid": uuid, "msg_id": "m"})),
        ("relid", Verify, json!({"response_code": 0, "notification_uuid": uuid, "otp_validation_status": "SUCCESS"})),
        ("relid", Cancel, json!({"response_code": 0, "notification_uuid": uuid})),
        ("relid", Verify, json!({"response_code": 1, "error_code": 3565, "error_message": "expired"})),
        ("ideamart", Send, json!({"statusCode": "S1000", "referenceNo": "3b84346f", "version": "1.0"})),
        (
            "ideamart",
            Verify,
            json!({"statusCode": "S1000", "subscriptionStatus": "REGISTERED", "subscriberId": "tel:hu3b84346f63"}),
        ),
        ("ideamart", Verify, json!({"statusCode": "E1850", "statusDetail": "Invalid OTP"})),
        ("ideamart", Verify, json!({"statusCode": "E1851", "statusDetail": "OTP request has being expired"})),
        ("ideamart", Send, json!({"statusCode": "E1363", "statusDetail": "late"})),
        ("ideamart", Send, json!({"statusCode": "E1603", "statusDetail": "system error"})),
        ("hyperverge", Send, json!({"statusCode": 502, "status": "failure", "error": "Bad Gateway"})),
        ("hyperverge", Send, json!({"statusCode": 500, "status": "failure", "error": "Internal Server Error"})),
        ("hyperverge", Verify, json!({"statusCode": 200, "status": "failure", "error": {"message": "OTP expired"}})),
        (
            "hyperverge",
            Verify,
            json!({"statusCode": 200, "status": "failure", "error": {"message": "Mobile no. already verified"}}),
        ),
        ("iserveu", Send, json!({"status": "FAILED", "statusCode": "1", "statusDesc": "Failed to send OTP"})),
        ("iserveu", Verify, json!({"status": "FAILED", "statusCode": "3", "statusDesc": "OTP has expired"})),
        ("iserveu", Verify, json!({"status": "FAILED", "statusCode": "3", "statusDesc": "limit exceeded"})),
        ("paytm", Verify, json!({"body": {"resultInfo": {"resultStatus": "F", "resultCode": "442"}}})),
        ("paytm", Verify, json!({"body": {"resultInfo": {"resultStatus": "F", "resultCode": "1006"}}})),
        ("paytm", Send, json!({"body": {"resultInfo": {"resultStatus": "F", "resultCode": "501"}}})),
        ("twilio", Send, json!({"sid": "VE1", "status": "pending", "valid": false, "to": "+918144094480"})),
        ("twilio", Verify, json!({"sid": "VE1", "status": "approved", "valid": true, "to": "+918144094480"})),
        ("twilio", Verify, json!({"sid": "VE1", "status": "pending", "valid": false, "to": "+918144094480"})),
        ("twilio", Cancel, json!({"sid": "VE1", "status": "canceled", "valid": false})),
        ("twilio", Verify, json!({"code": 20404, "message": "The requested resource was not found", "status": 404})),
        ("twilio", Verify, json!({"code": 60202, "message": "Max check attempts reached", "status": 429})),
        ("twilio", Send, json!({"code": 20500, "message": "Internal server error", "status": 500})),
        ("msg91", Send, json!({"request_id": "3763646c3058373530393938", "type": "success"})),
        ("msg91", Verify, json!({"message": "OTP verified success", "type": "success"})),
        ("msg91", Verify, json!({"message": "OTP not match", "type": "error"})),
        ("msg91", Verify, json!({"message": "Mobile no. already verified", "type": "error"})),
        ("msg91", Verify, json!({"message": "Max limit reached for this otp verification", "type": "error"})),
        ("msg91", Resend, json!({"message": "retry send successfully", "type": "success"})),
        ("msg91", Send, json!({"message": "System error", "type": "error", "code": "001"})),
        ("relid", Send, json!({"response_code": 1, "error_code": 2699, "error_message": "Internal Server error"})),
        ("vonage", Send, json!({"request_id": uuid})),
        ("vonage", Verify, json!({"request_id": uuid, "status": "completed"})),
        ("vonage", Verify, json!({"title": "Invalid Code", "type": "https://x.example/verify-v2#invalid-code"})),
        ("vonage", Verify, json!({"title": "Not Found", "type": "https://x.example/verify-v2#not-found"})),
        ("vonage", Send, json!({"title": "Internal Error", "type": "https://x.example/api-errors#internal"})),
    ]
}

/// Returns whether an outcome ends a verification, if it is no guess.
pub fn is_end(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Expired | Outcome::MaxAttemptsReached | Outcome::AlreadyUsed | Outcome::NotFound)
}

pub fn is_good(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled)
}

/// Parses an answer; a byte order mark before it is passed over.
fn parsed(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_uppercase(),
        // 200.0 and 2e2 are 200.
        Value::Number(number) => number.as_f64().map_or(String::new(), |number| (number + 0.0).to_string()),
        _ => String::new(),
    }
}

/// Returns words without the characters that do not count.
fn words(value: &Value) -> String {
    let words: String = text(value).split(|c: char| c.is_whitespace() || c == '_').collect();
    words.trim_end_matches('.').to_owned()
}

/// Returns the sentence of an answer of MSG91's.
fn sentence(answer: &Value) -> String {
    words(&answer["message"])
}

fn is_blank(body: &[u8]) -> bool {
    body.iter().all(u8::is_ascii_whitespace)
}

/// Returns whether an answer of Vonage's is a problem: a problem has a title.
fn is_problem(answer: &Value) -> bool {
    let title = &answer["title"];
    !title.is_null() && title.as_str().is_none_or(|title| !title.trim().is_empty())
}

/// Returns whether the page names such an answer to a verify as the end of a flow.
pub fn names_an_end(vendor: &str, status: u16, body: &[u8]) -> bool {
    let Some(answer) = parsed(body).or_else(|| is_blank(body).then_some(Value::Null)) else { return false };
    let code = |value: &Value| text(value).trim_start_matches('E').parse::<u64>().ok();
    match vendor {
        "hyperverge" => {
            let words = [&answer["error"]["message"], &answer["error"], &answer["message"]].map(text).join(" ");
            let words: String = words.split(|c: char| c.is_whitespace() || c == '_').collect();
            ["MOBILENO.ALREADYVERIFIED", "LASTOTPREQUESTONTHISNUMBERISINVALID", "NOOTPREQUESTFOUNDTORETRYOTP"]
                .iter()
                .chain(&["MAXLIMITREACHEDFORTHISOTPVERIFICATION"])
                .any(|sentence| words.contains(sentence))
        }
        "paytm" => matches!(code(&answer["body"]["resultInfo"]["resultCode"]), Some(531 | 1006)),
        "relid" => matches!(code(&answer["error_code"]), Some(3565 | 3575)),
        "ideamart" => matches!(code(&answer["statusCode"]), Some(1351 | 1851 | 1852 | 1854 | 1855)),
        "twilio" => match code(&answer["code"]) {
            Some(number) => matches!(number, 20404 | 60202),
            None => {
                matches!(text(&answer["status"]).as_str(), "MAX_ATTEMPTS_REACHED" | "EXPIRED" | "CANCELED" | "DELETED")
            }
        },
        "msg91" => [
            "MOBILENO.ALREADYVERIFIED",
            "ALREADYVERIFIED",
            "OTPALREADYVERIFIED",
            "OTPEXPIRED",
            "MOBILENO.NOTFOUND",
            "MOBILENOTFOUND",
            "LASTOTPREQUESTONTHISNUMBERISINVALID",
            "MAXLIMITREACHEDFORTHISOTPVERIFICATION",
        ]
        .contains(&sentence(&answer).as_str()),
        "vonage" => status == 410 || status == 404 && is_problem(&answer),
        // iServeU's page does not list how a wrong code is answered.
        _ => false,
    }
}

/// Returns whether such an answer says that nothing was done, so that the same request may be made again.
pub fn says_nothing_was_done(
    vendor: &str,
    operation: Operation,
    status: u16,
    is_asked_back: bool,
    body: &[u8],
) -> bool {
    let is_turned_away = status == 503 && (is_asked_back || is_blank(body));
    if matches!(status, 307 | 308) || is_turned_away {
        return true;
    }
    let Some(answer) = parsed(body) else { return false };
    let code = |value: &Value| text(value).trim_start_matches('E').parse::<u64>().ok();
    // A failure in the vendor's form that its page does not list.
    let is_unlisted = operation != Verify && matches!(status, 500 | 501 | 503);
    match vendor {
        "iserveu" => is_unlisted || operation != Verify && matches!(code(&answer["statusCode"]), Some(1 | 4)),
        "hyperverge" => {
            let given = if answer["statusCode"].is_null() { Some(status.into()) } else { code(&answer["statusCode"]) };
            operation != Verify && matches!(given, Some(500 | 501 | 503)) && !matches!(status, 502 | 504)
        }
        "paytm" => is_unlisted || code(&answer["body"]["resultInfo"]["resultCode"]) == Some(501),
        "relid" => is_unlisted || code(&answer["error_code"]) == Some(2699),
        "twilio" => {
            let is_failed = matches!(code(&answer["code"]), Some(20500 | 60441)) && !matches!(status, 502 | 504);
            operation != Verify && (is_unlisted || is_failed)
        }
        "msg91" => operation != Verify && (is_unlisted || matches!(code(&answer["code"]), Some(1 | 2 | 601))),
        "vonage" => operation != Verify && matches!(status, 500 | 503) && is_problem(&answer),
        "ideamart" => {
            matches!(code(&answer["statusCode"]), Some(1316 | 1318 | 1319 | 1364 | 1600 | 1603 | 1857))
        }
        _ => false,
    }
}

/// Returns whether the page takes such an answer for a success.
pub fn says_success(vendor: &str, operation: Operation, status: u16, body: &[u8]) -> bool {
    // A status may be the whole of an answer.
    if (vendor, operation, status) == ("vonage", Cancel, 204) && is_blank(body) {
        return true;
    }
    let Some(answer) = parsed(body) else { return false };
    let fine = (200..300).contains(&status);
    match vendor {
        "iserveu" => fine && text(&answer["status"]) == "SUCCESS",
        "hyperverge" => {
            let code = match &answer["statusCode"] {
                Value::Null => status.to_string(),
                code => text(code),
            };
            text(&answer["status"]) == "SUCCESS" && code.parse() == Ok(200) && answer["error"].is_null()
        }
        "paytm" => {
            let info = &answer["body"]["resultInfo"];
            let code = text(&info["resultCode"]);
            let sure = operation != Verify
                || answer["body"].get("authenticated").is_none_or(|sure| sure == &json!(true) || text(sure) == "TRUE");
            fine && text(&info["resultStatus"]) == "S"
                && (code == "0000" || info["resultCode"].is_number() && code == "0")
                && sure
        }
        "relid" => {
            let error = &answer["error_code"];
            let is_none = error.is_null()
                || error == &json!("")
                || text(error) == "0"
                || error.as_str().is_some_and(|text| text.trim().is_empty());
            let zero = text(&answer["response_code"]) == "0" && is_none;
            let more = match operation {
                Verify => text(&answer["otp_validation_status"]) == "SUCCESS",
                Cancel => true,
                _ => !text(&answer["notification_uuid"]).is_empty(),
            };
            fine && zero && more
        }
        "twilio" => {
            let said = text(&answer["status"]);
            let wanted = match operation {
                Verify => said == "APPROVED" && answer["valid"] != json!(false),
                Cancel => said == "CANCELED",
                _ => said == "PENDING" && !text(&answer["sid"]).is_empty(),
            };
            fine && answer["code"].is_null() && wanted
        }
        "msg91" => {
            let said = sentence(&answer);
            let wanted = match operation {
                Verify => ["OTPVERIFIEDSUCCESS", "OTPVERIFIED", "NUMBERVERIFIEDSUCCESSFULLY"].contains(&said.as_str()),
                Resend => ["RETRYSENDSUCCESSFULLY", "OTPSENTSUCCESSFULLY"].contains(&said.as_str()),
                _ => {
                    let is_id = said.len() == 24 && said.bytes().all(|byte| byte.is_ascii_hexdigit());
                    !text(&answer["request_id"]).is_empty() || is_id || said == "OTPSENTSUCCESSFULLY"
                }
            };
            fine && text(&answer["type"]) == "SUCCESS" && wanted
        }
        "vonage" => match operation {
            Verify => status == 200 && matches!(words(&answer["status"]).as_str(), "COMPLETED" | "COMPLETE"),
            Cancel => status == 204,
            _ => status == 202 && !text(&answer["request_id"]).is_empty(),
        },
        "ideamart" => {
            let more = match operation {
                Verify => answer["subscriptionStatus"].is_string() || answer["subscriberId"].is_string(),
                _ => !text(&answer["referenceNo"]).is_empty(),
            };
            fine && text(&answer["statusCode"]) == "S1000" && more
        }
        _ => false,
    }
}
