//! Twilio Verify v2: forms in, JSON out, Basic credentials, and a service's id in every path. A send while one is pending
//! repeats its code under the same sid; what has ended, in whichever way, is not found any more.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Value, json};

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, basic_credentials, is_refused};
use crate::strict::{self, Field, any_text, ip_address, is_digits, one_of, optional, required, text};

const LIFETIME_MS: u64 = 10 * 60 * 1000;
const CHECKS: u32 = 5;
const SENDS: usize = 5;
const CODE_LENGTH: usize = 6;

const SEND: [Field; 15] = [
    required("To", to),
    required("Channel", |value| one_of(value, &["sms", "whatsapp", "call", "email", "auto"], "a channel")),
    optional("Locale", text),
    optional("TemplateSid", |value| sid(value, "HJ")),
    optional("TemplateCustomSubstitutions", object_text),
    optional("CustomFriendlyName", text),
    optional("SendDigits", text),
    optional("AppHash", text),
    optional("DeviceIp", ip_address),
    optional("RateLimits", object_text),
    optional("ChannelConfiguration", object_text),
    optional("RiskCheck", |value| one_of(value, &["enable", "disable"], "enable or disable")),
    optional("Tags", object_text),
    optional("Amount", text),
    optional("Payee", text),
];
const CHECK: [Field; 5] = [
    required("Code", |value| {
        let is_code = value.as_str().is_some_and(|text| (4..=10).contains(&text.len()));
        is_code.then_some(()).ok_or("4 to 10 characters")
    }),
    optional("VerificationSid", |value| sid(value, "VE")),
    optional("To", to),
    optional("Amount", any_text),
    optional("Payee", any_text),
];
const CANCEL: [Field; 1] = [required("Status", |value| one_of(value, &["canceled"], "canceled"))];

fn is_sid(text: &str, kind: &str) -> bool {
    text.strip_prefix(kind).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn sid(value: &Value, kind: &'static str) -> Result<(), &'static str> {
    value.as_str().is_some_and(|text| is_sid(text, kind)).then_some(()).ok_or("a sid of its kind")
}

fn to(value: &Value) -> Result<(), &'static str> {
    let text = value.as_str().unwrap_or_default();
    let is_number = text.strip_prefix('+').is_some_and(|digits| is_digits(digits, 8, 15));
    (is_number || text.contains('@')).then_some(()).ok_or("a number in E.164, or an e-mail address")
}

fn object_text(value: &Value) -> Result<(), &'static str> {
    let object = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    object.is_some_and(|object| object.is_object()).then_some(()).ok_or("a JSON object, as text")
}

struct Flow {
    service: String,
    to: String,
    channel: String,
    code: Code,
    sends: usize,
    amount: String,
    payee: String,
}

#[derive(Default)]
pub struct Twilio {
    /// By sid; those that are pending alone.
    flows: HashMap<String, Flow>,
}

/// The service, and what is behind it in the path.
fn parts(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/v2/Services/")?.split_once('/')
}

impl Dialect for Twilio {
    fn operation(&self, path: &str) -> Operation {
        match parts(path).map(|(_, rest)| rest) {
            Some("Verifications") => Operation::Send,
            Some("VerificationCheck") => Operation::Verify,
            Some(rest) if rest.starts_with("Verifications/") => Operation::Cancel,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let in_path = parts(call.path).and_then(|(_, rest)| rest.strip_prefix("Verifications/")).map(Cow::Borrowed);
        let reference = call.text_if_any("VerificationSid").or(in_path);
        let flow = reference.as_deref().and_then(|sid| self.flows.get(sid));
        let recipient = call.text_if_any("To").or_else(|| flow.map(|flow| Cow::Borrowed(flow.to.as_str())));
        About { key: reference.clone().or_else(|| recipient.clone()), recipient, reference }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let Some((service, rest)) = parts(call.path) else { return not_found(call).complaining("no such path") };
        let authorization = call.http.header("authorization").unwrap_or_default();
        match basic_credentials(authorization) {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                if is_refused(&user) || is_refused(&password) {
                    return failure(401, 20003, "Authenticate");
                }
            }
            _ => return failure(401, 20003, "Authenticate").complaining("no Basic credentials"),
        }
        if !is_sid(service, "VA") {
            return not_found(call).complaining("the service in the path is no VA sid");
        }
        if service.ends_with(&"0".repeat(32)) {
            return not_found(call);
        }
        let fields: &[Field] = match call.operation {
            Operation::Send => &SEND,
            Operation::Verify => &CHECK,
            _ => &CANCEL,
        };
        let complaint = strict::form_envelope(call)
            .or_else(|| strict::no_query(call))
            .or_else(|| strict::fields(&call.json, fields).map(|wrong| wrong.text));
        if let Some(complaint) = complaint {
            return invalid(complaint);
        }
        self.flows.retain(|_, flow| now_ms < flow.code.expires_ms);
        match call.operation {
            Operation::Send => self.send(call, service, now_ms, dice),
            Operation::Verify => self.check(call, service, now_ms),
            _ => self.cancel(call, service, rest),
        }
    }
}

