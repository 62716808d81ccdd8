//! iServeU (DMT Lite, unified): there is no verify call; the next business call carries the code.

use std::collections::HashMap;

use serde_json::Value;

use crate::code::{Code, Dice, Verdict};
use crate::dialect::{About, Call, Dialect, Operation, Reply, is_refused, quoted};
use crate::strict::{
    self, Field, aadhaar, any_text, boolean, indian_mobile, ip_address, lat_long, one_of, optional, pincode, required,
    text,
};

/// The page's values for type 1; for type 2 it gives none.
const LIFETIME_MS: u64 = 10 * 60 * 1000;
const TRIES: u32 = 5;

/// Which of these are required depends on otpType: see `send_complaint`.
const SEND: [Field; 12] = [
    required("customerMobileNumber", indian_mobile),
    required("otpType", |value| one_of(value, &["1", "2"], "\"1\" or \"2\"")),
    required("username", text),
    optional("externalRefNumber", reference),
    optional("requestedAmount", any_text),
    optional("latLong", lat_long),
    optional("publicIP", ip_address),
    optional("ovdType", text),
    optional("ovdData", aadhaar),
    optional("paramA", any_text),
    optional("paramB", any_text),
    optional("paramC", any_text),
];
const REGISTER: [Field; 13] = [
    required("mobileNumber", indian_mobile),
    required("name", text),
    required("otp", text),
    required("username", text),
    required("latlong", lat_long),
    required("publicIP", ip_address),
    optional("address", text),
    optional("pincode", pincode),
    optional("ovdType", text),
    optional("ovdData", aadhaar),
    optional("paramA", any_text),
    optional("paramB", any_text),
    optional("paramC", any_text),
];
const VERIFY_BENE: [Field; 17] = [
    required("externalRefNumber", reference),
    required("accountNumber", text),
    required("beneBankName", text),
    required("beneMobileNumber", indian_mobile),
    required("beneName", text),
    required("bankCode", text),
    required("beneIfscCode", text),
    required("transactionMode", |value| one_of(value, &["IMPS"], "\"IMPS\"")),
    required("customerName", text),
    required("customerMobileNumber", indian_mobile),
    required("pincode", pincode),
    required("address", text),
    required("isHoldTransaction", boolean),
    required("username", text),
    required("latLong", lat_long),
    required("customerIP", ip_address),
    required("otp", text),
];

fn reference(value: &Value) -> Result<(), &'static str> {
    value
        .as_str()
        .is_some_and(|text| (6..=22).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .then_some(())
        .ok_or("a string of 6 to 22 letters or digits")
}

struct Transaction {
    mobile: String,
    username: String,
    code: Code,
}

#[derive(Default)]
pub struct Iserveu {
    /// Type 1, by mobile number.
    registrations: HashMap<String, Code>,
    /// Type 2, by external reference.
    transactions: HashMap<String, Transaction>,
}

impl Dialect for Iserveu {
    fn operation(&self, path: &str) -> Operation {
        match path {
            "/otp/send" => Operation::Send,
            "/customer/process-customer-registration" | "/transaction/verify-bene" => Operation::Verify,
            _ => Operation::Unknown,
        }
    }

    fn about<'a>(&'a self, call: &'a Call<'_>) -> About<'a> {
        let recipient = call.text_if_any("customerMobileNumber").or_else(|| call.text_if_any("mobileNumber"));
        let reference = call.text_if_any("externalRefNumber");
        About { key: reference.clone().or_else(|| recipient.clone()), recipient, reference }
    }

    fn answer(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let allowed: &[Field] = match call.path {
            "/otp/send" => &SEND,
            "/customer/process-customer-registration" => &REGISTER,
            "/transaction/verify-bene" => &VERIFY_BENE,
            _ => return Reply::status(404, "").complaining("no such path"),
        };
        for name in ["client_id", "client_secret"] {
            if let Some(complaint) = strict::header(call, name) {
                return Reply::status(401, "").complaining(complaint);
            }
            if call.http.header(name).is_some_and(is_refused) {
                return Reply::status(401, "");
            }
        }
        let complaint = strict::envelope(call)
            .or_else(|| strict::no_query(call))
            .or_else(|| strict::fields(&call.json, allowed).map(|wrong| wrong.text))
            .or_else(|| match call.operation {
                Operation::Send => self.send_complaint(call),
                _ => None,
            });
        if let Some(complaint) = complaint {
            return answer(call, "FAILED", "-1", &complaint).complaining(complaint);
        }
        match call.path {
            "/otp/send" => self.send(call, now_ms, dice),
            "/customer/process-customer-registration" => self.register(call, now_ms),
            _ => self.verify_bene(call, now_ms, dice),
        }
    }
}

