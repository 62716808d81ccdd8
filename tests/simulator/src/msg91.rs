//! MSG91 OTP, API v5: a JSON send, forms after it, every answer an HTTP 200; one open code for each number of an account.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, is_refused};
use crate::strict::{self, Field, any_text, ip_address, is_digits, one_of, optional, required, text};

/// The pages give none.
const TRIES: u32 = 5;
const DEFAULT_LENGTH: usize = 4;
const DEFAULT_EXPIRY_MINUTES: u64 = 1440;

/// What else stands in the body is a variable of the template.
const SEND: [Field; 9] = [
    required("mobile", number),
    required("template_id", text),
    optional("otp_length", |value| whole(value, 4..=9)),
    optional("otp_expiry", |value| whole(value, 1..=1440)),
    optional("sender", text),
    optional("email", text),
    optional("userip", ip_address),
    optional("unicode", |value| whole(value, 0..=1)),
    optional("realTimeResponse", |value| whole(value, 0..=1)),
];
/// Would bring the caller's own code, or a way without one.
const NEVER: [&str; 3] = ["otp", "invisible", "authkey"];
const VERIFY: [Field; 2] = [required("mobile", number), required("otp", any_text)];
const RETRY: [Field; 2] =
    [required("mobile", number), required("retrytype", |value| one_of(value, &["text", "voice"], "text or voice"))];

fn number(value: &Value) -> Result<(), &'static str> {
    value
        .as_str()
        .is_some_and(|text| is_digits(text, 8, 15))
        .then_some(())
        .ok_or("digits with the country's code, and no +")
}

fn whole(value: &Value, range: std::ops::RangeInclusive<u64>) -> Result<(), &'static str> {
    value.as_u64().is_some_and(|number| range.contains(&number)).then_some(()).ok_or("a number in its range")
}

#[derive(Default)]
pub struct Msg91 {
    /// By account and number.
    codes: HashMap<(String, String), Code>,
}

impl Dialect for Msg91 {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/api/v5/otp" => Operation::Send,
            "/api/v5/otp/verify" => Operation::Verify,
            "/api/v5/otp/retry" => Operation::Resend,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let mobile = call.text_if_any("mobile");
        About { recipient: mobile.clone(), reference: None, key: mobile }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let Some(authkey) = call.http.header("authkey").filter(|key| !key.is_empty()) else {
            return error("Auth Key missing").complaining("no authkey header");
        };
        if is_refused(authkey) {
            return Reply::ok(json!({"message": "AuthenticationFailure", "type": "error", "code": "201"}).to_string());
        }
        let key = (authkey.to_owned(), call.text("mobile").to_owned());
        match call.operation {
            Operation::Send => self.send(call, key, now_ms, dice),
            Operation::Verify => match form(call, &VERIFY) {
                Some(refusal) => refusal,
                None => self.verify(call, &key, now_ms),
            },
            Operation::Resend => match form(call, &RETRY) {
                Some(refusal) => refusal,
                None => self.retry(&key, now_ms),
            },
            _ => Reply::status(404, "").complaining("no such path"),
        }
    }
}

/// A body in JSON is answered as if there were no key.
fn form(call: &Call<'_>, fields: &[Field]) -> Option<Reply> {
    if let Some(complaint) = strict::form_envelope(call).or_else(|| strict::no_query(call)) {
        return Some(error("Invalid authkey").complaining(complaint));
    }
    let wrong = strict::fields(&call.json, fields)?;
    let words = if wrong.field == "mobile" { "Mobile no. empty or not numeric" } else { "Invalid request" };
    Some(error(words).complaining(wrong.text))
}

impl Msg91 {
    fn send(&mut self, call: &Call<'_>, key: (String, String), now_ms: u64, dice: &mut Dice) -> Reply {
        let known = |name: &str| SEND.iter().any(|field| field.name() == name);
        let fields: serde_json::Map<String, Value> = call.json.as_object().cloned().unwrap_or_default();
        let (fields, variables): (serde_json::Map<_, _>, serde_json::Map<_, _>) =
            fields.into_iter().partition(|(name, _)| known(name));
        let complaint = strict::envelope(call)
            .or_else(|| strict::no_query(call))
            .or_else(|| strict::fields(&Value::Object(fields), &SEND).map(|wrong| wrong.text))
            .or_else(|| {
                let stray = variables.iter().find(|(name, value)| NEVER.contains(&name.as_str()) || value.is_object());
                stray.map(|(name, _)| format!("{name} does not belong into a send"))
            });
        if let Some(complaint) = complaint {
            let words = match complaint.split(' ').next() {
                Some("mobile") => "Mobile no. empty or not numeric",
                Some("template_id") => "Template ID Missing or Invalid Template",
                Some("otp_length") => "invalid_otp_length",
                Some("otp_expiry") => "invalid_otp_expiry",
                _ => "Invalid request",
            };
            return error(words).complaining(complaint);
        }
        let number_of = |name: &str| call.json.get(name).and_then(Value::as_u64);
        let text = dice.digits(number_of("otp_length").map_or(DEFAULT_LENGTH, |length| length as usize));
        let minutes = number_of("otp_expiry").unwrap_or(DEFAULT_EXPIRY_MINUTES);
        let reply = Reply::ok(json!({"request_id": dice.hex(24), "type": "success"}).to_string());
        let reply = reply.delivering(key.1.as_str(), text.as_str());
        let code = Code { text, expires_ms: now_ms + minutes * 60 * 1000, tries_left: TRIES, used: false };
        self.codes.insert(key, code);
        reply
    }

