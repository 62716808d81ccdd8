//! Paytm (AI router): everything hangs on the merchant's session token; there is no reference.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, basic_credentials, is_refused, quoted};
use crate::http::query_pairs;
use crate::strict::{self, Field, Wrong, any_text, boolean, indian_mobile, object, one_of, optional, required, text};

/// The page says that a code is good for one session, and not for how long: these are the simulator's own.
const LIFETIME_MS: u64 = 10 * 60 * 1000;
const TRIES: u32 = 5;

const MESSAGE: [Field; 2] = [required("head", object), required("body", object)];
const SEND_HEAD: [Field; 3] =
    [optional("requestTimeStamp", text), required("tokenType", text), required("token", text)];
const SEND_BODY: [Field; 2] = [required("mobileNumber", indian_mobile), optional("autoReadHash", any_text)];
const VERIFY_HEAD: [Field; 5] = [
    optional("version", text),
    optional("requestTimeStamp", text),
    required("tokenType", text),
    required("token", text),
    optional("channelId", |value| one_of(value, &["WEB", "WAP", "APP", "SYSTEM"], "one of WEB, WAP, APP, SYSTEM")),
];
const VERIFY_BODY: [Field; 2] = [required("otp", text), optional("rememberMe", boolean)];

struct Journey {
    mobile: String,
    code: Code,
}

#[derive(Default)]
pub struct Paytm {
    /// By merchant, order and token.
    journeys: HashMap<String, Journey>,
}

impl Dialect for Paytm {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/aoa-pay-option-service/v2/otp/generate" => Operation::Send,
            "/aoa-pay-option-service/v2/otp/verify" => Operation::Verify,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let order = call.http.query_value("orderId");
        let in_body = call.json["body"]["mobileNumber"].as_str().map(Cow::Borrowed);
        About {
            recipient: in_body.or_else(|| {
                let journey = self.journeys.get(&journey_key(call))?;
                Some(Cow::Borrowed(journey.mobile.as_str()))
            }),
            reference: order.clone(),
            key: order,
        }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let (head, body): (&[Field], &[Field]) = match call.operation {
            Operation::Send => (&SEND_HEAD, &SEND_BODY),
            Operation::Verify => (&VERIFY_HEAD, &VERIFY_BODY),
            _ => return Reply::status(404, "").complaining("no such path"),
        };
        if let Some(authorization) = call.http.header("authorization") {
            match basic_credentials(authorization) {
                None => {
                    return failure(now_ms, "401", "Authorization Failed")
                        .complaining("an authorization header that is not Basic");
                }
                Some((user, password)) if is_refused(&user) || is_refused(&password) => {
                    return failure(now_ms, "401", "Authorization Failed");
                }
                Some((user, password)) if user.is_empty() || password.is_empty() => {
                    return failure(now_ms, "401", "Authorization Failed")
                        .complaining("an empty user name or password");
                }
                Some(_) => {}
            }
        }
        let invalid = |code: &str, complaint: String| failure(now_ms, code, &complaint).complaining(complaint);
        if let Some(complaint) = query_complaint(call) {
            return invalid("1012", complaint);
        }
        if !call.http.header("accept").is_some_and(|accept| accept.contains("application/json")) {
            return invalid("434", "no header accept: application/json".into());
        }
        if let Some(complaint) = strict::envelope(call) {
            return invalid("2222", complaint);
        }
        let within = |part: &'static str, fields: &[Field]| {
            strict::fields(&call.json[part], fields)
                .map(|wrong| Wrong { text: format!("{part}: {}", wrong.text), ..wrong })
        };
        let wrong =
            strict::fields(&call.json, &MESSAGE).or_else(|| within("head", head)).or_else(|| within("body", body));
        if let Some(wrong) = wrong {
            return invalid(if wrong.missing { "1007" } else { "1001" }, wrong.text);
        }
        if call.json["head"]["token"].as_str().is_some_and(is_refused) {
            return failure(now_ms, "401", "Authorization Failed");
        }
        match call.operation {
            Operation::Send => self.generate(call, now_ms, dice),
            _ => self.verify(call, now_ms),
        }
    }
}

impl Paytm {
    fn generate(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let mobile = call.json["body"]["mobileNumber"].as_str().unwrap_or("");
        let text = dice.digits(6);
        let code = Code { text: text.clone(), expires_ms: now_ms + LIFETIME_MS, tries_left: TRIES, used: false };
        let journey = Journey { mobile: mobile.to_owned(), code };
        self.journeys.insert(journey_key(call), journey);
        Reply::ok(format!(
            r#"{{"head":{{"responseTimestamp":"{now_ms}"}},"body":{{"resultInfo":{{"resultStatus":"S","resultCode":"0000","resultMsg":"Success"}}}}}}"#
        ))
        .delivering(mobile, text)
    }

    fn verify(&mut self, call: &Call<'_>, now_ms: u64) -> Reply {
        let typed = call.json["body"]["otp"].as_str().unwrap_or("");
        let verdict = self.journeys.get_mut(&journey_key(call)).map(|journey| journey.code.check(typed, now_ms));
        match verdict {
            Some(Verdict::Right) => Reply::ok(format!(
                r#"{{"head":{{"responseTimestamp":"{now_ms}"}},"body":{{"resultInfo":{{"resultStatus":"S","resultCode":"0000","resultMsg":"Success"}},"authenticated":true,"payOptionsInfo":{PAY_OPTIONS}}}}}"#
            )),
            Some(Verdict::Wrong(_)) => failure(now_ms, "403", "Invalid OTP entered"),
            Some(Verdict::Used) => failure(now_ms, "442", "Invalid OTP, already used OTP entered."),
            Some(Verdict::Exhausted) => {
                failure(now_ms, "531", "Oops ! You have reached OTP limit, please raise a query at paytm.com/care.")
            }
            Some(Verdict::Expired) | None => failure(now_ms, "1006", "Your Session has expired"),
        }
    }
}

