//! Promise: whatever a server answers (cut off, twisted, huge, deep, random), reading it and redacting it never panics
//! and never reports a code as sent or approved that the vendor did not say so of in its documented form.

mod caller;

use caller::read_bytes;
use serde_json::{Value, json};
use vendor::{Operation, Operation::*, Outcome, Secret, dialect, redact, redact_text};

/// Every documented success, and some failures, with the operation they answer.
fn documented() -> Vec<(&'static str, Operation, Value)> {
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

fn is_good(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled)
}

/// An oracle of its own: the vendor's page in as few words as possible, without the crate's code.
fn says_success(vendor: &str, operation: Operation, status: u16, body: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return false;
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.trim().to_uppercase(),
        Value::Number(number) => number.to_string(),
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
            fine && text(&info["resultStatus"]) == "S" && (code == "0000" || info["resultCode"] == json!(0)) && sure
        }
        "relid" => {
            let zero = text(&answer["response_code"]) == "0" && answer["error_code"].is_null();
            let more = match operation {
                Verify => text(&answer["otp_validation_status"]) == "SUCCESS",
                Cancel => true,
                _ => !text(&answer["notification_uuid"]).is_empty(),
            };
            fine && zero && more
        }
        _ => {
            let more = match operation {
                Verify => answer["subscriptionStatus"].is_string() || answer["subscriberId"].is_string(),
                _ => !text(&answer["referenceNo"]).is_empty(),
            };
            fine && text(&answer["statusCode"]) == "S1000" && more
        }
    }
}

/// A success that is reported is a success that was said. (Not the other way round: doubt is always allowed.)
#[track_caller]
fn check(vendor: &str, operation: Operation, status: u16, body: &[u8]) {
    let reading = read_bytes(vendor, operation, status, body);
    if is_good(reading.outcome) {
        let shown = String::from_utf8_lossy(body);
        assert!(says_success(vendor, operation, status, body), "{vendor} {operation:?} {status} {shown}");
    }
    if reading.outcome == Outcome::Unknown {
        assert!(reading.vendor_message.is_some());
    }
    if let Some(mut response) = reading.response {
        redact(dialect(vendor).unwrap(), &[Secret::new("8144094480"), Secret::new("1234")], &mut response);
        assert!(!response.to_string().contains("8144094480"));
    }
}

#[test]
fn a_documented_success_is_one() {
    for (vendor, operation, body) in documented() {
        let text = body.to_string();
        let good = is_good(read_bytes(vendor, operation, 200, text.as_bytes()).outcome);
        assert_eq!(good, says_success(vendor, operation, 200, text.as_bytes()), "{vendor} {text}");
    }
}

#[test]
fn an_answer_cut_off_anywhere_is_no_success() {
    for (vendor, operation, body) in documented() {
        let text = body.to_string();
        for end in 0..text.len() {
            let reading = read_bytes(vendor, operation, 200, &text.as_bytes()[..end]);
            assert_eq!(reading.outcome, Outcome::Unknown, "{vendor} {end}");
        }
        let mut longer = text.clone().into_bytes();
        longer.extend_from_slice(b"}");
        assert_eq!(read_bytes(vendor, operation, 200, &longer).outcome, Outcome::Unknown);
    }
}

/// Puts something else in the place of every member, one at a time.
fn replaced(value: &Value, with: &Value) -> Vec<Value> {
    let mut all = vec![with.clone()];
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                for other in replaced(member, with) {
                    let mut copy = members.clone();
                    copy.insert(key.clone(), other);
                    all.push(Value::Object(copy));
                }
                let mut without = members.clone();
                without.shift_remove(key);
                all.push(Value::Object(without));
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for other in replaced(item, with) {
                    let mut copy = items.clone();
                    copy[at] = other;
                    all.push(Value::Array(copy));
                }
            }
        }
        _ => {}
    }
    all
}

fn strange() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(200),
        json!(1e300),
        json!(0.5),
        json!(u64::MAX),
        json!(""),
        json!("0"),
        json!("0000"),
        json!("S"),
        json!("SUCCESS"),
        json!("success "),
        json!("FAILED"),
        json!("200"),
        json!("S1000"),
        json!("E1850"),
        json!("\u{0}\u{1f}"),
        json!("ʼn".repeat(3000)),
        json!([]),
        json!({}),
        json!([["SUCCESS"]]),
        json!({"message": {"message": "SUCCESS"}}),
    ]
}

