//! Uniken REL-ID Verify: notifications with a UUID, codes of a given make, Basic or Bearer.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, basic_credentials, is_refused, quoted};
use crate::http::query_pairs;
use crate::strict::{self, Field, any_text, array, boolean, object, one_of, optional, required, text};

const DEFAULT_TRIES: u32 = 3;
const DEFAULT_LENGTH: usize = 6;
const TOKEN_LIFETIME_S: u64 = 300;
/// Tokens of this make were issued here, and live as long as they were said to. Any other token is a configured one.
const TOKEN_PREFIX: &str = "simulated-";

const GENERATE: [Field; 11] = [
    required("msg_id", text),
    required("enterprise_id", text),
    required("user_id", text),
    optional("user_type", |value| one_of(value, &["userId", "mobile", "loginId"], "one of userId, mobile, loginId")),
    required("msg_type", |value| one_of(value, &["OTP"], "\"OTP\"")),
    required("expires_in", |value| {
        value.as_u64().is_some_and(|seconds| seconds >= 15).then_some(()).ok_or("a number of seconds, 15 or more")
    }),
    required("msg", array),
    required("notification_msg", object),
    optional("actions", array),
    optional("ds_required", boolean),
    optional("controls", object),
];
const MSG: [Field; 4] = [
    required("lng", text),
    required("subject", any_text),
    required("message", text),
    required("label", |value| (value.is_string() || value.is_object()).then_some(()).ok_or("a string or an object")),
];
const NOTIFICATION_MSG: [Field; 2] = [optional("message", any_text), optional("subject", any_text)];
const ACTION: [Field; 3] = [
    required("label", text),
    required("action", text),
    optional("authlevel", |value| (value.is_string() || value.is_u64()).then_some(()).ok_or("a string or a number")),
];
const CONTROLS: [Field; 1] = [optional("otp", object)];
const CONTROLS_OTP: [Field; 3] = [
    optional("attempts", |value| {
        value.as_u64().is_some_and(|attempts| (1..=100).contains(&attempts)).then_some(()).ok_or("a number, 1 or more")
    }),
    optional("hash_spec", any_text),
    optional("otp_spec", |value| {
        value.as_str().and_then(otp_spec).map(|_| ()).ok_or("N, L or LN, a hyphen, and a length from 4 to 9")
    }),
];
const VALIDATE: [Field; 2] = [required("notification_uuid", any_text), required("otp_value", any_text)];
const CANCEL: [Field; 1] = [required("notification_uuid", any_text)];

/// `N-6` is six digits, `LN-8` eight letters and digits.
fn otp_spec(spec: &str) -> Option<(&'static [u8], usize)> {
    let (kind, length) = spec.split_once('-')?;
    let alphabet: &[u8] = match kind {
        "N" => b"0123456789",
        "L" => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "LN" | "NL" => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        _ => return None,
    };
    let length = length.parse().ok().filter(|n| (4..=9).contains(n))?;
    Some((alphabet, length))
}

struct Notification {
    user: String,
    code: Code,
    canceled: bool,
}

#[derive(Default)]
pub struct Relid {
    notifications: HashMap<String, Notification>,
    /// Tokens issued and not revoked, with their ends.
    tokens: HashMap<String, u64>,
}

impl Dialect for Relid {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/generateRVN.htm" => Operation::Send,
            "/validateOTP.htm" => Operation::Verify,
            "/cancelRVN.htm" => Operation::Cancel,
            "/oauth/token" => Operation::Token,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let reference = call.text_if_any("notification_uuid");
        let notification = reference.as_deref().and_then(|reference| self.notifications.get(reference));
        About {
            recipient: call
                .text_if_any("user_id")
                .or_else(|| notification.map(|sent| Cow::Borrowed(sent.user.as_str()))),
            key: call.text_if_any("msg_id").or_else(|| reference.clone()),
            reference,
        }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let allowed: &[Field] = match call.operation {
            Operation::Token => return self.token(call, now_ms, dice),
            Operation::Send => &GENERATE,
            Operation::Verify => &VALIDATE,
            Operation::Cancel => &CANCEL,
            _ => return error(2600, "INVALID URI").complaining("no such path"),
        };
        if let Err(complaint) = self.authorize(call, now_ms) {
            let mut refusal = Reply::status(401, "");
            refusal.complaint = complaint;
            return refusal;
        }
        if let Some(complaint) = strict::envelope(call).or_else(|| strict::no_query(call)) {
            return error(2607, &format!("Invalid http request: {complaint}")).complaining(complaint);
        }
        if let Some(wrong) = strict::fields(&call.json, allowed) {
            let code = match wrong.field.as_str() {
                "notification_uuid" => 3502,
                "otp_value" => 3564,
                _ => 7014,
            };
            return error(code, &format!("Invalid request: {}", wrong.text)).complaining(wrong.text);
        }
        match call.operation {
            Operation::Send => self.generate(call, now_ms, dice),
            Operation::Verify => self.validate(call, now_ms),
            _ => self.cancel(call, now_ms),
        }
    }
}

