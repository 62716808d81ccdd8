//! Vonage Verify v2: JSON in, Basic credentials, the flow's id in the path; a cancel is a DELETE, answered without a body.
//! What is wrong is said as application/problem+json, by the HTTP status first.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Value, json};

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, basic_credentials, is_refused};
use crate::strict::{self, Field, is_digits, one_of, optional, required, text};

const LIFETIME_SECONDS: u64 = 180;
const TRIES: u32 = 3;
const DEFAULT_LENGTH: u64 = 4;

const SEND: [Field; 8] = [
    required("brand", |value| limited(value, 16)),
    required("workflow", |value| {
        value.as_array().is_some_and(|steps| (1..=3).contains(&steps.len())).then_some(()).ok_or("1 to 3 steps")
    }),
    optional("locale", text),
    optional("channel_timeout", |value| whole(value, 15..=900)),
    optional("code_length", |value| whole(value, 4..=10)),
    optional("client_ref", |value| limited(value, 16)),
    optional("fraud_check", |value| value.is_boolean().then_some(()).ok_or("true or false")),
    optional("template_id", text),
];
const STEP: [Field; 6] = [
    required("channel", |value| one_of(value, &["sms", "whatsapp", "voice", "rcs"], "a channel")),
    required("to", |value| {
        value
            .as_str()
            .is_some_and(|to| is_digits(to, 8, 15) && !to.starts_with('0'))
            .then_some(())
            .ok_or("E.164 digits")
    }),
    optional("from", |value| limited(value, 15)),
    optional("entity_id", |value| limited(value, 20)),
    optional("content_id", |value| limited(value, 20)),
    optional("app_hash", |value| limited(value, 11)),
];
const CHECK: [Field; 1] = [required("code", |value| {
    value.as_str().is_some_and(|code| is_digits(code, 4, 10)).then_some(()).ok_or("a text of 4 to 10 digits")
})];

fn limited(value: &Value, most: usize) -> Result<(), &'static str> {
    value.as_str().is_some_and(|text| (1..=most).contains(&text.len())).then_some(()).ok_or("a text of its length")
}

fn whole(value: &Value, range: std::ops::RangeInclusive<u64>) -> Result<(), &'static str> {
    value.as_u64().is_some_and(|number| range.contains(&number)).then_some(()).ok_or("a number in its range")
}

struct Flow {
    to: String,
    code: Code,
}

#[derive(Default)]
pub struct Vonage {
    /// By request_id; those that are under way alone.
    flows: HashMap<String, Flow>,
}

fn id_of(path: &str) -> Option<&str> {
    path.strip_prefix("/v2/verify/").filter(|id| !id.is_empty() && !id.contains('/'))
}

fn step(call: &Call<'_>) -> Value {
    call.json.pointer("/workflow/0").cloned().unwrap_or_default()
}

impl Dialect for Vonage {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/v2/verify" => Operation::Send,
            _ if id_of(path).is_some() => Operation::Verify,
            _ => Operation::Unknown,
        }
    }

    fn operation_of(&self, method: &str, path: &str) -> Operation {
        match self.operation(path) {
            Operation::Verify if method == "DELETE" => Operation::Cancel,
            operation => operation,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let reference = id_of(call.path).map(Cow::Borrowed);
        let flow = reference.as_deref().and_then(|id| self.flows.get(id));
        let to = step(call).get("to").and_then(Value::as_str).map(|to| Cow::Owned(to.to_owned()));
        let recipient = to.or_else(|| flow.map(|flow| Cow::Borrowed(flow.to.as_str())));
        About { key: reference.clone().or_else(|| recipient.clone()), recipient, reference }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        match call.http.header("authorization").and_then(basic_credentials) {
            Some((key, secret)) if !key.is_empty() && !secret.is_empty() => {
                if is_refused(&key) || is_refused(&secret) {
                    return problem(401, "unauthorized", "Unauthorized");
                }
            }
            _ => return problem(401, "unauthorized", "Unauthorized").complaining("no Basic credentials"),
        }
        let complaint = strict::no_query(call).or_else(|| match call.operation {
            Operation::Send => strict::envelope(call)
                .or_else(|| strict::fields(&call.json, &SEND).map(|wrong| wrong.text))
                .or_else(|| strict::fields(&step(call), &STEP).map(|wrong| format!("workflow[0].{}", wrong.text))),
            Operation::Verify => {
                strict::envelope(call).or_else(|| strict::fields(&call.json, &CHECK).map(|wrong| wrong.text))
            }
            Operation::Cancel => (!call.http.body.is_empty() || call.http.header("content-type").is_some())
                .then(|| "a DELETE with a body, or with its type".to_owned()),
            _ => Some("no such path".into()),
        });
        if let Some(complaint) = complaint {
            return problem(422, "invalid-params", "Invalid params").complaining(complaint);
        }
        self.flows.retain(|_, flow| now_ms < flow.code.expires_ms);
        match (call.operation, id_of(call.path)) {
            (Operation::Verify, Some(id)) => self.check(id, call.text("code"), now_ms),
            (Operation::Cancel, Some(id)) => match self.flows.remove(id) {
                Some(_) => Reply::status(204, ""),
                None => problem(404, "not-found", "Not Found"),
            },
            _ => self.send(call, now_ms, dice),
        }
    }
}