#[test]
fn a_wrong_type_in_any_place_is_survived() {
    for (vendor, operation, body) in documented() {
        for with in strange() {
            for twisted in replaced(&body, &with) {
                for status in [200, 302, 400, 401, 429, 500, 503] {
                    check(vendor, operation, status, twisted.to_string().as_bytes());
                }
            }
        }
    }
}

#[test]
fn an_answer_to_another_call_or_of_another_vendor_is_survived() {
    for (_, _, body) in documented() {
        for vendor in vendor::DIALECTS {
            for operation in Operation::ALL {
                check(vendor.name, operation, 200, body.to_string().as_bytes());
            }
        }
    }
}

/// Deterministic, so that a failure can be seen again (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

const SPLINTERS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"null",
    b"true",
    b"\xff",
    b"\xc3",
    b"\\u0000",
    b"\\ud800",
    b"SUCCESS",
    b"FAILED",
    b"S1000",
    b"0000",
    b"-",
    b"e9",
    b" ",
    b"\n",
    b"8144094480",
];

fn mutate(dice: &mut Dice, body: &mut Vec<u8>, other: &[u8]) {
    let at = dice.roll(body.len() + 1);
    match dice.roll(6) {
        0 if at < body.len() => body[at] = dice.roll(256) as u8,
        1 if at < body.len() => body[at] ^= 1 << dice.roll(8),
        2 => {
            let to = (at + dice.roll(8)).min(body.len());
            body.drain(at..to);
        }
        3 => {
            let from = dice.roll(other.len());
            let to = (from + dice.roll(24)).min(other.len());
            body.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let splinter = SPLINTERS[dice.roll(SPLINTERS.len())];
            body.splice(at..at, splinter.iter().copied());
        }
    }
}

#[test]
fn random_mutations_are_survived() {
    let documented = documented();
    let texts: Vec<Vec<u8>> = documented.iter().map(|(_, _, body)| body.to_string().into_bytes()).collect();
    let mut dice = Dice(0x5eed_0001);
    for round in 0..60_000 {
        let (vendor, operation, _) = &documented[round % documented.len()];
        let mut body = texts[round % texts.len()].clone();
        for _ in 0..=dice.roll(4) {
            let other = &texts[dice.roll(texts.len())];
            mutate(&mut dice, &mut body, other);
        }
        check(vendor, *operation, [200, 200, 200, 400, 500][dice.roll(5)], &body);
    }
}

#[test]
fn very_deep_and_very_long_answers_are_survived() {
    for vendor in vendor::DIALECTS {
        for body in [
            b"[".repeat(1 << 20),
            b"{\"a\":".repeat(1 << 17),
            [b"[".repeat(500_000), b"]".repeat(500_000)].concat(),
            b"\"".repeat(1 << 20),
            b" ".repeat((1 << 20) + 1),
            [b"{\"status\":\"".to_vec(), b"9".repeat(1 << 19), b"\"}".to_vec()].concat(),
            b"9".repeat(1 << 20),
        ] {
            let reading = read_bytes(vendor.name, Verify, 200, &body);
            assert_eq!(reading.outcome, Outcome::Unknown);
        }
    }
}

#[test]
fn redaction_of_random_text_never_panics_and_leaves_no_secret() {
    let secrets: Vec<Secret> =
        ["8144094480", "918144094480", "1234", "tökén-1234", "éé"].into_iter().map(Secret::new).collect();
    let pieces =
        ["8144094480", "81440 94480", "1234", "tökén", "-1234", "é", "ü", "0", "9", " ", "-", "TÖKÉN-1234", "x"];
    let mut dice = Dice(0x5eed_0002);
    for _ in 0..20_000 {
        let text: String = (0..dice.roll(12)).map(|_| pieces[dice.roll(pieces.len())]).collect();
        let clean = redact_text(&secrets, &text);
        for secret in ["8144094480", "1234", "tökén-1234", "81440 94480"] {
            assert!(!clean.contains(secret), "{text} -> {clean}");
        }
    }
}