    fn verify(&mut self, call: &Call<'_>, key: &(String, String), now_ms: u64) -> Reply {
        let Some(code) = self.codes.get_mut(key) else { return error("Mobile no. not found") };
        match code.check(call.text("otp"), now_ms) {
            Verdict::Right => success("OTP verified success"),
            Verdict::Wrong(_) => error("OTP not match"),
            Verdict::Used => error("Mobile no. already verified"),
            Verdict::Expired => error("OTP expired"),
            Verdict::Exhausted => error("Max limit reached for this otp verification"),
        }
    }

    fn retry(&mut self, key: &(String, String), now_ms: u64) -> Reply {
        match self.codes.get(key) {
            Some(code) if code.used => error("No OTP request found to retryotp"),
            Some(code) if now_ms >= code.expires_ms => error("OTP expired"),
            Some(code) => success("retry send successfully").delivering(key.1.as_str(), code.text.as_str()),
            None => error("No OTP request found to retryotp"),
        }
    }
}

fn success(message: &str) -> Reply {
    Reply::ok(json!({"message": message, "type": "success"}).to_string())
}

fn error(message: &str) -> Reply {
    Reply::ok(json!({"message": message, "type": "error"}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("authkey", "k")];
    const FORM: [(&str, &str); 2] = [("content-type", "application/x-www-form-urlencoded"), ("authkey", "k")];

    fn send(vendor: &mut Msg91, more: &str) -> Reply {
        let body = format!(r#"{{"mobile":"919876543210","template_id":"0123456789abcdef01234567"{more}}}"#);
        ask(vendor, "/api/v5/otp", &JSON, &body, 0)
    }

    fn verify(vendor: &mut Msg91, otp: &str, now_ms: u64) -> String {
        ask(vendor, "/api/v5/otp/verify", &FORM, &format!("mobile=919876543210&otp={otp}"), now_ms).body
    }

    #[test]
    fn wrong_then_right_then_used() {
        let mut vendor = Msg91::default();
        assert!(verify(&mut vendor, "1234", 0).contains("Mobile no. not found"));
        let sent = send(&mut vendor, r#","otp_length":6,"name":"Asha""#);
        assert_eq!((sent.status, &sent.complaint), (200, &None));
        let code = sent.message.unwrap().1;
        assert_eq!(code.len(), 6);
        assert!(verify(&mut vendor, &other_than(&code), 1).contains("OTP not match"));
        assert!(verify(&mut vendor, &code, 1).contains("OTP verified success"));
        assert!(verify(&mut vendor, &code, 1).contains("already verified"));
    }

    #[test]
    fn expired_exhausted_and_sent_again() {
        let mut vendor = Msg91::default();
        let code = send(&mut vendor, r#","otp_expiry":1"#).message.unwrap().1;
        assert!(verify(&mut vendor, &code, 60_000).contains("OTP expired"));
        let again = ask(&mut vendor, "/api/v5/otp/retry", &FORM, "mobile=919876543210&retrytype=voice", 1);
        assert_eq!(again.message.unwrap().1, code);
        for _ in 0..TRIES {
            assert!(verify(&mut vendor, &other_than(&code), 1).contains("OTP not match"));
        }
        assert!(verify(&mut vendor, &code, 1).contains("Max limit reached"));
    }

    #[test]
    fn refuses_what_the_page_does_not_allow() {
        let mut vendor = Msg91::default();
        let json = r#"{"mobile":"919876543210","otp":"1234"}"#;
        let reply = ask(&mut vendor, "/api/v5/otp/verify", &JSON, json, 0);
        assert!(reply.body.contains("Invalid authkey") && reply.complaint.is_some());
        for more in [r#","otp":"1234""#, r#","otp_length":"6""#, r#","invisible":1"#, r#","a":{}"#] {
            assert!(send(&mut vendor, more).complaint.is_some(), "{more}");
        }
        assert!(ask(&mut vendor, "/api/v5/otp", &JSON[..1], "{}", 0).body.contains("Auth Key missing"));
    }
}