impl Vonage {
    fn send(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let to = step(call)["to"].as_str().unwrap_or_default().to_owned();
        if self.flows.values().any(|flow| flow.to == to) {
            return problem(409, "concurrent", "Conflict");
        }
        let number = |name: &str, usual| call.json.get(name).and_then(Value::as_u64).unwrap_or(usual);
        let text = dice.digits(number("code_length", DEFAULT_LENGTH) as usize);
        let expires_ms = now_ms + number("channel_timeout", LIFETIME_SECONDS) * 1000;
        let id = dice.uuid();
        let reply = Reply::status(202, json!({ "request_id": id }).to_string()).delivering(to.as_str(), text.as_str());
        self.flows.insert(id, Flow { to, code: Code { text, expires_ms, tries_left: TRIES, used: false } });
        reply
    }

    fn check(&mut self, id: &str, typed: &str, now_ms: u64) -> Reply {
        let Some(flow) = self.flows.get_mut(id) else { return problem(404, "not-found", "Not Found") };
        match flow.code.check(typed, now_ms) {
            Verdict::Right => {
                self.flows.remove(id);
                Reply::ok(json!({"request_id": id, "status": "completed"}).to_string())
            }
            Verdict::Wrong(_) => problem(400, "invalid-code", "Invalid Code"),
            // Titled as a wrong code is.
            Verdict::Exhausted => {
                self.flows.remove(id);
                problem(410, "expired", "Invalid Code")
            }
            Verdict::Used | Verdict::Expired => problem(404, "not-found", "Not Found"),
        }
    }
}

fn problem(status: u16, fragment: &str, title: &str) -> Reply {
    let problem = json!({
        "type": format!("https://developer.vonage.com/api-errors/verify-v2#{fragment}"), "title": title,
        "detail": format!("{title}, says the simulator"), "instance": "bf0ca0bf927b3b52e3cb03217e1a1ddf",
    });
    Reply::status(status, problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask_by, other_than};

    // api_key:api_secret
    const HEADERS: [(&str, &str); 2] =
        [("content-type", "application/json"), ("authorization", "Basic YXBpX2tleTphcGlfc2VjcmV0")];

    fn send(vendor: &mut Vonage, more: &str) -> Reply {
        let body = format!(r#"{{"brand":"B","workflow":[{{"channel":"sms","to":"94771234567"}}]{more}}}"#);
        ask_by("POST", vendor, "/v2/verify", &HEADERS, &body, 0)
    }

    fn check(vendor: &mut Vonage, id: &str, code: &str, now_ms: u64) -> u16 {
        let body = format!(r#"{{"code":"{code}"}}"#);
        ask_by("POST", vendor, &format!("/v2/verify/{id}"), &HEADERS, &body, now_ms).status
    }

    fn id(reply: &Reply) -> String {
        serde_json::from_str::<Value>(&reply.body).unwrap()["request_id"].as_str().unwrap().to_owned()
    }

    #[test]
    fn wrong_then_right_then_gone() {
        let mut vendor = Vonage::default();
        let sent = send(&mut vendor, r#","code_length":6"#);
        assert_eq!((sent.status, &sent.complaint), (202, &None));
        assert_eq!(send(&mut vendor, "").status, 409);
        let (id, code) = (id(&sent), sent.message.unwrap().1);
        assert_eq!(code.len(), 6);
        assert_eq!(check(&mut vendor, &id, &other_than(&code), 1), 400);
        assert_eq!(check(&mut vendor, &id, &code, 1), 200);
        assert_eq!(check(&mut vendor, &id, &code, 1), 404);
    }

    #[test]
    fn exhausted_expired_and_canceled() {
        let mut vendor = Vonage::default();
        let sent = send(&mut vendor, "");
        let (spent, code) = (id(&sent), sent.message.unwrap().1);
        for status in [400, 400, 400, 410, 404] {
            assert_eq!(check(&mut vendor, &spent, &other_than(&code), 1), status);
        }
        let sent = send(&mut vendor, r#","channel_timeout":15"#);
        assert_eq!(check(&mut vendor, &id(&sent), &sent.message.unwrap().1, 15_000), 404);
        let sent = send(&mut vendor, "");
        let path = format!("/v2/verify/{}", id(&sent));
        for status in [204, 404] {
            let canceled = ask_by("DELETE", &mut vendor, &path, &HEADERS[1..], "", 1);
            assert_eq!((canceled.status, canceled.complaint), (status, None));
        }
    }

    #[test]
    fn refuses_what_the_page_does_not_allow() {
        let mut vendor = Vonage::default();
        for more in [r#","code":"1234""#, r#","code_length":"6""#, r#","channel_timeout":10"#] {
            assert!(send(&mut vendor, more).complaint.is_some(), "{more}");
        }
        let plus = r#"{"brand":"B","workflow":[{"channel":"sms","to":"+94771234567"}]}"#;
        assert!(ask_by("POST", &mut vendor, "/v2/verify", &HEADERS, plus, 0).complaint.is_some());
        assert_eq!(ask_by("POST", &mut vendor, "/v2/verify", &HEADERS[..1], plus, 0).status, 401);
        assert!(ask_by("DELETE", &mut vendor, "/v2/verify/x", &HEADERS, "{}", 0).complaint.is_some());
        assert!(ask_by("POST", &mut vendor, "/v2/verify/x/next_workflow", &HEADERS, "{}", 0).complaint.is_some());
    }
}
