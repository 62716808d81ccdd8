//! Promise: what reaches a vendor is, byte for byte, what the vendor's page documents, with no field more; and a later
//! verify, resend or cancel needs nothing that the send already knew.

mod caller;

use std::time::Duration;

use caller::{ATTEMPT, SERVICE, VERIFICATION, body, caller, keep, message};
use dialect::{FindBy, Operation::*, Secret, by_name, redact_text, token_request};
use serde_json::json;

#[test]
fn iserveu_sends_for_a_registration() {
    let prepared = caller("iserveu", Send)
        .payload(json!({
            "mobile": "+91 81440 94480", "otp_type": 1, "ovd_type": "Aadhaar Card", "ovd_data": "765386439745",
            "lat_long": "123.23,21.345", "public_ip": "192.168.1.1", "param_a": "a"
        }))
        .defaults(json!({"username": "isutestapi1", "pincode": "751024"}))
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/otp/send\n",
            "Content-Type: application/json\nclient_id: isu-client\nclient_secret: isu-secret\n",
            r#"{"customerMobileNumber":"8144094480","username":"isutestapi1","otpType":"1","latLong":"123.23,21.345","#,
            r#""publicIP":"192.168.1.1","ovdType":"Aadhaar Card","ovdData":"765386439745","paramA":"a"}"#
        )
    );
    assert!(prepared.cancel_first.is_none());
    assert_eq!(prepared.recipient, Some(Secret::new("+918144094480")));
    assert_eq!(prepared.recipient_masked.as_deref(), Some("+91******4480"));
    assert_eq!(prepared.reference, None);
    assert_eq!(prepared.find_by, FindBy::Recipient);
    assert_eq!(
        keep(&prepared),
        json!({
            "mobile": "8144094480", "username": "isutestapi1", "otp_type": "1", "lat_long": "123.23,21.345",
            "public_ip": "192.168.1.1", "ovd_type": "Aadhaar Card", "ovd_data": "765386439745", "param_a": "a"
        })
    );
}

#[test]
fn iserveu_sends_for_a_transaction() {
    let prepared = caller("iserveu", Send)
        .payload(json!({
            "customerMobileNumber": "8144094480", "externalRefNumber": 1432452, "requestedAmount": 1001,
            "username": "isutestapi1", "otpType": "2"
        }))
        .prepared();
    assert_eq!(
        prepared.request.body.reveal(),
        concat!(
            r#"{"customerMobileNumber":"8144094480","externalRefNumber":"1432452","requestedAmount":"1001","#,
            r#""username":"isutestapi1","otpType":"2"}"#
        )
    );
    assert_eq!(prepared.reference.as_deref(), Some("1432452"));
    assert_eq!(prepared.find_by, FindBy::Reference);
}

#[test]
fn iserveu_verifies_a_registration_with_the_fields_of_a_registration_alone() {
    let known = json!({
        "mobile": "8144094480", "username": "isutestapi1", "otp_type": "1", "lat_long": "20.29,85.82", "amount": "12",
        "public_ip": "192.168.1.1", "reference": "1432452"
    });
    let prepared = caller("iserveu", Verify)
        .known(known)
        .payload(json!({"name": "A Person", "pincode": 751024, "address": "Bhubaneswar"}))
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/customer/process-customer-registration\n",
            "Content-Type: application/json\nclient_id: isu-client\nclient_secret: isu-secret\n",
            r#"{"mobileNumber":"8144094480","name":"A Person","otp":"012345","username":"isutestapi1","#,
            r#""latlong":"20.29,85.82","publicIP":"192.168.1.1","address":"Bhubaneswar","pincode":"751024"}"#
        )
    );
    assert_eq!(prepared.find_by, FindBy::Recipient);
}

#[test]
fn iserveu_verifies_a_transaction() {
    let known = json!({"mobile": "8144094480", "username": "isutestapi1", "otp_type": "2", "reference": "1432452"});
    let prepared = caller("iserveu", Verify)
        .known(known.clone())
        .payload(json!({
            "accountNumber": "1234567890", "beneBankName": "SBI", "beneMobileNumber": "9876543210", "beneName": "B",
            "bankCode": "SBIN", "beneIfscCode": "SBIN0000001", "transactionMode": "IMPS", "customerName": "A",
            "pincode": "751024", "address": "Bhubaneswar", "isHoldTransaction": "false", "latLong": "20.29,85.82",
            "customerIP": "192.168.1.1"
        }))
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/transaction/verify-bene\n",
            "Content-Type: application/json\nclient_id: isu-client\nclient_secret: isu-secret\n",
            r#"{"externalRefNumber":"1432452","accountNumber":"1234567890","beneBankName":"SBI","#,
            r#""beneMobileNumber":"9876543210","beneName":"B","bankCode":"SBIN","beneIfscCode":"SBIN0000001","#,
            r#""transactionMode":"IMPS","customerName":"A","customerMobileNumber":"8144094480","pincode":"751024","#,
            r#""address":"Bhubaneswar","isHoldTransaction":false,"username":"isutestapi1","latLong":"20.29,85.82","#,
            r#""customerIP":"192.168.1.1","otp":"012345"}"#
        )
    );
    assert_eq!(prepared.reference.as_deref(), Some("1432452"));
    // What one verify gave is not kept for the next: a stranger's bank account is nobody's to keep.
    assert_eq!(keep(&prepared), known);
}

