//! What the vendors' pages say of their answers, in as few words as possible and without the crate's code: an oracle.

use serde_json::{Value, json};
use vendor::{Operation, Operation::*, Outcome};

/// Every documented success, and some failures, with the operation they answer.
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
    ]
}

pub fn is_good(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled)
}

/// Whether the page takes such an answer for a success.
pub fn says_success(vendor: &str, operation: Operation, status: u16, body: &[u8]) -> bool {
    // A byte order mark says nothing.
    let Ok(answer) = serde_json::from_slice::<Value>(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)) else {
        return false;
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.trim().to_uppercase(),
        // 200.0 and 2e2 are 200.
        Value::Number(number) => number.as_f64().map_or(String::new(), |number| (number + 0.0).to_string()),
        _ => String::new(),
    };
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
