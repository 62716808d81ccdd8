//! Ideamart, of Dialog Axiata: credentials in the body, failures in HTTP 200, and a verified code that subscribes a
//! number.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, is_refused};
use crate::strict::{self, Field, any_text, is_digits, object, optional, required, text};

const LIFETIME_MS: u64 = 60 * 60 * 1000;
const TRIES: u32 = 3;

const REQUEST: [Field; 5] = [
    required("applicationId", text),
    required("password", text),
    required("subscriberId", subscriber),
    required("applicationHash", text),
    optional("applicationMetaData", object),
];
const METADATA: [Field; 4] = [
    optional("client", any_text),
    optional("device", any_text),
    optional("os", any_text),
    optional("appCode", any_text),
];
const VERIFY: [Field; 4] =
    [required("applicationId", text), required("password", text), required("referenceNo", text), required("otp", text)];

fn subscriber(value: &Value) -> Result<(), &'static str> {
    value
        .as_str()
        .and_then(|text| text.strip_prefix("tel:94"))
        .is_some_and(|rest| is_digits(rest, 9, 9) && rest.starts_with('7'))
        .then_some(())
        .ok_or("tel:947 and eight digits")
}

struct Flow {
    subscriber: String,
    code: Code,
}

#[derive(Default)]
pub struct Ideamart {
    flows: HashMap<String, Flow>,
    /// Numbers that were verified and stay registered. Only those that end in 0000, so that tests can use any other
    /// number again and again.
    registered: HashSet<String>,
}

impl Dialect for Ideamart {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/subscription/otp/request" => Operation::Send,
            "/subscription/otp/verify" => Operation::Verify,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let reference = call.text_if_any("referenceNo");
        let flow = reference.as_deref().and_then(|reference| self.flows.get(reference));
        About {
            recipient: call
                .text_if_any("subscriberId")
                .or_else(|| flow.map(|flow| Cow::Borrowed(flow.subscriber.as_str()))),
            key: call.text_if_any("applicationHash").or_else(|| reference.clone()),
            reference,
        }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let allowed: &[Field] = match call.operation {
            Operation::Send => &REQUEST,
            Operation::Verify => &VERIFY,
            _ => return Reply::status(404, "").complaining("no such path"),
        };
        if let Some(complaint) = strict::envelope(call).or_else(|| strict::no_query(call)) {
            return invalid("E1312", complaint);
        }
        if let Some(wrong) = strict::fields(&call.json, allowed) {
            let code = match wrong.field.as_str() {
                "subscriberId" => "E1325",
                _ => "E1312",
            };
            return invalid(code, wrong.text);
        }
        if let Some(metadata) = call.json.get("applicationMetaData")
            && let Some(wrong) = strict::fields(metadata, &METADATA)
        {
            return invalid("E1312", format!("applicationMetaData: {}", wrong.text));
        }
        if is_refused(call.text("applicationId")) || is_refused(call.text("password")) {
            return failure("E1313", "Authentication failed");
        }
        match call.operation {
            Operation::Send => self.request(call, now_ms, dice),
            _ => self.verify(call, now_ms),
        }
    }
}