#[test]
fn iserveu_resends_a_registration_as_it_was_and_a_transaction_under_a_new_reference() {
    let sent = caller("iserveu", Send)
        .payload(json!({
            "mobile": "8144094480", "otp_type": "1", "ovd_type": "Aadhaar Card", "ovd_data": "765386439745",
            "username": "isutestapi1"
        }))
        .prepared();
    let again = caller("iserveu", Resend).known(keep(&sent)).prepared();
    assert_eq!(message(&again.request), message(&sent.request));
    assert_eq!(again.retained, sent.retained);

    let known = json!({
        "mobile": "8144094480", "username": "isutestapi1", "otp_type": "2", "reference": "1432452", "amount": "1001"
    });
    let resend = || caller("iserveu", Resend).known(known.clone());
    for payload in [json!({}), json!({"reference": "1432452"}), json!({"externalRefNumber": 1432452})] {
        let invalid = resend().payload(payload).refused();
        assert_eq!(invalid.field, "reference");
        assert!(invalid.message.contains("needs a new one"), "{invalid:?}");
    }
    let again = resend().payload(json!({"reference": "1432453"})).prepared();
    assert_eq!(
        again.request.body.reveal(),
        concat!(
            r#"{"customerMobileNumber":"8144094480","externalRefNumber":"1432453","requestedAmount":"1001","#,
            r#""username":"isutestapi1","otpType":"2"}"#
        )
    );
    assert_eq!(again.reference.as_deref(), Some("1432453"));
    assert_eq!(keep(&again)["reference"], "1432453");
}

#[test]
fn hyperverge_sends_every_value_as_text_and_leaves_out_what_nobody_asked_for() {
    let prepared = caller("hyperverge", Send)
        .payload(json!({
            "mobile": 8144094480_u64, "otp_length": 6, "otp_expiry": "10", "time": 10, "time_format": "minutes",
            "show_last_four_digits": true, "transaction_id": "journey-7"
        }))
        .defaults(json!({"templateId": "T1"}))
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/v1/verifyMobileSendOtp\n",
            "content-type: application/json\nappId: hv-app\nappKey: hv-key\ntransactionId: journey-7\n",
            r#"{"templateId":"T1","mobileNumber":"8144094480","otpLength":"6","otpExpiry":"10","time":"10","#,
            r#""timeFormat":"minutes","showLastFourDigits":"yes"}"#
        )
    );
    assert_eq!(prepared.code_lifetime, Some(Duration::from_secs(600)));
    assert_eq!(
        keep(&prepared),
        json!({
            "mobile": "8144094480", "otp_length": "6", "otp_expiry": "10", "time": "10", "time_format": "minutes",
            "show_last_four_digits": "yes", "transaction_id": "journey-7"
        })
    );

    let plain = caller("hyperverge", Send).payload(json!({"mobile": "8144094480", "template_id": "T1"})).prepared();
    assert_eq!(plain.request.body.reveal(), r#"{"templateId":"T1","mobileNumber":"8144094480"}"#);
    assert_eq!(plain.code_lifetime, None);
    assert_eq!(keep(&plain)["transaction_id"], VERIFICATION);
}

