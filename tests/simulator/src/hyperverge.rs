//! HyperVerge: credentials and the journey's id in headers; one open code for each number of an application.

use std::collections::HashMap;

use serde_json::Value;

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, is_refused, quoted};
use crate::strict::{self, Field, indian_mobile, is_digits, number_text, one_of, optional, required, text};

/// The page gives none.
const TRIES: u32 = 5;
const DEFAULT_LENGTH: usize = 4;
const DEFAULT_EXPIRY_MINUTES: u64 = 1440;

const SEND: [Field; 7] = [
    required("templateId", text),
    required("mobileNumber", indian_mobile),
    optional("otpLength", |value| number_text(value, 4..=9, "a number from 4 to 9, as a string")),
    optional("otpExpiry", |value| number_text(value, 1..=10080, "minutes from 1 to 10080, as a string")),
    optional("time", text),
    optional("timeFormat", text),
    optional("showLastFourDigits", |value| one_of(value, &["yes", "no"], "\"yes\" or \"no\"")),
];
const VERIFY: [Field; 2] = [required("mobileNumber", indian_mobile), required("otp", code_text)];
const RESEND: [Field; 2] = [
    required("mobileNumber", indian_mobile),
    required("retryType", |value| one_of(value, &["text", "voice"], "one of enum values: text,voice")),
];

fn code_text(value: &Value) -> Result<(), &'static str> {
    value.as_str().is_some_and(|text| is_digits(text, 4, 9)).then_some(()).ok_or("a string of 4 to 9 digits")
}

#[derive(Default)]
pub struct Hyperverge {
    /// By application and number.
    codes: HashMap<(String, String), Code>,
}

impl Dialect for Hyperverge {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/v1/verifyMobileSendOtp" => Operation::Send,
            "/v1/verifyMobileOtp" => Operation::Verify,
            "/v1/resendOtp" => Operation::Resend,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let journey = call.http.header("transactionId").map(Into::into);
        About { recipient: call.text_if_any("mobileNumber"), reference: journey.clone(), key: journey }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let allowed: &[Field] = match call.operation {
            Operation::Send => &SEND,
            Operation::Verify => &VERIFY,
            Operation::Resend => &RESEND,
            _ => {
                let body = r#"{"message":"Not Found","statusCode":404,"status":"failure"}"#;
                return Reply::status(404, body).complaining("no such path");
            }
        };
        for name in ["appId", "appKey"] {
            if let Some(complaint) = strict::header(call, name) {
                return unauthorized().complaining(complaint);
            }
            if call.http.header(name).is_some_and(is_refused) {
                return unauthorized();
            }
        }
        let complaint = strict::envelope(call)
            .or_else(|| strict::no_query(call))
            .or_else(|| strict::header(call, "transactionId"))
            .or_else(|| strict::fields(&call.json, allowed).map(|wrong| wrong.text))
            .or_else(|| {
                let given = |name| call.json.get(name).is_some();
                (given("time") != given("timeFormat")).then(|| "time and timeFormat go together".to_owned())
            });
        if let Some(complaint) = complaint {
            let body = format!(
                r#"{{"message":{},"statusCode":400,"status":"failure"}}"#,
                quoted(&format!("Input Validation Error: {complaint}"))
            );
            return Reply::status(400, body).complaining(complaint);
        }

        let key = (call.http.header("appId").unwrap_or("").to_owned(), call.text("mobileNumber").to_owned());
        match call.operation {
            Operation::Send => self.send(call, key, now_ms, dice),
            Operation::Verify => self.verify(call, &key, now_ms, dice),
            _ => self.resend(&key, now_ms, dice),
        }
    }
}

impl Hyperverge {
    fn send(&mut self, call: &Call<'_>, key: (String, String), now_ms: u64, dice: &mut Dice) -> Reply {
        let length = call.text("otpLength").parse().unwrap_or(DEFAULT_LENGTH);
        let minutes = call.text("otpExpiry").parse().unwrap_or(DEFAULT_EXPIRY_MINUTES);
        let text = dice.digits(length);
        let reply = success(dice).delivering(key.1.as_str(), text.as_str());
        let code = Code { text, expires_ms: now_ms + minutes * 60 * 1000, tries_left: TRIES, used: false };
        self.codes.insert(key, code);
        reply
    }

    fn verify(&mut self, call: &Call<'_>, key: &(String, String), now_ms: u64, dice: &mut Dice) -> Reply {
        let Some(code) = self.codes.get_mut(key) else {
            return failure("last_otp_request_on_this_number_is_invalid", Some(dice));
        };
        match code.check(call.text("otp"), now_ms) {
            Verdict::Right => success(dice),
            Verdict::Wrong(_) => failure("OTP not match", Some(dice)),
            Verdict::Used => failure("Mobile no. already verified", None),
            Verdict::Expired => failure("OTP expired", Some(dice)),
            Verdict::Exhausted => failure("Max limit reached for this otp verification", Some(dice)),
        }
    }

