//! Promise: no value of a call or of its answer is shown by `{:?}` or `{}`, whatever is formatted; and a secret is
//! wiped when it is dropped.

mod caller;

use std::fmt::Debug;

use caller::{VENDORS, account, caller, keep, read};
use dialect::{
    Call, HttpRequest, HttpResponse, Operation, Operation::*, Prepared, Private, Secret, read_token, token_request,
};
use serde_json::{Value, json};
use zeroize::ZeroizeOnDrop;

/// Prepares a call with a canary in every field that takes one, in code and credentials, and in what is known.
fn prepared(vendor: &str, operation: Operation) -> Option<Prepared> {
    let mobile = if vendor == "ideamart" { "+94775550123" } else { "+91 77555 50123" };
    let payload = match (vendor, operation) {
        ("iserveu", Send | Resend) => json!({
            "mobile": mobile, "otp_type": "1", "username": "canary-name", "ovd_type": "Aadhaar Card",
            "ovd_data": "234123412346"
        }),
        ("iserveu", _) => json!({
            "mobile": mobile, "otp_type": "1", "username": "canary-name", "name": "canary-person", "lat_long": "1.5,2.5",
            "public_ip": "192.168.1.1", "ovd_data": "234123412346"
        }),
        ("hyperverge", Send) => json!({"mobile": mobile, "template_id": "canary-template"}),
        ("hyperverge", _) => json!({"mobile": mobile, "transaction_id": "canary-transaction"}),
        ("paytm", Send | Resend) => {
            json!({"mid": "M", "order_id": "canary-order", "token": "canary-token", "mobile": mobile})
        }
        ("paytm", _) => json!({"mid": "M", "order_id": "canary-order", "token": "canary-token"}),
        ("relid", Send | Resend) => {
            json!({
                "user_id": "canary-user", "enterprise_id": "E", "expires_in": 60, "notification_msg": {"message": "m"},
                "msg": [{"lng": "en", "subject": "s", "message": "canary-text $$OTP$$", "label": {}}]
            })
        }
        ("vonage", Send | Resend) => {
            json!({"mobile": mobile, "brand": "canary-brand", "reference": "canary-reference"})
        }
        ("vonage", _) => json!({"reference": "canary-reference"}),
        ("twilio", Send) => json!({"mobile": "canary@example.org", "rate_limits": {"ip": "canary-ip"}}),
        ("twilio", Resend) => json!({"amount": "5", "payee": "canary-shop"}),
        ("twilio", _) => json!({"reference": "VE0123456789abcdef0123456789abcdef"}),
        ("msg91", Send) => json!({"mobile": mobile, "template_id": "T", "variables": {"name": "canary-name"}}),
        ("msg91", _) => json!({"mobile": mobile}),
        (_, Send | Resend) => json!({"mobile": mobile}),
        _ => json!({"reference": "03f67f9e-ec4f-11e6-b006-92361f002671"}),
    };
    let known = if operation == Send { json!({}) } else { json!({"mobile": mobile, "user_id": "canary-user"}) };
    let call = caller(vendor, operation);
    let mut payload = caller::members(payload);
    let fields = call.vendor.fields(operation).unwrap_or_default();
    payload.retain(|name, _| fields.iter().any(|field| field.is_called(name)));
    let credentials = account(call.vendor, "canary-id", "canary-secret");
    let mut call = call.payload(payload.into()).known(known).credentials(&credentials);
    if operation == Verify {
        call = call.code("canary-code");
    }
    call.vendor.fields(operation).map(|_| call.prepared())
}

/// Texts that must not be seen: the canaries, also within `Basic`, and parts of the numbers.
const SIGNS: [&str; 6] = ["canary", "Y2FuYXJ5", "77555", "50123", "55501", "23412"];

fn says(sent: &str) -> bool {
    SIGNS.iter().any(|sign| sent.contains(sign))
}

#[track_caller]
fn assert_hidden(shown: &str) {
    for sign in SIGNS {
        assert!(!shown.contains(sign), "{sign} in {shown}");
    }
}

/// Returns every part of an HTTP message that a value may stand in.
fn whole(request: &HttpRequest) -> String {
    let pairs = request.query.iter().chain(&request.headers);
    let pairs: String = pairs.map(|(_, value)| format!("{} ", value.reveal())).collect();
    format!("{} {pairs}{}", request.path.reveal(), request.body.reveal())
}

#[test]
fn no_call_shows_its_values() {
    for (vendor, _) in VENDORS.iter() {
        for operation in Operation::ALL {
            let Some(prepared) = prepared(vendor, operation) else { continue };
            let requests = || [Some(&prepared.request), prepared.cancel_first.as_ref()].into_iter().flatten();
            let sent: String = requests().map(whole).collect();
            // The sandbox sends nothing; all other vendors are told at least the account, somewhere in the message.
            assert!(*vendor == "sandbox" || says(&sent), "{vendor} {operation:?}: nothing to hide in {sent}");
            assert!(operation != Send || says(&format!("{sent}{}", keep(&prepared))));
            assert_hidden(&format!("{prepared:?}"));
            assert_hidden(&requests().map(|request| format!("{request:?} ")).collect::<String>());
            assert_hidden(&format!("{:?} {:?} {:?}", prepared.recipient, prepared.retained, prepared.secrets));
            // No credential and no secret stands in a query, which servers log.
            for (name, value) in requests().flat_map(|request| &request.query) {
                assert!(!value.reveal().contains("canary-secret"), "{vendor} {operation:?}: a credential in ?{name}=");
            }
        }
    }
}