impl Twilio {
    fn send(&mut self, call: &Call<'_>, service: &str, now_ms: u64, dice: &mut Dice) -> Reply {
        let (to, channel) = (call.text("To"), call.text("Channel"));
        if to.contains('@') != (channel == "email") {
            return invalid(format!("Invalid parameter `To`: not for channel {channel}"));
        }
        if call.text("Amount").is_empty() != call.text("Payee").is_empty() {
            return failure(400, 60206, "Amount and Payee go together")
                .complaining("Amount without Payee, or Payee without");
        }
        let pending = self.flows.iter().find(|(_, flow)| flow.service == service && flow.to == to);
        let sid = match pending {
            Some((sid, _)) => sid.clone(),
            None => {
                let sid = format!("VE{}", dice.hex(32));
                let code = Code {
                    text: dice.digits(CODE_LENGTH),
                    expires_ms: now_ms + LIFETIME_MS,
                    tries_left: CHECKS,
                    used: false,
                };
                let (amount, payee) = (call.text("Amount").to_owned(), call.text("Payee").to_owned());
                let channel = channel.to_owned();
                let flow = Flow { service: service.into(), to: to.into(), channel, code, sends: 0, amount, payee };
                self.flows.insert(sid.clone(), flow);
                sid
            }
        };
        let Some(flow) = self.flows.get_mut(&sid) else { return not_found(call) };
        if flow.sends == SENDS {
            return failure(429, 60203, "Max send attempts reached");
        }
        flow.sends += 1;
        flow.channel = channel.to_owned();
        let code = flow.code.text.clone();
        Reply::status(201, flow.shown(&sid, "pending", false).to_string()).delivering(to, code)
    }

    fn check(&mut self, call: &Call<'_>, service: &str, now_ms: u64) -> Reply {
        let (sid, to) = (call.text("VerificationSid"), call.text("To"));
        if sid.is_empty() == to.is_empty() {
            return failure(400, 60200, "Either To or VerificationSid")
                .complaining("not exactly one of VerificationSid and To");
        }
        let found = self.flows.iter().find(|(id, flow)| flow.service == service && (*id == sid || flow.to == to));
        let Some(sid) = found.map(|(id, _)| id.clone()) else { return not_found(call) };
        let Some(flow) = self.flows.get_mut(&sid) else { return not_found(call) };
        if (call.text("Amount"), call.text("Payee")) != (flow.amount.as_str(), flow.payee.as_str()) {
            return failure(400, 60206, "Amount and Payee of the check are not those of the send")
                .complaining("Amount and Payee are not those of the send");
        }
        match flow.code.check(call.text("Code"), now_ms) {
            Verdict::Right => {
                let shown = flow.shown(&sid, "approved", true);
                self.flows.remove(&sid);
                Reply::ok(shown.to_string())
            }
            Verdict::Wrong(_) => Reply::ok(flow.shown(&sid, "pending", false).to_string()),
            Verdict::Exhausted => {
                self.flows.remove(&sid);
                failure(429, 60202, "Max check attempts reached")
            }
            Verdict::Used | Verdict::Expired => not_found(call),
        }
    }

    fn cancel(&mut self, call: &Call<'_>, service: &str, rest: &str) -> Reply {
        let sid = rest.trim_start_matches("Verifications/");
        match self.flows.remove(sid).filter(|flow| flow.service == service) {
            Some(flow) => Reply::ok(flow.shown(sid, "canceled", false).to_string()),
            None => not_found(call),
        }
    }
}

impl Flow {
    fn shown(&self, sid: &str, status: &str, valid: bool) -> Value {
        let attempt =
            json!({"time": "2026-04-01T00:00:00Z", "channel": self.channel, "attempt_sid": format!("VL{}", &sid[2..])});
        json!({
            "sid": sid, "service_sid": self.service, "account_sid": "AC00000000000000000000000000000001",
            "to": self.to, "channel": self.channel, "status": status, "valid": valid,
            "lookup": {"carrier": {"name": "Carrier", "number": self.to}}, "amount": self.amount, "payee": self.payee,
            "send_code_attempts": vec![attempt; self.sends], "date_created": "2026-04-01T00:00:00Z",
            "url": format!("https://verify.twilio.com/v2/Services/{}/Verifications/{sid}", self.service),
        })
    }
}

fn failure(status: u16, code: u32, message: &str) -> Reply {
    let more = format!("https://www.twilio.com/docs/errors/{code}");
    Reply::status(status, json!({"code": code, "message": message, "more_info": more, "status": status}).to_string())
}