#[test]
fn hyperverge_keeps_one_journey_id_over_send_resend_and_verify() {
    let sent = caller("hyperverge", Send)
        .payload(json!({"mobile": "8144094480", "template_id": "T1", "transactionId": "journey-7"}))
        .prepared();
    let headers = "content-type: application/json\nappId: hv-app\nappKey: hv-key\ntransactionId: journey-7\n";
    let mut known = keep(&sent);
    known["reference"] = json!("request-1");

    let again = caller("hyperverge", Resend).known(known.clone()).prepared();
    assert_eq!(
        message(&again.request),
        format!("/v1/resendOtp\n{headers}{}", r#"{"mobileNumber":"8144094480","retryType":"text"}"#)
    );
    let rung = caller("hyperverge", Resend).known(known.clone()).payload(json!({"channel": "voice"})).prepared();
    assert_eq!(rung.request.body.reveal(), r#"{"mobileNumber":"8144094480","retryType":"voice"}"#);
    assert!(!rung.retained.contains_key("channel"));

    let verify = caller("hyperverge", Verify).known(known).prepared();
    assert_eq!(
        message(&verify.request),
        format!("/v1/verifyMobileOtp\n{headers}{}", r#"{"mobileNumber":"8144094480","otp":"012345"}"#)
    );
    assert_eq!(verify.reference.as_deref(), Some("request-1"));
    assert_eq!(verify.find_by, FindBy::Recipient);
}

#[test]
fn paytm_sends_with_order_and_token() {
    let prepared = caller("paytm", Send)
        .payload(json!({
            "order_id": "ORD 1/é", "token": "7f0e9307-bcfd-443e-9f70-0b09dec6821c", "mobile": "9876543210",
            "request_timestamp": 1700000000, "auto_read_hash": "h4sh"
        }))
        .defaults(json!({"mid": "MID1"}))
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/aoa-pay-option-service/v2/otp/generate\n? mid=MID1\n? orderId=ORD 1/é\n",
            "Content-Type: application/json\nAccept: application/json\n",
            r#"{"head":{"requestTimeStamp":"1700000000","tokenType":"TXN_TOKEN","#,
            r#""token":"7f0e9307-bcfd-443e-9f70-0b09dec6821c"},"body":{"mobileNumber":"9876543210","#,
            r#""autoReadHash":"h4sh"}}"#
        )
    );
    assert_eq!(prepared.reference.as_deref(), Some("ORD 1/é"));
    assert_eq!(prepared.find_by, FindBy::Reference);
    assert_eq!(
        keep(&prepared),
        json!({
            "mid": "MID1", "order_id": "ORD 1/é", "token": "7f0e9307-bcfd-443e-9f70-0b09dec6821c",
            "mobile": "9876543210", "auto_read_hash": "h4sh"
        })
    );
}

#[test]
fn paytm_verifies_as_in_the_sample() {
    let payload = json!({
        "mid": "M", "orderId": "O", "token": "7f0e9307-bcfd-443e-9f70-0b09dec6821c", "channelId": "web",
        "rememberMe": "true"
    });
    let prepared = caller("paytm", Verify)
        .credentials(&[("username", "u"), ("password", "p")])
        .code("888888")
        .payload(payload)
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/aoa-pay-option-service/v2/otp/verify\n? mid=M\n? orderId=O\n",
            "Content-Type: application/json\nAccept: application/json\nAuthorization: Basic dTpw\n",
            r#"{"head":{"version":"v1","channelId":"WEB","token":"7f0e9307-bcfd-443e-9f70-0b09dec6821c","#,
            r#""tokenType":"TXN_TOKEN"},"body":{"otp":"888888","rememberMe":true}}"#
        )
    );
    // In a flow begun elsewhere the number is unknown; what identifies the flow is kept.
    assert_eq!(prepared.recipient, None);
    assert_eq!(keep(&prepared), json!({"mid": "M", "order_id": "O", "token": "7f0e9307-bcfd-443e-9f70-0b09dec6821c"}));
}

#[test]
fn paytm_resends_and_verifies_from_what_the_send_kept() {
    let sent = caller("paytm", Send)
        .payload(json!({"mid": "M", "order_id": 77, "token": "tok-1234", "mobile": "9876543210"}))
        .prepared();
    let again = caller("paytm", Resend).known(keep(&sent)).prepared();
    assert_eq!(message(&again.request), message(&sent.request));
    let verify = caller("paytm", Verify).known(keep(&sent)).prepared();
    assert_eq!(verify.recipient_masked.as_deref(), Some("+91******3210"));
    assert_eq!(verify.reference.as_deref(), Some("77"));
    assert_eq!(
        verify.request.body.reveal(),
        r#"{"head":{"version":"v1","token":"tok-1234","tokenType":"TXN_TOKEN"},"body":{"otp":"012345"}}"#
    );
}

#[test]
fn relid_generates_a_notification() {
    let prepared = caller("relid", Send)
        .payload(json!({
            "user_id": "alice.doe", "user_type": "loginid",
            "msg": [{
                "message": "Your code is\n$$OTP$$", "subject": "Login", "lng": "English", "label": {"Accept": "Yes"}
            }],
            "notification_msg": {"subject": "Login", "message": "You have a code"},
            "ds_required": "no", "controls": {"otp": {"otp_spec": "N-6", "attempts": "4"}, "jwt": true}
        }))
        .defaults(json!({"enterprise_id": "ACME"}))
        .code_lifetime(300)
        .prepared();
    assert_eq!(
        message(&prepared.request),
        format!(
            concat!(
                "/generateRVN.htm\nAuthorization: Basic cmVsaWQtdXNlcjpyZWxpZC1wYXNz\nContent-Type: application/json\n",
                r#"{{"msg_type":"OTP","msg_id":"{}","enterprise_id":"ACME","user_id":"alice.doe","#,
                r#""user_type":"loginId","expires_in":300,"msg":[{{"lng":"English","subject":"Login","#,
                r#""message":"Your code is\n$$OTP$$","label":{{"Accept":"Yes"}}}}],"#,
                r#""notification_msg":{{"message":"You have a code","subject":"Login"}},"actions":[],"#,
                r#""ds_required":false,"controls":{{"otp":{{"attempts":4,"otp_spec":"N-6"}},"jwt":true}}}}"#
            ),
            VERIFICATION
        )
    );
    assert_eq!(prepared.code_lifetime, Some(Duration::from_secs(300)));
    assert_eq!(prepared.max_checks, Some(4));
    assert_eq!(prepared.recipient, Some(Secret::new("alice.doe")));
    assert_eq!(prepared.recipient_masked.as_deref(), Some("al*****oe"));
    assert_eq!(prepared.find_by, FindBy::Reference);
}

const UUID: &str = "03f67f9e-ec4f-11e6-b006-92361f002671";