/// A map of any shape and size: nested, with every type of JSON in it, and with text beyond ASCII.
const PAY_OPTIONS: &str = r#"{"paymentModes":[{"name":"BALANCE","displayName":"Paytm Wallet","balance":{"value":"1024.50","currency":"INR"},"isActive":true,"channels":[{"code":"WALLET","priority":1}]},{"name":"UPI","displayName":"यूपीआई","vpas":["user@paytm"],"isActive":true,"limits":{"perTransaction":100000,"perDay":null}},{"name":"CREDIT_CARD","savedCards":[],"isActive":false}],"merchantOffers":{"cashback":{"percent":2.5,"upTo":150}},"loginMode":"OTP"}"#;

fn journey_key(call: &Call<'_>) -> String {
    let mid = call.http.query_value("mid").unwrap_or_default();
    let order = call.http.query_value("orderId").unwrap_or_default();
    let token = call.json["head"]["token"].as_str().unwrap_or("");
    format!("{mid}\0{order}\0{token}")
}

fn query_complaint(call: &Call<'_>) -> Option<String> {
    let (mut mid, mut order) = (false, false);
    for (name, value) in query_pairs(call.http.query) {
        let seen = match &*name {
            "mid" => &mut mid,
            "orderId" => &mut order,
            _ => return Some(format!("{name} is not a query parameter of this call")),
        };
        if *seen {
            return Some(format!("query parameter {name} twice"));
        }
        *seen = !value.is_empty();
    }
    match (mid, order) {
        (false, _) => Some("query parameter mid missing".into()),
        (_, false) => Some("query parameter orderId missing".into()),
        _ => None,
    }
}

fn failure(now_ms: u64, code: &str, message: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"head":{{"responseTimestamp":"{now_ms}"}},"body":{{"resultInfo":{{"resultStatus":"F","resultCode":"{code}","resultMsg":{}}},"authenticated":false}}}}"#,
        quoted(message)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const HEADERS: [(&str, &str); 2] = [("content-type", "application/json"), ("accept", "application/json")];

    fn send(vendor: &mut Paytm) -> String {
        let target = "/aoa-pay-option-service/v2/otp/generate?mid=M%201&orderId=O1";
        let body = r#"{"head":{"tokenType":"TXN_TOKEN","token":"t"},"body":{"mobileNumber":"9876543210"}}"#;
        let reply = ask(vendor, target, &HEADERS, body, 0);
        assert_eq!(reply.complaint, None);
        reply.message.unwrap().1
    }

    fn verify(vendor: &mut Paytm, token: &str, otp: &str, now_ms: u64) -> String {
        let target = "/aoa-pay-option-service/v2/otp/verify?orderId=O1&mid=M+1";
        let body = format!(
            r#"{{"head":{{"version":"v1","tokenType":"TXN_TOKEN","token":"{token}"}},"body":{{"otp":"{otp}"}}}}"#
        );
        let reply = ask(vendor, target, &HEADERS, &body, now_ms);
        assert_eq!((reply.status, reply.complaint), (200, None));
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        let code = &answer["body"]["resultInfo"]["resultCode"];
        code.as_str().unwrap().to_owned()
    }

    #[test]
    fn wrong_then_right_then_used() {
        let mut vendor = Paytm::default();
        let code = send(&mut vendor);
        assert_eq!(verify(&mut vendor, "t", &other_than(&code), 1), "403");
        assert_eq!(verify(&mut vendor, "other", &code, 1), "1006");
        assert_eq!(verify(&mut vendor, "t", &code, 1), "0000");
        assert_eq!(verify(&mut vendor, "t", &code, 1), "442");
    }

    #[test]
    fn expired_and_exhausted() {
        let mut vendor = Paytm::default();
        let code = send(&mut vendor);
        assert_eq!(verify(&mut vendor, "t", &code, LIFETIME_MS), "1006");
        for _ in 0..TRIES {
            assert_eq!(verify(&mut vendor, "t", &other_than(&code), 1), "403");
        }
        assert_eq!(verify(&mut vendor, "t", &code, 1), "531");
    }

    #[test]
    fn pay_options_are_json() {
        assert!(serde_json::from_str::<Value>(PAY_OPTIONS).is_ok());
    }

    #[test]
    fn refusals() {
        let mut vendor = Paytm::default();
        let target = "/aoa-pay-option-service/v2/otp/verify?mid=M&orderId=O";
        let body = r#"{"head":{"tokenType":"TXN_TOKEN"},"body":{"otp":"1"}}"#;
        let reply = ask(&mut vendor, target, &HEADERS, body, 0);
        assert!(reply.body.contains(r#""resultCode":"1007""#));
        assert_eq!(reply.complaint.unwrap(), "head: token is missing");
        // user:wrong
        let headers = [HEADERS[0], HEADERS[1], ("authorization", "Basic dXNlcjp3cm9uZw==")];
        let reply = ask(&mut vendor, target, &headers, body, 0);
        assert!(reply.body.contains(r#""resultCode":"401""#) && reply.complaint.is_none());
    }
}