    /// The same code goes out again, and lives no longer for it.
    fn resend(&mut self, key: &(String, String), now_ms: u64, dice: &mut Dice) -> Reply {
        match self.codes.get(key) {
            None => failure("No OTP request found to retryotp", None),
            Some(code) if code.used => failure("Mobile no. already verified", None),
            Some(code) if now_ms >= code.expires_ms => {
                failure("last_otp_request_on_this_number_is_invalid", Some(dice))
            }
            Some(code) => success(dice).delivering(key.1.as_str(), code.text.as_str()),
        }
    }
}

fn success(dice: &mut Dice) -> Reply {
    Reply::ok(format!(r#"{{"status":"success","statusCode":200,"metaData":{{"requestId":"{}"}}}}"#, dice.uuid()))
}

/// Two of the page's samples carry no metaData.
fn failure(message: &str, dice: Option<&mut Dice>) -> Reply {
    let metadata = dice.map_or(String::new(), |dice| format!(r#","metaData":{{"requestId":"{}"}}"#, dice.uuid()));
    Reply::ok(format!(
        r#"{{"statusCode":200,"status":"failure","error":{{"message":"{message}","type":"error"}}{metadata}}}"#
    ))
}

fn unauthorized() -> Reply {
    Reply::status(401, r#"{"message":"Missing/Invalid credentials","statusCode":401,"status":"failure"}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const HEADERS: [(&str, &str); 4] =
        [("content-type", "application/json"), ("appId", "a"), ("appKey", "k"), ("transactionId", "t")];

    fn send(vendor: &mut Hyperverge, extra: &str) -> String {
        let body = format!(r#"{{"templateId":"T","mobileNumber":"9876543210"{extra}}}"#);
        let reply = ask(vendor, "/v1/verifyMobileSendOtp", &HEADERS, &body, 0);
        assert_eq!((reply.status, reply.complaint), (200, None));
        reply.message.unwrap().1
    }

    fn verify(vendor: &mut Hyperverge, otp: &str, now_ms: u64) -> String {
        let body = format!(r#"{{"mobileNumber":"9876543210","otp":"{otp}"}}"#);
        ask(vendor, "/v1/verifyMobileOtp", &HEADERS, &body, now_ms).body
    }

    #[test]
    fn wrong_then_right_then_used() {
        let mut vendor = Hyperverge::default();
        assert!(verify(&mut vendor, "1234", 0).contains("last_otp_request_on_this_number"));
        let code = send(&mut vendor, "");
        assert_eq!(code.len(), 4);
        assert!(verify(&mut vendor, &other_than(&code), 1).contains("OTP not match"));
        assert!(verify(&mut vendor, &code, 1).contains(r#""status":"success""#));
        assert!(verify(&mut vendor, &code, 1).contains("Mobile no. already verified"));
    }

    #[test]
    fn expired_and_exhausted() {
        let mut vendor = Hyperverge::default();
        let code = send(&mut vendor, r#","otpLength":"9","otpExpiry":"1""#);
        assert_eq!(code.len(), 9);
        assert!(verify(&mut vendor, &code, 60_000).contains("OTP expired"));
        for _ in 0..TRIES {
            assert!(verify(&mut vendor, &other_than(&code), 1).contains("OTP not match"));
        }
        assert!(verify(&mut vendor, &code, 1).contains("Max limit reached"));
    }

    #[test]
    fn resend_repeats_the_code() {
        let mut vendor = Hyperverge::default();
        let body = r#"{"mobileNumber":"9876543210","retryType":"text"}"#;
        let none = ask(&mut vendor, "/v1/resendOtp", &HEADERS, body, 0);
        assert!(none.body.contains("No OTP request found to retryotp"));
        let code = send(&mut vendor, "");
        let again = ask(&mut vendor, "/v1/resendOtp", &HEADERS, body, 0);
        assert_eq!(again.message.unwrap().1, code);
    }

    #[test]
    fn refuses_numbers_where_the_page_has_strings() {
        let mut vendor = Hyperverge::default();
        let body = r#"{"templateId":"T","mobileNumber":"9876543210","otpLength":6}"#;
        let reply = ask(&mut vendor, "/v1/verifyMobileSendOtp", &HEADERS, body, 0);
        assert_eq!(reply.status, 400);
        assert!(reply.complaint.unwrap().starts_with("otpLength must be"));
        let bare = ask(&mut vendor, "/v1/resendOtp", &HEADERS[..1], body, 0);
        assert_eq!(bare.status, 401);
    }
}