#[test]
fn what_a_call_sends_in_secret_is_looked_for_in_its_answer() {
    for (vendor, _) in VENDORS.iter() {
        for operation in Operation::ALL {
            let Some(prepared) = prepared(vendor, operation) else { continue };
            // An answer may be a page that shows the whole request, as some proxies do: headers, path, query, body.
            let sent = whole(&prepared.request);
            let shown = dialect::redact_text(&prepared.secrets, &sent);
            for sign in ["canary-secret", "canary-code", "canary-token", "7755550123", "234123412346"] {
                assert!(!shown.contains(sign), "{vendor} {operation:?}: {sign} of {sent}");
            }
            let basic = prepared.request.headers.iter().filter_map(|(_, value)| value.reveal().strip_prefix("Basic "));
            for basic in basic {
                assert!(!shown.contains(basic), "{vendor} {operation:?}: {basic}");
            }
        }
    }
}

#[test]
fn no_refusal_shows_a_value() {
    for (vendor, _) in VENDORS.iter() {
        let call = caller(vendor, Send).payload(json!({"mobile": "+91 77555 50123 canary", "user_id": ""}));
        let invalid = call.refused();
        assert_hidden(&format!("{invalid} {invalid:?}"));
    }
}

#[test]
fn no_answer_shows_its_values() {
    for (vendor, body) in [
        ("iserveu", json!({"status": "FAILED", "statusCode": "canary", "statusDesc": "canary 7755550123"})),
        ("hyperverge", json!({"status": "success", "statusCode": 200, "metaData": {"requestId": "canary"}})),
        ("relid", json!({"response_code": 0, "notification_uuid": "canary", "x": 7755550123_u64})),
        ("ideamart", json!({"statusCode": "S1000", "referenceNo": "canary", "canary": ["canary"]})),
    ] {
        let reading = read(vendor, Send, 200, &body.to_string());
        assert!(reading.response.as_ref().is_some_and(|response| response.to_string().contains("canary")));
        assert_hidden(&format!("{reading:?}"));
    }
    let body = br#"{"access_token":"canary-token"}"#;
    let token = read_token(&HttpResponse { status: 200, retry_after: None, body });
    assert_hidden(&format!("{token:?}"));
    assert_hidden(&format!("{:?}", token_request(&Secret::new("canary-id"), &Secret::new("canary-secret"))));
    let failed = read_token(&HttpResponse { status: 401, retry_after: None, body });
    assert_hidden(&format!("{failed:?}"));
}

#[test]
fn a_secret_shows_nothing_in_any_form() {
    let secret = Secret::new("canary");
    assert_eq!(format!("{secret} {secret:?} {secret:>9} {secret:#?}"), "[secret] [secret] [secret] [secret]");
    let private = Private::from(json!({"canary": "canary"}));
    assert_eq!(format!("{private:?} {:?}", Some(&private)), "[secret] Some([secret])");
}

#[test]
fn a_secret_is_wiped_when_it_is_dropped() {
    fn is_wiped<T: ZeroizeOnDrop>() {}
    is_wiped::<Secret>();
    let mut value = json!({"a": ["canary", {"b": "canary"}], "c": "canary"});
    dialect::Wipe::wipe(&mut value["a"]);
    assert_eq!(value, json!({"a": ["", {}], "c": "canary"}));
    dialect::Wipe::wipe(&mut value);
    assert_eq!(value, json!({}));
}

/// Tells whether a type has a `Debug`: if it has, the type's own associated constant hides the trait's.
struct Shown<T>(std::marker::PhantomData<T>);

trait Otherwise {
    const IS: bool = false;
}

impl<T> Otherwise for Shown<T> {}

impl<T: Debug> Shown<T> {
    const IS: bool = true;
}

#[test]
fn what_holds_values_in_the_clear_has_no_debug() {
    const { assert!(Shown::<Secret>::IS && Shown::<Value>::IS) };
    const { assert!(!Shown::<Call>::IS && !Shown::<HttpResponse>::IS) };
}

#[test]
fn a_page_that_shows_the_request_shows_no_name() {
    let payload = json!({
        "mobile": "8144094480", "otp_type": "1", "username": "u", "name": "Canary Person", "lat_long": "1.5,2.5",
        "public_ip": "192.168.1.1", "ovd_data": "234123412346"
    });
    let call = caller("iserveu", Verify).payload(payload).known(json!({"mobile": "8144094480"})).code("canary-code");
    let page = "<h1>502</h1><p>name=Canary Person&amp;mobileNumber=8144094480</p>";
    let shown = dialect::redact_text(&call.prepared().secrets, page);
    assert!(!shown.contains("Person") && !shown.contains("8144094480"), "{shown}");
}

#[test]
fn what_only_the_send_took_is_a_secret_of_what_follows_too() {
    for (vendor, more) in [
        ("twilio", json!({"rate_limits": {"user": "canary-17"}, "substitutions": {"name": "Canary Rao"}})),
        ("msg91", json!({"template_id": "T", "variables": {"name": "Canary Rao"}, "email": "canary@example.org"})),
    ] {
        let mut payload = caller::members(more);
        payload.insert("mobile".into(), "+918144094480".into());
        let mut known = keep(&caller(vendor, Send).payload(payload.into()).prepared());
        known["reference"] = json!("VE0123456789abcdef0123456789abcdef");
        for operation in [Verify, Resend, Cancel] {
            let call = caller(vendor, operation).known(known.clone());
            if (call.vendor.fields)(operation).is_none() {
                continue;
            }
            let words = "of canary-17, Canary Rao, canary@example.org and 8144094480";
            let shown = dialect::redact_text(&call.prepared().secrets, words);
            let kept = if vendor == "twilio" { "canary@example.org" } else { "canary-17" };
            let told = shown.replace(kept, "");
            assert!(!told.to_lowercase().contains("canary") && !told.contains("8144094480"), "{vendor}: {shown}");
        }
    }
}