fn invalid(complaint: String) -> Reply {
    failure(400, 60200, &format!("Invalid parameter: {complaint}")).complaining(complaint)
}

fn not_found(call: &Call<'_>) -> Reply {
    failure(404, 20404, &format!("The requested resource {} was not found", call.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const HEADERS: [(&str, &str); 2] =
        [("content-type", "application/x-www-form-urlencoded"), ("authorization", "Basic U0sxOnNlY3JldA==")];

    fn post(vendor: &mut Twilio, rest: &str, body: &str, now_ms: u64) -> Reply {
        let path = format!("/v2/Services/VA{}/{rest}", "a".repeat(32));
        ask(vendor, &path, &HEADERS, body, now_ms)
    }

    fn sent(vendor: &mut Twilio, body: &str, now_ms: u64) -> (String, String) {
        let reply = post(vendor, "Verifications", body, now_ms);
        assert_eq!((reply.status, reply.complaint), (201, None), "{}", reply.body);
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        (answer["sid"].as_str().unwrap().to_owned(), reply.message.unwrap().1)
    }

    fn check(vendor: &mut Twilio, sid: &str, code: &str, now_ms: u64) -> (u16, String) {
        let reply = post(vendor, "VerificationCheck", &format!("VerificationSid={sid}&Code={code}"), now_ms);
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        let said = answer["status"].as_str().map_or_else(|| answer["code"].to_string(), str::to_owned);
        (reply.status, said)
    }

    const TO: &str = "To=%2B94771234567&Channel=sms";

    #[test]
    fn wrong_then_right_then_gone() {
        let mut vendor = Twilio::default();
        let (sid, code) = sent(&mut vendor, TO, 0);
        assert_eq!(check(&mut vendor, &sid, &other_than(&code), 1), (200, "pending".into()));
        assert_eq!(check(&mut vendor, &sid, &code, 1), (200, "approved".into()));
        assert_eq!(check(&mut vendor, &sid, &code, 1), (404, "20404".into()));
    }

    #[test]
    fn a_send_repeats_what_is_pending_five_times() {
        let mut vendor = Twilio::default();
        let first = sent(&mut vendor, TO, 0);
        for _ in 1..SENDS {
            assert_eq!(sent(&mut vendor, "To=%2B94771234567&Channel=call", 1), first);
        }
        let reply = post(&mut vendor, "Verifications", TO, 1);
        assert_eq!((reply.status, reply.body.contains("60203")), (429, true));
        assert_ne!(sent(&mut vendor, TO, LIFETIME_MS), first);
    }

    #[test]
    fn expired_exhausted_and_canceled_are_not_found() {
        let mut vendor = Twilio::default();
        let (sid, code) = sent(&mut vendor, TO, 0);
        assert_eq!(check(&mut vendor, &sid, &code, LIFETIME_MS), (404, "20404".into()));
        let (sid, code) = sent(&mut vendor, TO, 0);
        for _ in 0..CHECKS {
            assert_eq!(check(&mut vendor, &sid, &other_than(&code), 1), (200, "pending".into()));
        }
        assert_eq!(check(&mut vendor, &sid, &code, 1), (429, "60202".into()));
        assert_eq!(check(&mut vendor, &sid, &code, 1), (404, "20404".into()));
        let (sid, code) = sent(&mut vendor, TO, 0);
        let canceled = post(&mut vendor, &format!("Verifications/{sid}"), "Status=canceled", 1);
        assert!(canceled.status == 200 && canceled.body.contains("\"canceled\""));
        assert_eq!(check(&mut vendor, &sid, &code, 1), (404, "20404".into()));
    }

    #[test]
    fn refuses_what_the_page_does_not_allow() {
        let mut vendor = Twilio::default();
        for (body, complaint) in [
            ("To=0771234567&Channel=sms", "To must be"),
            ("To=%2B94771234567", "Channel is missing"),
            ("To=%2B94771234567&Channel=sms&To=x", "a field twice"),
            ("To=%2B94771234567&Channel=sms&Tags=x", "Tags must be"),
            ("To=%2B94771234567&Channel=sms&CustomCode=123456", "CustomCode is not a field"),
            ("To=%2B94771234567&Channel=email", "not for channel email"),
        ] {
            let reply = post(&mut vendor, "Verifications", body, 0);
            assert!(
                reply.complaint.as_deref().is_some_and(|said| said.contains(complaint)),
                "{body} {:?}",
                reply.complaint
            );
        }
        let both = post(
            &mut vendor,
            "VerificationCheck",
            &format!("VerificationSid=VE{}&To=%2B9477123456&Code=1234", "b".repeat(32)),
            0,
        );
        assert!(both.complaint.is_some());
    }
}