#[test]
fn relid_verifies_and_cancels_by_its_reference() {
    for prepared in [
        caller("relid", Verify).known(json!({"reference": UUID, "user_id": "alice.doe"})).prepared(),
        caller("relid", Verify).payload(json!({"notification_uuid": UUID})).prepared(),
    ] {
        assert_eq!(
            message(&prepared.request),
            concat!(
                "/validateOTP.htm\nAuthorization: Basic cmVsaWQtdXNlcjpyZWxpZC1wYXNz\nContent-Type: application/json\n",
                r#"{"notification_uuid":"03f67f9e-ec4f-11e6-b006-92361f002671","otp_value":"012345"}"#
            )
        );
        assert_eq!(prepared.reference.as_deref(), Some(UUID));
    }
    let prepared = caller("relid", Cancel).known(json!({"reference": UUID})).prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/cancelRVN.htm\nAuthorization: Basic cmVsaWQtdXNlcjpyZWxpZC1wYXNz\nContent-Type: application/json\n",
            r#"{"notification_uuid":"03f67f9e-ec4f-11e6-b006-92361f002671"}"#
        )
    );
}

#[test]
fn relid_cancels_before_it_sends_again() {
    let sent = caller("relid", Send)
        .payload(json!({
            "user_id": "alice.doe", "enterprise_id": "E", "msg_id": "m1", "expires_in": 60, "notification_msg": {"subject": "n"},
            "msg": [{"lng": "en", "subject": "s", "message": "$$OTP$$", "label": {}}]
        }))
        .prepared();
    let mut known = keep(&sent);
    known["reference"] = json!(UUID);
    let again = caller("relid", Resend).known(known).prepared();
    let first = again.cancel_first.as_ref().expect("a cancel");
    assert_eq!(first.path.reveal(), "/cancelRVN.htm");
    assert_eq!(first.body.reveal(), format!(r#"{{"notification_uuid":"{UUID}"}}"#));
    // The send has used up its trace id.
    assert_eq!(
        again.request.body.reveal(),
        format!(
            concat!(
                r#"{{"msg_type":"OTP","msg_id":"{}","enterprise_id":"E","user_id":"alice.doe","#,
                r#""expires_in":60,"msg":[{{"lng":"en","subject":"s","message":"$$OTP$$","label":{{}}}}],"#,
                r#""notification_msg":{{"subject":"n"}},"actions":[]}}"#
            ),
            ATTEMPT
        )
    );
    assert!(!again.retained.contains_key("reference"));
    // A send that got no reference left nothing to cancel.
    assert!(caller("relid", Resend).known(keep(&sent)).prepared().cancel_first.is_none());
}

#[test]
fn relid_knows_a_number_by_its_digits_and_a_user_by_the_id() {
    let recipient = |user_id: &str, user_type: &str| {
        let payload = json!({
            "user_id": user_id, "user_type": user_type, "enterprise_id": "E", "expires_in": 60,
            "msg": [{"lng": "en", "subject": "s", "message": "$$OTP$$", "label": {}}], "notification_msg": {"message": "m"}
        });
        let prepared = caller("relid", Send).payload(payload).prepared();
        assert!(prepared.request.body.reveal().contains(&format!(r#""user_id":"{user_id}""#)));
        prepared.recipient.map(|recipient| recipient.reveal().to_owned()).unwrap()
    };
    for spelling in ["918144094480", "+91 81440-94480", "0091 8144094480"] {
        assert_eq!(recipient(spelling, "mobile"), "918144094480");
    }
    assert_eq!(recipient("a-b.c", "userId"), "a-b.c");
    // The vendor's answer may name the number without the country.
    let known = json!({"user_id": "+91 81440-94480"});
    let verify = caller("relid", Verify).known(known).payload(json!({"reference": UUID})).prepared();
    assert_eq!(redact_text(&verify.secrets, "for 8144094480, 0091-81440 94480"), "for [redacted], [redacted]");
}

#[test]
fn relid_authorizes_in_three_ways() {
    let headers = |credentials: &[(&str, &str)]| {
        let prepared = caller("relid", Verify).credentials(credentials).payload(json!({"reference": UUID})).prepared();
        prepared.request.headers.iter().map(|(name, value)| format!("{name}: {}", value.reveal())).collect::<Vec<_>>()
    };
    assert_eq!(
        headers(&[("username", "u"), ("password", "p")]),
        ["Authorization: Basic dTpw", "Content-Type: application/json"]
    );
    assert_eq!(headers(&[("access_token", "abc")]), ["Authorization: Bearer abc", "Content-Type: application/json"]);
    // The HTTP client adds the token that it has fetched.
    assert_eq!(headers(&[("client_id", "u"), ("client_secret", "p")]), ["Content-Type: application/json"]);

    let request = token_request(&Secret::new("u"), &Secret::new("p"));
    assert_eq!(
        message(&request),
        concat!(
            "\nAuthorization: Basic dTpw\nContent-Type: application/x-www-form-urlencoded\n",
            "grant_type=client_credentials&scope=all"
        )
    );
}

#[test]
fn ideamart_requests_with_the_account_in_the_body() {
    let prepared = caller("ideamart", Send)
        .payload(json!({"mobile": "0771234567", "application_hash": "y3b84346f63899a"}))
        .defaults(json!({"metadata": {
            "app_code": "https://play.google.com/store/apps/details?id=lk.dialog.megarunlor", "client": "MOBILEAPP",
            "device": "Samsung S10", "os": "android8"
        }}))
        .prepared();
    assert_eq!(
        message(&prepared.request),
        concat!(
            "/subscription/otp/request\nContent-Type: application/json\n",
            r#"{"applicationId":"APP_001100","password":"idea-pass","subscriberId":"tel:94771234567","#,
            r#""applicationHash":"y3b84346f63899a","applicationMetaData":{"client":"MOBILEAPP","#,
            r#""device":"Samsung S10","os":"android8","#,
            r#""appCode":"https://play.google.com/store/apps/details?id=lk.dialog.megarunlor"}}"#
        )
    );
    assert_eq!(prepared.recipient, Some(Secret::new("+94771234567")));
    assert_eq!(prepared.recipient_masked.as_deref(), Some("+94*****4567"));
    assert_eq!(keep(&prepared), json!({"mobile": "tel:94771234567"}));
}

#[test]
fn ideamart_traces_each_request_by_an_id_of_its_own() {
    let body = |id: &str| {
        format!(
            concat!(
                r#"{{"applicationId":"APP_001100","password":"idea-pass","subscriberId":"tel:94771234567","#,
                r#""applicationHash":"{}"}}"#
            ),
            id
        )
    };
    let sent = caller("ideamart", Send).payload(json!({"subscriberId": "tel:94771234567"})).prepared();
    assert_eq!(sent.request.body.reveal(), body(VERIFICATION));
    let again = caller("ideamart", Resend).known(keep(&sent)).prepared();
    assert_eq!(again.request.body.reveal(), body(ATTEMPT));
}

#[test]
fn ideamart_verifies() {
    let reference = "3b84346f63899a32ec742a676532ec74dffe4f5";
    let known = json!({"mobile": "tel:94771234567", "reference": reference});
    let ours = caller("ideamart", Verify).code("123564").known(known).prepared();
    let elsewhere = caller("ideamart", Verify).code("123564").payload(json!({"referenceNo": reference})).prepared();
    for prepared in [&ours, &elsewhere] {
        assert_eq!(
            message(&prepared.request),
            concat!(
                "/subscription/otp/verify\nContent-Type: application/json\n",
                r#"{"applicationId":"APP_001100","password":"idea-pass","#,
                r#""referenceNo":"3b84346f63899a32ec742a676532ec74dffe4f5","otp":"123564"}"#
            )
        );
        assert_eq!(prepared.reference.as_deref(), Some(reference));
        assert_eq!(prepared.find_by, FindBy::Reference);
    }
    assert_eq!(ours.recipient, Some(Secret::new("+94771234567")));
    assert_eq!(elsewhere.recipient, None);
    assert_eq!(keep(&elsewhere), json!({"reference": reference}));
}

const SID: &str = "VE0123456789abcdef0123456789abcdef";

/// Returns a message as every form of Twilio's begins.
fn twilio(path: &str, body: &str) -> String {
    format!(
        "/v2/Services/{SERVICE}/{path}\nAuthorization: Basic U0sta2V5OnR3aWxpby1zZWNyZXQ=\n\
         Content-Type: application/x-www-form-urlencoded\n{body}"
    )
}

#[test]
fn twilio_sends_a_form_to_a_number() {
    let prepared = caller("twilio", Send).payload(json!({"mobile": "077 123 4567"})).prepared();
    assert_eq!(message(&prepared.request), twilio("Verifications", "To=%2B94771234567&Channel=sms"));
    assert_eq!(prepared.recipient, Some(Secret::new("+94771234567")));
    assert_eq!(prepared.recipient_masked.as_deref(), Some("+94*****4567"));
    assert_eq!((prepared.reference.as_deref(), prepared.find_by), (None, FindBy::Reference));
    assert_eq!(keep(&prepared), json!({"mobile": "+94771234567"}));
    let prepared = caller("twilio", Send)
        .payload(json!({
            "To": "+442079460958", "channel": "voice", "locale": "en-GB", "template_id": format!("HJ{}", "0a".repeat(16)),
            "substitutions": {"name": "Ann & Bob"}, "friendly_name": "Our Bank", "send_digits": "ww1", "app_hash": "FA+9qCX9VSu",
            "device_ip": "2001:db8::1", "rate_limits": {"user": "17"}, "channel_configuration": {"from": "a"},
            "risk_check": "Disable", "tags": {"a": "ü"}, "amount": 39, "payee": "A Shop", "extra": {"Later": [1]}
        }))
        .credentials(&[("account_sid", "AC-sid"), ("auth_token", "token")])
        .prepared();
    let body = concat!(
        "To=%2B442079460958&Channel=call&Locale=en-GB&TemplateSid=HJ0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
        "&TemplateCustomSubstitutions=%7B%22name%22%3A%22Ann%20%26%20Bob%22%7D&CustomFriendlyName=Our%20Bank&SendDigits=ww1",
        "&AppHash=FA%2B9qCX9VSu&DeviceIp=2001%3Adb8%3A%3A1&RateLimits=%7B%22user%22%3A%2217%22%7D",
        "&ChannelConfiguration=%7B%22from%22%3A%22a%22%7D&RiskCheck=disable&Tags=%7B%22a%22%3A%22%C3%BC%22%7D",
        "&Amount=39&Payee=A%20Shop&Later=%5B1%5D"
    );
    let headers = twilio("Verifications", body).replace("U0sta2V5OnR3aWxpby1zZWNyZXQ=", "QUMtc2lkOnRva2Vu");
    assert_eq!(message(&prepared.request), headers);
}

#[test]
fn twilio_sends_to_an_address_in_any_case_of_its_domain() {
    for typed in ["asha.rao@example.org", "asha.rao@Example.ORG"] {
        for channel in [json!({}), json!({"channel": "EMAIL"})] {
            let mut payload = channel.clone();
            payload["mobile"] = json!(typed);
            let prepared = caller("twilio", Send).payload(payload).prepared();
            assert_eq!(message(&prepared.request), twilio("Verifications", "To=asha.rao%40example.org&Channel=email"));
            assert_eq!(prepared.recipient, Some(Secret::new("asha.rao@example.org")));
            assert_eq!(prepared.recipient_masked.as_deref(), Some("a***@example.org"));
            assert_eq!(keep(&prepared)["mobile"], "asha.rao@example.org");
            let told = redact_text(&prepared.secrets, "sent to ASHA.RAO@example.org, asha.rao%40Example.org");
            assert_eq!(told, "sent to [redacted], [redacted]");
        }
    }
}

#[test]
fn a_way_that_is_the_house_rule_for_numbers_is_none_for_addresses() {
    for (default, to, way) in [
        ("whatsapp", "asha@example.org", "To=asha%40example.org&Channel=email"),
        ("whatsapp", "+94771234567", "To=%2B94771234567&Channel=whatsapp"),
        ("email", "+94771234567", "To=%2B94771234567&Channel=sms"),
        ("email", "asha@example.org", "To=asha%40example.org&Channel=email"),
    ] {
        let call = caller("twilio", Send).payload(json!({"mobile": to})).defaults(json!({"channel": default}));
        assert_eq!(message(&call.prepared().request), twilio("Verifications", way));
    }
    // A caller who names the channel means it: it is refused, not ignored.
    let named = caller("twilio", Send).payload(json!({"mobile": "asha@example.org", "Channel": "sms"})).refused();
    assert_eq!(named.field, "channel");
    let known = json!({"mobile": "asha@example.org", "channel": "email"});
    let again = caller("twilio", Resend).known(known).payload(json!({"channel": "voice"})).refused();
    assert_eq!(again.field, "channel");
}

#[test]
fn twilio_sends_again_by_the_same_call_and_may_change_the_way() {
    let sent = caller("twilio", Send).payload(json!({"mobile": "+94771234567", "channel": "whatsapp", "locale": "si"}));
    let sent = sent.prepared();
    assert!(!sent.keeps_code);
    let mut known = keep(&sent);
    known["reference"] = json!(SID);
    let again = caller("twilio", Resend).known(known.clone()).prepared();
    assert_eq!(message(&again.request), twilio("Verifications", "To=%2B94771234567&Channel=whatsapp&Locale=si"));
    assert!(again.keeps_code && !again.retained.contains_key("reference"));
    let rung = caller("twilio", Resend).known(known).payload(json!({"channel": "voice"})).prepared();
    assert_eq!(message(&rung.request), twilio("Verifications", "To=%2B94771234567&Channel=call&Locale=si"));
    assert_eq!(keep(&rung)["channel"], "call");
}

#[test]
fn twilio_verifies_by_reference_or_by_recipient_and_never_by_both() {
    let known =
        json!({"mobile": "+94771234567", "reference": SID, "amount": "39", "payee": "A Shop", "channel": "sms"});
    let ours = caller("twilio", Verify).known(known).prepared();
    let body = format!("VerificationSid={SID}&Amount=39&Payee=A%20Shop&Code=012345");
    assert_eq!(message(&ours.request), twilio("VerificationCheck", &body));
    assert_eq!((ours.reference.as_deref(), ours.find_by), (Some(SID), FindBy::Reference));
    assert_eq!(ours.recipient, Some(Secret::new("+94771234567")));
    let elsewhere = caller("twilio", Verify).payload(json!({"mobile": "0771234567"})).prepared();
    assert_eq!(message(&elsewhere.request), twilio("VerificationCheck", "To=%2B94771234567&Code=012345"));
    assert_eq!((elsewhere.reference.as_deref(), elsewhere.find_by), (None, FindBy::Recipient));
    let both = caller("twilio", Verify).payload(json!({"VerificationSid": SID, "To": "a@example.org"})).prepared();
    assert_eq!(message(&both.request), twilio("VerificationCheck", &format!("VerificationSid={SID}&Code=012345")));
    assert_eq!(both.recipient_masked.as_deref(), Some("***@example.org"));
}

#[test]
fn twilio_cancels_by_a_sid_that_stays_one_segment_of_the_path() {
    let prepared = caller("twilio", Cancel).known(json!({"reference": SID, "mobile": "+94771234567"})).prepared();
    assert_eq!(message(&prepared.request), twilio(&format!("Verifications/{SID}"), "Status=canceled"));
    // A reference that the vendor gave is passed on, whatever stands in it, as one segment of the path.
    let prepared = caller("twilio", Cancel).known(json!({"reference": "../../x?a=b"})).prepared();
    assert!(message(&prepared.request).contains("/Verifications/..%2F..%2Fx%3Fa%3Db\n"));
    assert_eq!(caller("twilio", Cancel).known(json!({"reference": ".."})).refused().field, "reference");
}

#[test]
fn twilio_asks_for_the_id_of_a_service() {
    let check = by_name("twilio").unwrap().server_options[0].check;
    assert!(check(SERVICE).is_ok() && check(&SERVICE.replace('a', "F")).is_ok());
    for wrong in
        ["", "VA", "VA123", &SERVICE.replace("VA", "AC"), &format!("{SERVICE}0"), &SERVICE.replace('a', "g"), "VA/../x"]
    {
        assert_eq!(check(wrong).unwrap_err().field, "service_sid", "{wrong}");
    }
}

const MSG91: &str = "authkey: msg91-key\nAccept: application/json\n";

#[test]
fn msg91_sends_json_and_verifies_by_a_form() {
    let sent = caller("msg91", Send)
        .payload(json!({
            "mobile": "+91 98765-43210", "otp_length": "6", "otp_expiry": 10, "email": "asha@EXAMPLE.org", "userip": "192.168.1.1",
            "unicode": 1, "real_time_response": "1", "sender": "OURSHP", "channel": "SMS", "variables": {"name": "Asha", "n": 2},
            "extra": {"later": true}
        }))
        .defaults(json!({"template_id": "0123456789abcdef01234567"}))
        .prepared();
    assert_eq!(
        message(&sent.request),
        format!(
            "/api/v5/otp\n{MSG91}Content-Type: application/json\n{}",
            concat!(
                r#"{"mobile":"919876543210","template_id":"0123456789abcdef01234567","otp_length":6,"otp_expiry":10,"#,
                r#""sender":"OURSHP","email":"asha@example.org","userip":"192.168.1.1","unicode":1,"realTimeResponse":1,"#,
                r#""name":"Asha","n":2,"later":true}"#
            )
        )
    );
    assert_eq!(sent.recipient, Some(Secret::new("+919876543210")));
    assert_eq!(sent.recipient_masked.as_deref(), Some("+91******3210"));
    assert_eq!((sent.find_by, sent.code_lifetime), (FindBy::Recipient, Some(Duration::from_secs(600))));
    let told = redact_text(&sent.secrets, "Asha, 98765 43210, asha@example.org, msg91-key");
    assert_eq!(told, "[redacted], [redacted], [redacted], [redacted]");

    let known = keep(&sent);
    let ours = caller("msg91", Verify).known(known.clone()).prepared();
    let elsewhere = caller("msg91", Verify).payload(json!({"mobile": "919876543210"})).prepared();
    for prepared in [&ours, &elsewhere] {
        let form = "Content-Type: application/x-www-form-urlencoded\nmobile=919876543210&otp=012345";
        assert_eq!(message(&prepared.request), format!("/api/v5/otp/verify\n{MSG91}{form}"));
        assert_eq!(prepared.recipient, Some(Secret::new("+919876543210")));
    }
    for (payload, kind) in
        [(json!({}), "text"), (json!({"channel": "voice"}), "voice"), (json!({"retrytype": "text"}), "text")]
    {
        let again = caller("msg91", Resend).known(known.clone()).payload(payload).prepared();
        let form = format!("Content-Type: application/x-www-form-urlencoded\nmobile=919876543210&retrytype={kind}");
        assert_eq!(message(&again.request), format!("/api/v5/otp/retry\n{MSG91}{form}"));
        assert!(again.keeps_code && again.retained.get("channel") == known.get("channel"));
    }
}

#[test]
fn msg91_takes_a_number_of_any_country_and_keeps_it_whole() {
    // Ten digits after a + may begin with another country's code of two digits: no Indian number.
    for (typed, digits) in
        [("+65 9123 4567", "6591234567"), ("+442079460958", "442079460958"), ("0771234567", "94771234567")]
    {
        let payload = json!({"mobile": typed, "template_id": "t"});
        let sent = caller("msg91", Send).payload(payload).prepared();
        assert_eq!(body(&sent.request)["mobile"], digits);
        let verify = caller("msg91", Verify).known(keep(&sent)).prepared();
        assert_eq!(body(&verify.request)["mobile"], digits);
        assert_eq!(verify.recipient, sent.recipient);
    }
}

#[test]
fn the_way_of_a_code_has_the_same_name_everywhere() {
    // The vendor's word for sms and for voice: HyperVerge says text, and Twilio call.
    let known = json!({"mobile": "9876543210"});
    let way = |vendor: &str, word: &str| {
        let prepared = caller(vendor, Resend).known(known.clone()).payload(json!({"channel": word})).prepared();
        let body = body(&prepared.request);
        ["retryType", "Channel", "retrytype"].iter().find_map(|name| body[name].as_str().map(str::to_owned)).unwrap()
    };
    for (vendor, word, wire) in [
        ("hyperverge", "sms", "text"),
        ("hyperverge", "Voice", "voice"),
        ("hyperverge", "text", "text"),
        ("twilio", "sms", "sms"),
        ("twilio", "voice", "call"),
        ("twilio", "call", "call"),
        ("twilio", "whatsapp", "whatsapp"),
        ("twilio", "auto", "auto"),
        ("msg91", "sms", "text"),
        ("msg91", "voice", "voice"),
    ] {
        assert_eq!(way(vendor, word), wire, "{vendor} {word}");
    }
    for (vendor, operation, word, rule) in [
        ("hyperverge", Resend, "whatsapp", "channel: one of sms, voice"),
        ("twilio", Send, "sna", "channel: one of sms, voice, whatsapp, email, auto"),
        ("twilio", Resend, "fax", "channel: one of sms, voice, whatsapp, email, auto"),
        ("msg91", Send, "voice", "channel: only sms"),
        ("msg91", Resend, "email", "channel: one of sms, voice"),
    ] {
        let payload = json!({"mobile": "9876543210", "template_id": SID, "channel": word});
        let mut payload = caller::members(payload);
        let takes = |name: &str| {
            by_name(vendor)
                .and_then(|dialect| (dialect.fields)(operation))
                .unwrap()
                .iter()
                .any(|field| field.name == name)
        };
        payload.retain(|name, _| takes(name));
        let invalid = caller(vendor, operation).payload(payload.into()).refused();
        assert_eq!((invalid.field.as_str(), invalid.hint.as_str()), ("channel", rule), "{vendor}");
    }
}

#[test]
fn a_vendor_without_a_cancel_says_so() {
    let without = caller::VENDORS.iter().filter(|(_, dialect)| dialect.fields(Cancel).is_none());
    let names: Vec<&str> = without.map(|(vendor, _)| *vendor).collect();
    assert_eq!(names, ["iserveu", "hyperverge", "paytm", "ideamart", "msg91"], "the pages of these have none");
    for vendor in names {
        let invalid = caller(vendor, Cancel).refused();
        assert_eq!(invalid.message, format!("{vendor} has no cancel"));
        let hint =
            "A code that was sent stays good until expires_at, or until it is approved; a queued send can be canceled.";
        assert_eq!(invalid.hint, format!("{vendor} has: send, verify, resend. {hint}"));
    }
}

#[test]
fn a_code_goes_out_as_it_was_read() {
    for code in ["000000", "0123", "aB9x", "1 2", "\"\\", "12345678901234567890"] {
        let prepared = caller("relid", Verify).code(code).payload(json!({"reference": UUID})).prepared();
        let body: serde_json::Value = serde_json::from_str(prepared.request.body.reveal()).unwrap();
        assert_eq!(body["otp_value"], code);
    }
}

/// The credentials that a dialect declares for headers are those that its messages have there.
#[test]
fn credentials_in_headers_are_declared() {
    let payload = |vendor: &str| match vendor {
        "iserveu" => {
            json!({"mobile": "9876543210", "otp_type": "1", "username": "u", "ovd_type": "Aadhaar Card", "ovd_data": "234123412346"})
        }
        "hyperverge" => json!({"mobile": "9876543210", "template_id": "t"}),
        "paytm" => json!({"mid": "M", "order_id": "o", "token": "t", "mobile": "9876543210"}),
        "relid" => {
            json!({"user_id": "u", "enterprise_id": "E", "expires_in": 60, "notification_msg": {"subject": "s", "message": "m"},
            "msg": [{"lng": "English", "subject": "s", "message": "Your code is $$OTP$$", "label": {}}]})
        }
        "msg91" => json!({"mobile": "9876543210", "template_id": "t"}),
        "vonage" => json!({"mobile": "+94771234567", "brand": "B"}),
        _ => json!({"mobile": "+94771234567"}),
    };
    for (vendor, dialect) in caller::VENDORS.iter() {
        for set in dialect.credential_sets() {
            let canaries: Vec<String> = set.iter().map(|name| format!("canary-{name}")).collect();
            let credentials: Vec<(&str, &str)> =
                set.iter().zip(&canaries).map(|(name, canary)| (*name, canary.as_str())).collect();
            let fields: Vec<&str> = dialect.fields(Send).unwrap_or_default().iter().map(|field| field.name).collect();
            let mut payload = caller::members(payload(vendor));
            payload.retain(|name, _| fields.contains(&name.as_str()));
            let prepared = caller(vendor, Send).payload(payload.into()).credentials(&credentials).prepared();
            let headers: String =
                prepared.request.headers.iter().map(|(_, value)| format!("{}\n", value.reveal())).collect();
            for (name, canary) in credentials {
                let is_declared = dialect.header_credentials.contains(&name);
                assert_eq!(headers.contains(canary), is_declared, "{vendor}: {name}");
                assert_eq!(dialect.can_send(name, "two\nlines"), !is_declared, "{vendor}: {name}");
                assert!(dialect.can_send(name, "with a space"), "{vendor}: {name}");
            }
        }
    }
}