impl Iserveu {
    fn send_complaint(&self, call: &Call<'_>) -> Option<String> {
        let kind = call.text("otpType");
        let needed: &[&str] = match kind {
            "1" => &["ovdType", "ovdData"],
            _ => &["externalRefNumber", "requestedAmount"],
        };
        if let Some(missing) = needed.iter().find(|name| call.json.get(*name).is_none()) {
            return Some(format!("{missing} is missing, for otpType {kind}"));
        }
        if let Some(amount) = call.text_if_any("requestedAmount")
            && !strict::is_digits(&amount, 1, 20)
        {
            return Some("Requested Amount Must Not be EMPTY Or Only Number Allowed".into());
        }
        (kind == "2" && self.transactions.contains_key(call.text("externalRefNumber")))
            .then(|| "externalRefNumber must change for a new code".into())
    }

    fn send(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        let mobile = call.text("customerMobileNumber").to_owned();
        let text = dice.digits(6);
        let code = Code { text: text.clone(), expires_ms: now_ms + LIFETIME_MS, tries_left: TRIES, used: false };
        if call.text("otpType") == "1" {
            self.registrations.insert(mobile.clone(), code);
        } else {
            self.transactions.insert(
                call.text("externalRefNumber").to_owned(),
                Transaction { mobile: mobile.clone(), username: call.text("username").to_owned(), code },
            );
        }
        answer(call, "SUCCESS", "0", "OTP Sent Successfully.").delivering(mobile, text)
    }

    fn register(&mut self, call: &Call<'_>, now_ms: u64) -> Reply {
        let code = self.registrations.get_mut(call.text("mobileNumber"));
        if let Err(why) = check(code, call.text("otp"), now_ms) {
            return answer(call, "FAILED", "3", why);
        }
        Reply::ok(format!(
            r#"{{"status":"SUCCESS","statusCode":"0","statusDesc":"Customer registered successfully","name":{},"mobileNumber":{},"KYCTypeFlag":"1"}}"#,
            quoted(call.text("name")),
            quoted(call.text("mobileNumber"))
        ))
    }

    fn verify_bene(&mut self, call: &Call<'_>, now_ms: u64, dice: &mut Dice) -> Reply {
        // A transaction under another number or user name is as good as none.
        let code = self
            .transactions
            .get_mut(call.text("externalRefNumber"))
            .filter(|sent| sent.mobile == call.text("customerMobileNumber") && sent.username == call.text("username"))
            .map(|sent| &mut sent.code);
        // This answer spells its description with a hyphen.
        if let Err(why) = check(code, call.text("otp"), now_ms) {
            return Reply::ok(format!(r#"{{"status":"FAILED","statusCode":"3","status-desc":"{why}"}}"#));
        }
        Reply::ok(format!(
            r#"{{"status":"SUCCESS","statusCode":"0","status-desc":"Beneficiary verified","parentTxnId":"{}","transactionList":[{{"txnId":"{}","status":"SUCCESS"}}]}}"#,
            dice.digits(18),
            dice.digits(18)
        ))
    }
}

/// No code for a failed check is published, so that these texts are what callers have to go by.
fn check(code: Option<&mut Code>, typed: &str, now_ms: u64) -> Result<(), &'static str> {
    match code.map(|code| code.check(typed, now_ms)) {
        Some(Verdict::Right) => Ok(()),
        Some(Verdict::Wrong(_)) => Err("Invalid OTP"),
        Some(Verdict::Used) => Err("OTP already used"),
        Some(Verdict::Expired) => Err("OTP has expired"),
        Some(Verdict::Exhausted) => Err("Maximum OTP attempts exceeded"),
        None => Err("No OTP request found"),
    }
}

fn answer(call: &Call<'_>, status: &str, code: &str, description: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"status":"{status}","statusCode":"{code}","statusDesc":{},"paramA":{},"paramB":{},"paramC":{}}}"#,
        quoted(description),
        quoted(call.text("paramA")),
        quoted(call.text("paramB")),
        quoted(call.text("paramC"))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tests::{ask, other_than};

    const HEADERS: [(&str, &str); 3] =
        [("Content-Type", "application/json"), ("client_id", "c"), ("client_secret", "s")];
    const REGISTRATION: &str = "/customer/process-customer-registration";

    fn send_registration(vendor: &mut Iserveu) -> String {
        let body = r#"{"customerMobileNumber":"8144094480","otpType":"1","username":"u","ovdType":"Aadhaar Card",
            "ovdData":"765386439745"}"#;
        let reply = ask(vendor, "/otp/send", &HEADERS, body, 0);
        assert_eq!(reply.complaint, None);
        reply.message.unwrap().1
    }