impl Relid {
    pub fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Err with what to complain of; a refusal alone is nothing to complain of.
    fn authorize(&self, call: &Call<'_>, now_ms: u64) -> Result<(), Option<String>> {
        let Some(authorization) = call.http.header("authorization") else {
            return Err(Some("no authorization header".into()));
        };
        if let Some(token) = authorization.strip_prefix("Bearer ") {
            let is_good = match token.starts_with(TOKEN_PREFIX) {
                true => self.tokens.get(token).is_some_and(|end| now_ms < *end),
                false => !token.is_empty() && !is_refused(token),
            };
            return if is_good { Ok(()) } else { Err(None) };
        }
        match basic_credentials(authorization) {
            Some((user, password)) if is_refused(&user) || is_refused(&password) => Err(None),
            Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
            _ => Err(Some("an authorization header that is neither Basic nor Bearer".into())),
        }
    }

    /// OAuth 2 client credentials.
    fn token(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let http = call.http;
        let invalid = |complaint: &str| Reply::status(400, r#"{"error":"invalid_request"}"#).complaining(complaint);
        if http.method != "POST" {
            return invalid("a method other than POST");
        }
        let is_form =
            http.header("content-type").is_some_and(|media| media.starts_with("application/x-www-form-urlencoded"));
        if !is_form {
            return invalid("content-type is not application/x-www-form-urlencoded");
        }
        let body = String::from_utf8_lossy(&http.body);
        let mut pairs: Vec<_> = query_pairs(&body).collect();
        pairs.sort();
        if pairs != [("grant_type".into(), "client_credentials".into()), ("scope".into(), "all".into())] {
            return invalid("the form is not grant_type=client_credentials&scope=all");
        }
        let unauthorized = || Reply::status(401, r#"{"error":"invalid_client"}"#);
        match http.header("authorization").and_then(basic_credentials) {
            Some((id, secret)) if is_refused(&id) || is_refused(&secret) => unauthorized(),
            Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
                let token = format!("{TOKEN_PREFIX}{}", dice.hex(32));
                let body = format!(
                    r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{TOKEN_LIFETIME_S},"scope":"all"}}"#
                );
                self.tokens.insert(token, now_ms + TOKEN_LIFETIME_S * 1000);
                Reply::ok(body)
            }
            _ => unauthorized().complaining("no Basic client authentication"),
        }
    }

    fn generate(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        if let Some(complaint) = generate_complaint(&call.json) {
            return error(7014, &format!("Invalid request: {complaint}")).complaining(complaint);
        }
        let otp = &call.json["controls"]["otp"];
        let (alphabet, length) = otp["otp_spec"].as_str().and_then(otp_spec).unwrap_or((b"0123456789", DEFAULT_LENGTH));
        let lifetime_s = call.json["expires_in"].as_u64().unwrap_or_default();
        let text = dice.pick(alphabet, length);
        let uuid = dice.uuid();
        let body =
            format!(r#"{{"response_code":0,"notification_uuid":"{uuid}","msg_id":{}}}"#, quoted(call.text("msg_id")));
        let user = call.text("user_id").to_owned();
        let reply = Reply::ok(body).delivering(user.as_str(), text.as_str());
        let notification = Notification {
            user,
            code: Code {
                text,
                expires_ms: now_ms.saturating_add(lifetime_s.saturating_mul(1000)),
                tries_left: otp["attempts"].as_u64().map_or(DEFAULT_TRIES, |n| n as u32),
                used: false,
            },
            canceled: false,
        };
        self.notifications.insert(uuid, notification);
        reply
    }

    fn validate(&mut self, call: &Call<'_>, now_ms: u64) -> Reply {
        let uuid = call.text("notification_uuid");
        if let Some(refusal) = uuid_refusal(uuid) {
            return refusal;
        }
        let typed = call.text("otp_value");
        if typed.is_empty() {
            return error(3564, "OTP Value is null or empty").complaining("otp_value is empty");
        }
        let verdict = self
            .notifications
            .get_mut(uuid)
            .filter(|notification| !notification.canceled)
            .map(|notification| notification.code.check(typed, now_ms));
        match verdict {
            Some(Verdict::Right) => Reply::ok(format!(
                r#"{{"response_code":0,"notification_uuid":"{uuid}","otp_validation_status":"SUCCESS"}}"#
            )),
            Some(Verdict::Wrong(left)) => Reply::ok(format!(
                r#"{{"response_code":0,"notification_uuid":"{uuid}","otp_validation_status":"FAILED","attempts_left":{left}}}"#
            )),
            Some(Verdict::Exhausted) => error(3575, "Validate OTP attempts exhausted"),
            // The page knows no answer of its own for a used code: the notification is there no more.
            Some(Verdict::Used | Verdict::Expired) | None => error(3565, "Notification is not present or is expired"),
        }
    }

    fn cancel(&mut self, call: &Call<'_>, now_ms: u64) -> Reply {
        let uuid = call.text("notification_uuid");
        if let Some(refusal) = uuid_refusal(uuid) {
            return refusal;
        }
        match self.notifications.get_mut(uuid) {
            None => error(3558, "Notification not found"),
            Some(sent) if sent.canceled || sent.code.used || now_ms >= sent.code.expires_ms => {
                error(3620, "Notification already updated")
            }
            Some(sent) => {
                sent.canceled = true;
                Reply::ok(format!(r#"{{"response_code":0,"notification_uuid":"{uuid}"}}"#))
            }
        }
    }
}

/// What lies deeper than the first level of a generateRVN.
fn generate_complaint(json: &Value) -> Option<String> {
    let list = |name: &'static str, fields: &'static [Field]| {
        json[name]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(move |item| match item {
                Value::Object(_) => strict::fields(item, fields).map(|wrong| wrong.text),
                _ => Some("an item that is not an object".into()),
            })
            .map(|text| format!("{name}: {text}"))
    };
    let nested = |name: &'static str, value: &Value, fields: &[Field]| {
        strict::fields(value, fields).map(|wrong| format!("{name}: {}", wrong.text))
    };
    let has_placeholder = json["msg"].as_array().is_some_and(|messages| {
        messages.iter().any(|item| item["message"].as_str().is_some_and(|text| text.contains("$$OTP$$")))
    });
    list("msg", &MSG)
        .or_else(|| (!has_placeholder).then(|| "msg: no message holds $$OTP$$".into()))
        .or_else(|| list("actions", &ACTION))
        .or_else(|| nested("notification_msg", &json["notification_msg"], &NOTIFICATION_MSG))
        .or_else(|| nested("controls", &json["controls"], &CONTROLS))
        .or_else(|| nested("controls.otp", &json["controls"]["otp"], &CONTROLS_OTP))
}

fn uuid_refusal(uuid: &str) -> Option<Reply> {
    if uuid.is_empty() {
        let complaint = "notification_uuid is empty";
        return Some(error(3502, "Invalid Notification Request Data").complaining(complaint));
    }
    let is_uuid = uuid.len() == 36
        && uuid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    (!is_uuid).then(|| {
        error(3593, "notification-uuid regex validation failed").complaining("notification_uuid is not a UUID")
    })
}

fn error(code: u32, message: &str) -> Reply {
    Reply::ok(format!(r#"{{"response_code":1,"error_code":{code},"error_message":{}}}"#, quoted(message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const HEADERS: [(&str, &str); 2] = [("content-type", "application/json"), ("authorization", "Bearer configured")];

    fn send(vendor: &mut Relid, extra: &str) -> (String, String) {
        let body = format!(
            r#"{{"msg_id":"m","enterprise_id":"e","user_id":"u","msg_type":"OTP","expires_in":15,"msg":[
                {{"lng":"English","subject":"s","message":"Code $$OTP$$","label":{{}}}}],
                "notification_msg":{{"subject":"n"}}{extra}}}"#
        );
        let reply = ask(vendor, "/generateRVN.htm", &HEADERS, &body, 0);
        assert_eq!(reply.complaint, None);
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        let uuid = answer["notification_uuid"].as_str().unwrap().to_owned();
        (uuid, reply.message.unwrap().1)
    }

    fn validate(vendor: &mut Relid, uuid: &str, otp: &str, now_ms: u64) -> Value {
        let body = format!(r#"{{"notification_uuid":"{uuid}","otp_value":"{otp}"}}"#);
        let reply = ask(vendor, "/validateOTP.htm", &HEADERS, &body, now_ms);
        serde_json::from_str(&reply.body).unwrap()
    }

    #[test]
    fn wrong_then_right_then_used() {
        let mut vendor = Relid::default();
        let (uuid, code) = send(&mut vendor, r#","controls":{"otp":{"otp_spec":"LN-8"}}"#);
        assert_eq!(code.len(), 8);
        let wrong = validate(&mut vendor, &uuid, &other_than(&code), 1);
        assert_eq!((&wrong["attempts_left"]), 2);
        let right = validate(&mut vendor, &uuid, &code, 1);
        assert_eq!(right["otp_validation_status"], "SUCCESS");
        assert_eq!(validate(&mut vendor, &uuid, &code, 1)["error_code"], 3565);
        assert_eq!(validate(&mut vendor, "nothing", &code, 1)["error_code"], 3593);
        assert_eq!(validate(&mut vendor, &uuid, "", 1)["error_code"], 3564);
    }

    #[test]
    fn expired_and_exhausted() {
        let mut vendor = Relid::default();
        let extra = r#","controls":{"otp":{"attempts":1}}"#;
        let (uuid, code) = send(&mut vendor, extra);
        assert_eq!(validate(&mut vendor, &uuid, &code, 15_000)["error_code"], 3565);
        let wrong = validate(&mut vendor, &uuid, &other_than(&code), 1);
        assert_eq!(wrong["attempts_left"], 0);
        assert_eq!(validate(&mut vendor, &uuid, &code, 1)["error_code"], 3575);
    }

    #[test]
    fn cancel_voids_the_code_once() {
        let mut vendor = Relid::default();
        let (uuid, code) = send(&mut vendor, "");
        let body = format!(r#"{{"notification_uuid":"{uuid}"}}"#);
        let canceled = ask(&mut vendor, "/cancelRVN.htm", &HEADERS, &body, 1);
        assert!(canceled.body.contains(r#""response_code":0"#));
        assert_eq!(validate(&mut vendor, &uuid, &code, 1)["error_code"], 3565);
        let again = ask(&mut vendor, "/cancelRVN.htm", &HEADERS, &body, 1);
        assert!(again.body.contains("3620"));
    }

    #[test]
    fn tokens_expire_and_can_be_revoked() {
        let mut vendor = Relid::default();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", "Basic aWQ6c2VjcmV0")];
        let form = "grant_type=client_credentials&scope=all";
        let issued = ask(&mut vendor, "/oauth/token", &headers, form, 0);
        assert_eq!(issued.complaint, None);
        let issued: Value = serde_json::from_str(&issued.body).unwrap();
        let bearer = format!("Bearer {}", issued["access_token"].as_str().unwrap());
        let with_token = [HEADERS[0], ("authorization", bearer.as_str())];
        let status = |vendor: &mut Relid, now_ms| ask(vendor, "/cancelRVN.htm", &with_token, "{}", now_ms).status;
        assert_eq!(status(&mut vendor, 299_999), 200);
        assert_eq!(status(&mut vendor, 300_000), 401);
        vendor.revoke_tokens();
        assert_eq!(status(&mut vendor, 0), 401);
    }
}