impl Ideamart {
    fn request(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let subscriber = call.text("subscriberId");
        if self.registered.contains(subscriber) {
            return failure("E1351", "user already registered");
        }
        let reference = dice.hex(39);
        let code = dice.digits(6);
        let body =
            format!(r#"{{"statusCode":"S1000","statusDetail":"Success","referenceNo":"{reference}","version":"1.0"}}"#);
        self.flows.insert(
            reference,
            Flow {
                subscriber: subscriber.to_owned(),
                code: Code { text: code.clone(), expires_ms: now_ms + LIFETIME_MS, tries_left: TRIES, used: false },
            },
        );
        Reply::ok(body).delivering(subscriber, code)
    }

    fn verify(&mut self, call: &Call<'_>, now_ms: u64) -> Reply {
        let Some(flow) = self.flows.get_mut(call.text("referenceNo")) else {
            return failure("E1854", "Invalid referenceNo");
        };
        match flow.code.check(call.text("otp"), now_ms) {
            Verdict::Right => {
                if flow.subscriber.ends_with("0000") {
                    self.registered.insert(flow.subscriber.clone());
                }
                // The masked number is made of the reference, so that it is opaque and yet no extra state.
                Reply::ok(format!(
                    r#"{{"statusCode":"S1000","statusDetail":"Success","subscriptionStatus":"REGISTERED","version":"1.0","subscriberId":"tel:hu{}"}}"#,
                    call.text("referenceNo")
                ))
            }
            Verdict::Wrong(_) => failure("E1850", "Invalid OTP"),
            Verdict::Used => failure("E1351", "user already registered"),
            Verdict::Expired => failure("E1851", "OTP request has being expired"),
            Verdict::Exhausted => failure("E1852", "Maximum number of OTP attempts had reached"),
        }
    }
}

fn failure(code: &str, detail: &str) -> Reply {
    Reply::ok(format!(r#"{{"statusDetail":{},"version":"1.0","statusCode":"{code}"}}"#, crate::dialect::quoted(detail)))
}

fn invalid(code: &str, complaint: String) -> Reply {
    failure(code, &format!("Request is invalid: {complaint}")).complaining(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

    fn request(vendor: &mut Ideamart, number: &str, now_ms: u64) -> Reply {
        let body = format!(
            r#"{{"applicationId":"APP_1","password":"p","subscriberId":"tel:{number}","applicationHash":"h",
                "applicationMetaData":{{"client":"WebSite"}}}}"#
        );
        ask(vendor, "/subscription/otp/request", &JSON, &body, now_ms)
    }

    fn verify(vendor: &mut Ideamart, reference: &str, otp: &str, now_ms: u64) -> String {
        let body = format!(r#"{{"applicationId":"APP_1","password":"p","referenceNo":"{reference}","otp":"{otp}"}}"#);
        let reply = ask(vendor, "/subscription/otp/verify", &JSON, &body, now_ms);
        assert_eq!((reply.status, reply.complaint), (200, None));
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        answer["statusCode"].as_str().unwrap().to_owned()
    }

    fn sent(vendor: &mut Ideamart, number: &str) -> (String, String) {
        let reply = request(vendor, number, 0);
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        (answer["referenceNo"].as_str().unwrap().to_owned(), reply.message.unwrap().1)
    }

    #[test]
    fn wrong_then_right_then_used() {
        let mut vendor = Ideamart::default();
        let (reference, code) = sent(&mut vendor, "94771234567");
        let wrong = other_than(&code);
        assert_eq!(verify(&mut vendor, &reference, &wrong, 1), "E1850");
        assert_eq!(verify(&mut vendor, &reference, &code, 1), "S1000");
        assert_eq!(verify(&mut vendor, &reference, &code, 1), "E1351");
        assert_eq!(verify(&mut vendor, "0", &code, 1), "E1854");
        assert!(request(&mut vendor, "94771234567", 2).message.is_some());
    }

    #[test]
    fn expired_and_exhausted() {
        let mut vendor = Ideamart::default();
        let (reference, code) = sent(&mut vendor, "94771234567");
        assert_eq!(verify(&mut vendor, &reference, &code, LIFETIME_MS), "E1851");
        for _ in 0..3 {
            let wrong = other_than(&code);
            assert_eq!(verify(&mut vendor, &reference, &wrong, 1), "E1850");
        }
        assert_eq!(verify(&mut vendor, &reference, &code, 1), "E1852");
    }

    #[test]
    fn numbers_that_end_in_0000_stay_registered() {
        let mut vendor = Ideamart::default();
        let (reference, code) = sent(&mut vendor, "94771230000");
        assert_eq!(verify(&mut vendor, &reference, &code, 1), "S1000");
        let again = request(&mut vendor, "94771230000", 2);
        assert!(again.body.contains("E1351") && again.message.is_none());
    }

    #[test]
    fn refuses_what_the_page_does_not_allow() {
        let mut vendor = Ideamart::default();
        let all = request(&mut vendor, "all", 0);
        assert!(all.body.contains("E1325"), "{}", all.body);
        assert_eq!(all.complaint.unwrap(), "subscriberId must be tel:947 and eight digits");
        let body = r#"{"applicationId":"a","password":"wrong","referenceNo":"r","otp":"1"}"#;
        let refused = ask(&mut vendor, "/subscription/otp/verify", &JSON, body, 0);
        assert!(refused.body.contains("E1313") && refused.complaint.is_none());
    }
}