    fn register(vendor: &mut Iserveu, otp: &str, now_ms: u64) -> String {
        let body = format!(
            r#"{{"mobileNumber":"8144094480","name":"N","otp":"{otp}","username":"u","latlong":"1,2","publicIP":"::1"}}"#
        );
        let reply = ask(vendor, REGISTRATION, &HEADERS, &body, now_ms);
        assert_eq!((reply.status, reply.complaint), (200, None));
        reply.body
    }

    #[test]
    fn type_1() {
        let mut vendor = Iserveu::default();
        assert!(register(&mut vendor, "123456", 0).contains("No OTP request"));
        let code = send_registration(&mut vendor);
        assert!(register(&mut vendor, &other_than(&code), 1).contains("Invalid OTP"));
        assert!(register(&mut vendor, &code, 1).contains("SUCCESS"));
        assert!(register(&mut vendor, &code, 1).contains("already used"));
        let code = send_registration(&mut vendor);
        assert!(register(&mut vendor, &code, LIFETIME_MS).contains("expired"));
        for _ in 0..TRIES {
            assert!(register(&mut vendor, &other_than(&code), 1).contains("Invalid OTP"));
        }
        assert!(register(&mut vendor, &code, 1).contains("attempts exceeded"));
    }

    #[test]
    fn type_2_keeps_reference_number_and_user_together() {
        let mut vendor = Iserveu::default();
        let body = r#"{"customerMobileNumber":"8144094480","otpType":"2","username":"u",
            "externalRefNumber":"REF0001","requestedAmount":"1001"}"#;
        let sent = ask(&mut vendor, "/otp/send", &HEADERS, body, 0);
        let code = sent.message.unwrap().1;
        let again = ask(&mut vendor, "/otp/send", &HEADERS, body, 0);
        assert!(again.complaint.unwrap().contains("must change"));

        let mut verify = |username: &str| {
            let body = format!(
                r#"{{"externalRefNumber":"REF0001","accountNumber":"1","beneBankName":"B","beneMobileNumber":"9999999999",
                "beneName":"N","bankCode":"1","beneIfscCode":"I","transactionMode":"IMPS","customerName":"C",
                "customerMobileNumber":"8144094480","pincode":"751001","address":"A","isHoldTransaction":false,
                "username":"{username}","latLong":"1,2","customerIP":"10.0.0.1","otp":"{code}"}}"#
            );
            let reply = ask(&mut vendor, "/transaction/verify-bene", &HEADERS, &body, 1);
            assert_eq!(reply.complaint, None);
            reply.body
        };
        assert!(verify("other").contains("No OTP request"));
        assert!(verify("u").contains("parentTxnId"));
    }

    #[test]
    fn bad_amount_and_credentials() {
        let mut vendor = Iserveu::default();
        let body = r#"{"customerMobileNumber":"8144094480","otpType":"2","username":"u",
            "externalRefNumber":"REF0001","requestedAmount":"ten"}"#;
        let reply = ask(&mut vendor, "/otp/send", &HEADERS, body, 0);
        assert!(reply.body.contains(r#""statusCode":"-1""#));
        let wrong = [HEADERS[0], HEADERS[1], ("client_secret", "wrong")];
        let reply = ask(&mut vendor, "/otp/send", &wrong, body, 0);
        assert_eq!((reply.status, reply.body.as_str()), (401, ""));
    }
}
