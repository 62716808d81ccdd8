//! Promise: a payload is taken in every form that its vendor's page or ours names, and refused with the field, its rule
//! and what to do; and no refusal ever shows a value, because it ends in a server log.

mod caller;

use caller::{Caller, body, caller, keep, members, message};
use dialect::{DIALECTS, Field, Invalid, Operation, Operation::*, Rule, by_name, check_defaults};
use serde_json::{Map, Value, json};

/// A complete payload for each table of each vendor.
fn good(vendor: &str, operation: Operation, variant: u8) -> Value {
    match (vendor, operation, variant) {
        ("iserveu", Send | Resend, 1) => json!({
            "mobile": "8144094480", "otp_type": "1", "username": "u", "ovd_type": "Aadhaar Card",
            "ovd_data": "765386439745"
        }),
        ("iserveu", Send | Resend, _) => json!({
            "mobile": "8144094480", "otp_type": "2", "username": "u", "reference": "1432452", "amount": "1001"
        }),
        ("iserveu", _, 1) => json!({
            "mobile": "8144094480", "otp_type": "1", "username": "u", "name": "A", "lat_long": "1.5,2.5",
            "public_ip": "192.168.1.1"
        }),
        ("iserveu", _, _) => json!({
            "otp_type": "2", "reference": "1432452", "account_number": "1234567890", "bene_bank_name": "SBI",
            "bene_mobile": "9876543210", "bene_name": "B", "bank_code": "SBIN", "bene_ifsc_code": "SBIN0000001",
            "transaction_mode": "IMPS", "customer_name": "A", "mobile": "8144094480", "pincode": "751024",
            "address": "B", "is_hold_transaction": false, "username": "u", "lat_long": "1.5,2.5",
            "customer_ip": "192.168.1.1"
        }),
        ("hyperverge", Send, _) => json!({"mobile": "8144094480", "template_id": "T1"}),
        ("hyperverge", ..) => json!({"mobile": "8144094480"}),
        ("paytm", Send | Resend, _) => {
            json!({"mid": "M", "order_id": "O", "token": "tok-1", "mobile": "8144094480"})
        }
        ("paytm", ..) => json!({"mid": "M", "order_id": "O", "token": "tok-1"}),
        ("relid", Send | Resend, _) => {
            json!({
                "user_id": "alice.doe", "enterprise_id": "E", "expires_in": 60, "msg": [relid_msg("$$OTP$$")],
                "notification_msg": {"subject": "s", "message": "m"}
            })
        }
        ("relid", ..) => json!({"reference": "03f67f9e-ec4f-11e6-b006-92361f002671"}),
        ("msg91", Send, _) => json!({"mobile": "0771234567", "template_id": "0123456789abcdef01234567"}),
        ("msg91", ..) => json!({"mobile": "0771234567"}),
        ("twilio", Verify | Cancel, _) => json!({"reference": "VE0123456789abcdef0123456789abcdef"}),
        (_, Send | Resend, _) => json!({"mobile": "0771234567"}),
        _ => json!({"reference": "3b84346f63899a32"}),
    }
}

/// Returns every vendor, operation and variant.
fn calls() -> Vec<(&'static str, Operation, u8)> {
    let mut calls = Vec::new();
    for dialect in DIALECTS {
        for operation in Operation::ALL {
            if (dialect.fields)(operation).is_some() {
                calls.push((dialect.name, operation, 1));
                if dialect.name == "iserveu" {
                    calls.push((dialect.name, operation, 2));
                }
            }
        }
    }
    calls
}

fn with(mut payload: Value, key: &str, value: Value) -> Value {
    payload[key] = value;
    payload
}

fn without(payload: Value, key: &str) -> Value {
    let mut members = members(payload);
    members.shift_remove(key);
    Value::Object(members)
}

fn relid_msg(message: impl Into<Value>) -> Value {
    json!({"lng": "English", "subject": "s", "message": message.into(), "label": {}})
}

fn call(vendor: &str, operation: Operation, payload: Value) -> Caller {
    caller(vendor, operation).payload(payload)
}

/// Returns the field of a payload member, from the table of the variant whose call takes it.
fn field_of(vendor: &str, operation: Operation, name: &str, variant: u8) -> &'static Field {
    let fields = (by_name(vendor).unwrap().fields)(operation).unwrap();
    let mut called = fields.into_iter().filter(|field| field.name == name);
    let first = called.next().expect("a field");
    if variant == 2 { called.next_back().unwrap_or(first) } else { first }
}

#[test]
fn our_names_and_the_vendors_own_make_the_same_message() {
    for (vendor, operation, variant) in calls() {
        let ours = good(vendor, operation, variant);
        let mut theirs = Map::new();
        for (name, value) in members(ours.clone()) {
            theirs.insert(field_of(vendor, operation, &name, variant).wire.into(), value);
        }
        let ours = call(vendor, operation, ours).prepared();
        let theirs = call(vendor, operation, Value::Object(theirs)).prepared();
        assert_eq!(message(&ours.request), message(&theirs.request));
        assert_eq!(keep(&ours), keep(&theirs));
    }
}

#[test]
fn a_vendors_name_means_one_field_everywhere() {
    for dialect in DIALECTS {
        let fields: Vec<&Field> = Operation::ALL.into_iter().filter_map(dialect.fields).flatten().collect();
        for one in &fields {
            for other in &fields {
                let clash = one.name != other.name && (one.wire == other.wire || one.name == other.wire);
                assert!(!clash, "{}: {} and {}", dialect.name, one.name, other.name);
            }
        }
    }
}

#[test]
fn a_field_under_both_names_is_refused() {
    for (vendor, operation, variant) in calls() {
        let payload = good(vendor, operation, variant);
        for (name, value) in members(payload.clone()) {
            let wire = field_of(vendor, operation, &name, variant).wire;
            if wire != name {
                let invalid = call(vendor, operation, with(payload.clone(), wire, value)).refused();
                assert_eq!(invalid.field, name);
                assert_eq!(invalid.message, format!("{name} is given twice, as {name} and as {wire}"));
            }
        }
    }
}

#[test]
fn what_a_call_needs_is_asked_for_by_name() {
    for (vendor, operation, variant) in calls() {
        let payload = good(vendor, operation, variant);
        for name in members(payload.clone()).keys() {
            let invalid = call(vendor, operation, without(payload.clone(), name)).refused();
            assert_eq!(&invalid.field, name);
            assert!(invalid.message.starts_with(&format!("{name} ")), "{invalid:?}");
            assert!(!invalid.hint.is_empty());
        }
    }
}

#[test]
fn one_error_names_all_that_is_missing_or_wrong() {
    for (vendor, operation, variant) in calls() {
        let mut payload = members(good(vendor, operation, variant));
        let names: Vec<String> = payload.keys().filter(|name| *name != "otp_type").cloned().collect();
        for (number, (name, value)) in (0..).zip(payload.iter_mut()) {
            match (name.as_str(), number % 2) {
                ("otp_type", _) => {}
                (_, 0) => *value = json!({CANARY: CANARY}),
                _ => *value = Value::Null,
            }
        }
        payload.insert("colour".into(), json!(CANARY));
        let broken = call(vendor, operation, Value::Object(payload.clone())).refused();
        assert_clean(&broken, CANARY);
        payload.retain(|name, _| ["otp_type", "colour"].contains(&name.as_str()));
        let missing = call(vendor, operation, Value::Object(payload)).refused();
        for invalid in [&broken, &missing] {
            let named: Vec<&String> = std::iter::once(&invalid.field).chain(&invalid.blame.others).collect();
            assert!(invalid.message.contains("colour") && named[0] == "colour", "{invalid:?}");
            for name in names.iter().take(12) {
                let is_needed =
                    (vendor, operation) != ("sandbox", Verify) && (vendor, operation) != ("sandbox", Cancel);
                let said = invalid.message.contains(&format!("; {name} ")) && named.contains(&name);
                assert!(said || !is_needed && invalid == &missing, "{vendor} {name}: {invalid:?}");
            }
        }
    }
    // Several faults are told at once also within one field, and where fields depend on each other.
    for (vendor, operation, payload, wanted) in [
        (
            "relid",
            Send,
            json!({
                "msg": [{"subjekt": "x"}, {"message": 1, "lng": ""}], "notification_msg": {"x": 1}, "user_type": "x"
            }),
            &[
                "enterprise_id",
                "user_id",
                "msg[0].message",
                "msg[0].subjekt",
                "msg[1].message",
                "msg[1].lng",
                "user_type",
            ][..],
        ),
        ("relid", Send, json!({"msg": [], "user_type": "x"}), &["msg has no message", "user_type", "user_id"]),
        ("hyperverge", Send, json!({"time": "10"}), &["template_id", "mobile", "time_format is missing"]),
        ("twilio", Send, json!({"amount": "5", "channel": "fax"}), &["mobile", "channel does not", "payee is missing"]),
        (
            "twilio",
            Send,
            json!({"mobile": "a@example.org", "channel": "sms", "locale": 1}),
            &["channel does not go", "locale"],
        ),
        ("twilio", Verify, json!({"amount": {}}), &["amount", "reference is missing, and mobile too"]),
        (
            "msg91",
            Send,
            json!({"variables": {"otp": "1", "mobile": "x", "authkey": "x"}}),
            &[
                "template_id",
                "otp does not belong in variables",
                "variables.mobile would go over",
                "variables.authkey would",
            ],
        ),
        ("hyperverge", Send, json!({"time": "10", "time_format": 1}), &["template_id", "time_format does not"]),
        ("ideamart", Send, json!({"metadata": {"os": 1, "colour": 1}}), &["mobile", "metadata.os", "metadata.colour"]),
        ("iserveu", Send, json!({}), &["mobile", "username", "otp_type"]),
        (
            "iserveu",
            Verify,
            json!({"name": 1, "lat_long": "x", "otp_type": "3"}),
            &["mobile", "username", "otp_type", "lat_long"],
        ),
        (
            "iserveu",
            Resend,
            json!({"otp_type": 2}),
            &["mobile", "username", "amount", "reference is missing: a new code"],
        ),
        (
            "ideamart",
            Send,
            json!({"extra": {"password": "x", "otp": "1", "subscriberId": "x"}}),
            &["mobile", "extra.password", "otp does not belong in extra", "extra.subscriberId"],
        ),
    ] {
        let invalid = call(vendor, operation, payload).refused();
        for words in wanted {
            assert!(invalid.message.contains(words), "{words}: {invalid:?}");
        }
        assert_eq!(invalid.message.split("; ").count(), 1 + invalid.blame.others.len());
    }
    // A misspelt name is one fault.
    let slip = call("ideamart", Send, json!({"moblie": "0771234567"})).refused();
    assert_eq!((slip.field.as_str(), slip.blame.others.len()), ("moblie", 0));
    // A field that only one variant needs is not reported while the variant is unknown.
    assert!(!call("iserveu", Send, json!({})).refused().message.contains("ovd_data"));
    let many: Map<String, Value> = (0..1000).map(|number| (format!("f{number}"), json!(1))).collect();
    let invalid = call("ideamart", Send, Value::Object(many)).refused();
    assert!(invalid.message.ends_with("; and 985 more") && invalid.message.len() < 1000, "{invalid:?}");
    let wrong = json!({"otp_length": 3, "otp_expiry": 0, "mobile": "x", "colour": 1, "extra": {"otp": 1}});
    let invalid = check_defaults(by_name("hyperverge").unwrap(), &members(wrong)).unwrap_err();
    assert_eq!(
        (invalid.field.as_str(), invalid.blame.others),
        ("otp_length", ["otp_expiry", "mobile", "colour", "otp"].map(String::from).to_vec())
    );
}

#[test]
fn an_unknown_field_names_the_nearest() {
    for (key, near) in [("moblie", "mobile"), ("templateID", "template_id"), ("otp_lenght", "otp_length")] {
        let payload = with(good("hyperverge", Send, 1), key, json!("canary-7"));
        let invalid = call("hyperverge", Send, payload).refused();
        assert_eq!(invalid.field, key);
        assert_eq!(invalid.message, format!("a send through hyperverge has no field {key}"));
        assert!(
            invalid.hint.starts_with(&format!("did you mean {near}? it takes: template_id, mobile")),
            "{invalid:?}"
        );
    }
    let invalid = call("ideamart", Send, with(good("ideamart", Send, 1), "colour", json!(1))).refused();
    assert_eq!(invalid.hint, "it takes: mobile, application_hash, metadata, channel, extra");
}

#[test]
fn a_field_of_another_call_says_where_it_belongs() {
    for (vendor, operation, payload, says) in [
        ("hyperverge", Verify, json!({"mobile": "8144094480", "template_id": "T"}), "template_id is a field of: send;"),
        ("hyperverge", Verify, json!({"channel": "voice"}), "channel is a field of: send, resend;"),
        ("paytm", Verify, json!({"mobileNumber": "8144094480"}), "mobileNumber is a field of: send, resend;"),
        ("ideamart", Resend, json!({"reference": "x"}), "reference is a field of: verify;"),
        ("relid", Verify, json!({"user_id": "x"}), "user_id is a field of: send, resend;"),
    ] {
        let invalid = call(vendor, operation, payload).refused();
        assert!(invalid.message.contains("does not belong to a "), "{invalid:?}");
        assert!(invalid.hint.starts_with(says), "{invalid:?}");
    }
    let invalid = call("iserveu", Verify, with(good("iserveu", Verify, 1), "account_number", json!("1"))).refused();
    assert_eq!(invalid.message, "account_number does not belong to a verify of otp_type 1 through iserveu");
    // Defaults serve all calls: a default that this call does not take is ignored.
    caller("hyperverge", Verify)
        .payload(json!({"mobile": "8144094480"}))
        .defaults(json!({"template_id": "T", "otpLength": 6, "channel": "text"}))
        .prepared();
}

#[test]
fn who_sends_by_sms_alone_says_so_and_puts_nothing_on_the_wire() {
    for (vendor, variant) in [("iserveu", 1), ("iserveu", 2), ("hyperverge", 1), ("paytm", 1), ("ideamart", 1)] {
        let plain = call(vendor, Send, good(vendor, Send, variant)).prepared();
        for word in ["sms", "SMS"] {
            let by_sms = call(vendor, Send, with(good(vendor, Send, variant), "channel", json!(word))).prepared();
            assert_eq!(by_sms.request.body.reveal(), plain.request.body.reveal());
            assert_eq!(
                (by_sms.request.path, by_sms.request.query),
                (plain.request.path.clone(), plain.request.query.clone())
            );
        }
        for word in [json!("voice"), json!("whatsapp"), json!("email"), json!(""), json!(1)] {
            let refused = call(vendor, Send, with(good(vendor, Send, variant), "channel", word)).refused();
            assert_eq!((refused.field.as_str(), refused.hint.as_str()), ("channel", "channel: only sms"), "{vendor}");
        }
        check_defaults(by_name(vendor).unwrap(), &members(json!({"channel": "sms"}))).unwrap();
    }
}

#[test]
fn what_a_person_types_is_the_recipient_of_a_send() {
    let numbers = [
        "8144094480",
        "+918144094480",
        "+91 81440 94480",
        "91-8144094480",
        "918144094480",
        "00918144094480",
        "08144094480",
        "81440-94480",
        "9198765432",
        "814409448",
        "81440944801",
        "8144094480 ",
        " 8144094480",
        "81440--94480",
        "814409448O",
        "८१४४०९४४८०",
        "tel:94771234567",
        "+94771234567",
        "94771234567",
        "0094771234567",
        "0771234567",
        "771234567",
        "077 123 4567",
        "+94-77-123-4567",
        "tel:all",
        "tel:0771234567",
        "+940771234567",
        "0112345678",
        "+44 20 7946 0958",
        "+44-2079460958",
        "(020) 7946.0958",
        "+12345678",
        "+1234567",
        "+1234567890123456",
        "asha@example.org",
        "asha@EXAMPLE.org",
        "Asha.Rao+otp@mail.example.org",
        "asha@localhost",
        "asha@example.org, b@example.org",
        "alice.doe",
        "a-b.c",
        "2024-17",
        "+1-2",
        "00",
        "",
        " ",
        "a\nb",
        "x\u{0}",
    ];
    for dialect in DIALECTS.iter().filter(|dialect| dialect.name != "rest") {
        let variants: &[(&str, &str)] = match dialect.name {
            "iserveu" => &[("otp_type", "1"), ("otp_type", "2")],
            "relid" => &[("user_type", "mobile"), ("user_type", "userId"), ("user_type", "loginId")],
            _ => &[("", "")],
        };
        let field = dialect.recipient_field().name;
        let mut taken = 0;
        for typed in numbers {
            let typed_form = (dialect.recipient)(typed);
            for (number, (name, value)) in (1..).zip(variants) {
                let mut payload = with(good(dialect.name, Send, number), field, json!(typed));
                if !name.is_empty() {
                    payload[*name] = json!(value);
                }
                match call(dialect.name, Send, payload).prepare() {
                    Ok(prepared) => assert_eq!(prepared.recipient, typed_form, "{} {typed:?}", dialect.name),
                    Err(invalid) => {
                        assert_eq!(invalid.field, field);
                        assert_eq!(typed_form, None, "{} {typed:?}", dialect.name);
                    }
                }
            }
            taken += usize::from(typed_form.is_some());
        }
        assert!((8..numbers.len()).contains(&taken), "{} takes {taken}", dialect.name);
    }
}

#[test]
fn a_code_is_never_a_field() {
    for (vendor, operation, variant) in calls() {
        for key in ["otp", "otp_value", "OTP", "otpValue", "code"] {
            let invalid =
                call(vendor, operation, with(good(vendor, operation, variant), key, json!("918273"))).refused();
            assert!(invalid.hint.contains("the argument otp"), "{invalid:?}");
            assert_clean(&invalid, "918273");
        }
    }
}

#[test]
fn each_vendors_codes_are_what_its_page_shows() {
    for dialect in DIALECTS {
        let read = |typed: &str| dialect.code.read(typed).map(|code| code.reveal().to_owned());
        for typed in ["", "   ", "\u{200b}", "\0", &"1".repeat(65)] {
            assert_eq!(read(typed), None, "{} {typed:?}", dialect.name);
        }
        let is_number = dialect.name != "relid";
        assert_eq!(read(" १२३-४५६\n").unwrap(), if is_number { "123456" } else { "123-456" }, "{}", dialect.name);
        let is_only_number = matches!(dialect.name, "hyperverge" | "msg91");
        assert_eq!(read("12b456").is_none(), is_only_number, "{}: has it only digits? This list says so", dialect.name);
    }
}

#[test]
fn payload_outweighs_the_verification_and_that_the_defaults() {
    let body = |caller: Caller| caller.prepared().request.body.reveal().to_owned();
    let send =
        || call("hyperverge", Send, good("hyperverge", Send, 1)).defaults(json!({"otp_length": 8, "otpExpiry": "5"}));
    assert!(body(send()).contains(r#""otpLength":"8","otpExpiry":"5""#));
    let payload = with(good("hyperverge", Send, 1), "otpLength", json!(6));
    assert!(body(send().payload(payload)).contains(r#""otpLength":"6","otpExpiry":"5""#));

    let known = json!({"mobile": "8144094480", "otp_type": "1", "username": "u", "lat_long": "1.5,2.5"});
    let defaults = json!({"latLong": "9.5,9.5", "publicIP": "10.0.0.1"});
    let verify =
        || caller("iserveu", Verify).payload(json!({"name": "A"})).known(known.clone()).defaults(defaults.clone());
    assert!(body(verify()).contains(r#""latlong":"1.5,2.5","publicIP":"10.0.0.1""#));
    let payload = json!({"name": "A", "latlong": "3.5,3.5"});
    assert!(body(verify().payload(payload)).contains(r#""latlong":"3.5,3.5""#));
}

#[test]
fn a_default_goes_by_any_of_the_vendors_names() {
    // latLong of a send is latlong in a registration.
    let payload = without(good("iserveu", Verify, 1), "lat_long");
    let prepared = call("iserveu", Verify, payload).defaults(json!({"latLong": "9.5,9.5"})).prepared();
    assert!(prepared.request.body.reveal().contains(r#""latlong":"9.5,9.5""#));
    // A field of one person is never taken from the defaults.
    let payload = without(good("iserveu", Send, 1), "mobile");
    assert_eq!(call("iserveu", Send, payload).defaults(json!({"mobile": "8144094480"})).refused().field, "mobile");
}

#[test]
fn what_belongs_to_the_verification_can_be_repeated_but_not_changed() {
    for (vendor, operation, known, same, other) in [
        (
            "hyperverge",
            Verify,
            json!({"mobile": "8144094480"}),
            json!({"mobile": "+91 8144094480"}),
            json!({"mobile": "8144094481"}),
        ),
        (
            "hyperverge",
            Verify,
            json!({"mobile": "8144094480", "transaction_id": "t"}),
            json!({"transactionId": "t"}),
            json!({"transaction_id": "x"}),
        ),
        ("ideamart", Verify, json!({"reference": "abc"}), json!({"referenceNo": "abc"}), json!({"reference": "abd"})),
        (
            "ideamart",
            Resend,
            json!({"mobile": "tel:94771234567"}),
            json!({"mobile": 771234567}),
            json!({"mobile": "0771234568"}),
        ),
        (
            "paytm",
            Verify,
            json!({"mid": "M", "order_id": "O", "token": "tok-1"}),
            json!({"token": "tok-1", "mid": "M"}),
            json!({"token": "tok-2"}),
        ),
        (
            "paytm",
            Verify,
            json!({"mid": "M", "order_id": "O", "token": "tok-1"}),
            json!({"orderId": "O"}),
            json!({"orderId": "P"}),
        ),
        ("paytm", Verify, json!({"mid": "M", "order_id": "O", "token": "tok-1"}), json!({}), json!({"mid": "N"})),
    ] {
        call(vendor, operation, same).known(known.clone()).prepared();
        let invalid = call(vendor, operation, other).known(known).refused();
        assert_eq!(invalid.message, format!("{} belongs to the verification and cannot change", invalid.field));
        assert_eq!(invalid.hint, "leave it out");
    }
    let known = keep(&caller("iserveu", Send).payload(good("iserveu", Send, 2)).prepared());
    for (name, other) in [("mobile", "8144094481"), ("reference", "1432453"), ("username", "v")] {
        let payload = with(good("iserveu", Verify, 2), name, json!(other));
        assert_eq!(call("iserveu", Verify, payload).known(known.clone()).refused().field, name);
    }
    let payload = with(good("iserveu", Verify, 1), "otp_type", json!(1));
    assert_eq!(call("iserveu", Verify, payload).known(known.clone()).refused().field, "otp_type");
    call("iserveu", Verify, good("iserveu", Verify, 2)).known(known).prepared();
}

#[test]
fn a_user_name_of_the_defaults_stays_with_the_verification_that_it_began() {
    let payload = without(good("iserveu", Send, 1), "username");
    let sent = call("iserveu", Send, payload).defaults(json!({"username": "then"})).prepared();
    let again = caller("iserveu", Resend).known(keep(&sent)).defaults(json!({"username": "now"})).prepared();
    assert!(again.request.body.reveal().contains(r#""username":"then""#));
}

#[test]
fn null_is_to_be_left_out() {
    for (vendor, operation, variant) in calls() {
        let payload = good(vendor, operation, variant);
        for name in members(payload.clone()).keys() {
            let invalid = call(vendor, operation, with(payload.clone(), name, Value::Null)).refused();
            assert_eq!((&invalid.field, invalid.hint.as_str()), (name, "leave it out instead"));
        }
    }
}

#[test]
fn values_that_break_their_rule_are_refused() {
    let long = "x".repeat(5000);
    for (vendor, operation, variant, field, bad) in [
        ("iserveu", Send, 1, "mobile", json!(["814409448", "81440944800", "+94771234567", "", true, 1.5, {}, []])),
        ("iserveu", Send, 1, "otp_type", json!(["3", 0, 3, true, "one", "", [1]])),
        ("iserveu", Send, 1, "username", json!(["", "  ", "a\nb", long, true, {}])),
        ("iserveu", Send, 1, "ovd_data", json!(["7653", "76538643974x", "7653864397456", 7653, true])),
        ("iserveu", Send, 2, "reference", json!(["12345", "12345678901234567890123", "abc-123", "", 12345, "ab cdef"])),
        ("iserveu", Send, 2, "amount", json!(["", "10.5", 10.5, "-1", -1, "1,000", "1e3", true])),
        ("iserveu", Send, 1, "lat_long", json!(["1", "1,", ",1", "1,2,3", "a,b", "1.,2", 1, [1, 2]])),
        ("iserveu", Send, 1, "public_ip", json!(["1.2.3", "1.2.3.4.5", "localhost", 1, ""])),
        ("iserveu", Verify, 1, "pincode", json!(["75102", "7510244", "75102x", 75102])),
        ("iserveu", Verify, 2, "is_hold_transaction", json!(["maybe", 1, 0, "", []])),
        ("hyperverge", Send, 1, "otp_length", json!([3, 10, "3", "10", "six", "", "+6", "6.0", 6.5, -6, true])),
        ("hyperverge", Send, 1, "otp_expiry", json!([0, 10081, "0", "10081", "99999999999999999999999"])),
        ("hyperverge", Send, 1, "show_last_four_digits", json!(["maybe", 1])),
        ("hyperverge", Send, 1, "transaction_id", json!(["a b", "a\r\nb", "é", long, ""])),
        ("hyperverge", Resend, 1, "channel", json!(["whatsapp", "", true])),
        ("paytm", Verify, 1, "channel_id", json!(["IVR", 1])),
        ("paytm", Verify, 1, "remember_me", json!(["maybe", 1])),
        ("paytm", Send, 1, "request_timestamp", json!(["now", 1.5, -1])),
        ("relid", Send, 1, "expires_in", json!([14, 0, "14", 604801, 15.5])),
        ("relid", Send, 1, "user_type", json!(["email"])),
        ("relid", Send, 1, "actions", json!([{}, "x", [1], [{"authlevel": "a\u{7}"}], [{"label": 1}]])),
        (
            "relid",
            Send,
            1,
            "controls",
            json!(["x", [], {"otp": 1}, {"otp": {"otp_spec": "N-3"}}, {"otp": {"otp_spec": "6"}}, {"otp": {"attempts": 0}}]),
        ),
        (
            "relid",
            Send,
            1,
            "msg",
            json!([
                "x",
                {},
                [1],
                [{}],
                [relid_msg(1)],
                [],
                [relid_msg("no place")],
                [with(relid_msg("$$OTP$$"), "more", json!(1))],
                [without(relid_msg("$$OTP$$"), "lng")],
                [without(relid_msg("$$OTP$$"), "subject")],
                [without(relid_msg("$$OTP$$"), "label")],
                [without(relid_msg("$$OTP$$"), "message")]
            ]),
        ),
        (
            "relid",
            Verify,
            1,
            "reference",
            json!(["x", "03f67f9e-ec4f-11e6-b006-92361f00267", "03f67f9e_ec4f_11e6_b006_92361f002671", 1]),
        ),
        ("ideamart", Send, 1, "mobile", json!(["tel:all", "all", "8144094480", "tel:hu3b84346f63", "07712345", 1])),
        (
            "ideamart",
            Send,
            1,
            "metadata",
            json!(["x", [], {"client": 1}, {"colour": "x"}, {"app_code": "x", "appCode": "y"}, {"os": null}]),
        ),
    ] {
        let Value::Array(bad) = bad else { unreachable!() };
        for value in bad {
            let payload = with(good(vendor, operation, variant), field, value.clone());
            let invalid = call(vendor, operation, payload).refused();
            let inside =
                invalid.field.starts_with(&format!("{field}.")) || invalid.field.starts_with(&format!("{field}["));
            assert!(invalid.field == field || inside, "{vendor} {field} {value}: {invalid:?}");
            assert!(!invalid.hint.is_empty() && invalid.message.contains(&invalid.field), "{invalid:?}");
        }
    }
}

#[test]
fn a_value_is_taken_in_the_forms_that_it_drifts_in_and_sent_in_the_documented_one() {
    for (vendor, operation, variant, field, forms, sent) in [
        ("iserveu", Send, 1, "otp_type", json!([1, "1"]), r#""otpType":"1""#),
        ("iserveu", Send, 2, "amount", json!([1001, "1001"]), r#""requestedAmount":"1001""#),
        (
            "iserveu",
            Verify,
            2,
            "is_hold_transaction",
            json!([true, "true", "yes", "TRUE"]),
            r#""isHoldTransaction":true"#,
        ),
        ("hyperverge", Send, 1, "otp_length", json!([6, "6", "06"]), r#""otpLength":"6""#),
        (
            "hyperverge",
            Send,
            1,
            "show_last_four_digits",
            json!([false, "no", "No", "false"]),
            r#""showLastFourDigits":"no""#,
        ),
        ("hyperverge", Send, 1, "template_id", json!([77, "77"]), r#""templateId":"77""#),
        ("paytm", Verify, 1, "remember_me", json!([true, "true", "yes"]), r#""rememberMe":true"#),
        ("paytm", Verify, 1, "channel_id", json!(["WAP", "wap"]), r#""channelId":"WAP""#),
        ("relid", Send, 1, "expires_in", json!([300, "300"]), r#""expires_in":300"#),
        ("relid", Send, 1, "user_type", json!(["loginId", "LOGINID"]), r#""user_type":"loginId""#),
        (
            "ideamart",
            Send,
            1,
            "metadata",
            json!([{"app_code": "a"}, {"appCode": "a"}]),
            r#""applicationMetaData":{"appCode":"a"}"#,
        ),
    ] {
        let Value::Array(forms) = forms else { unreachable!() };
        for form in forms {
            let prepared = call(vendor, operation, with(good(vendor, operation, variant), field, form)).prepared();
            assert!(prepared.request.body.reveal().contains(sent), "{}", prepared.request.body.reveal());
        }
    }
}

#[test]
fn the_broadcast_address_is_refused_in_its_own_words() {
    for all in ["tel:all", "TEL:ALL", " tel:all "] {
        let invalid = call("ideamart", Send, json!({"mobile": all})).refused();
        assert!(invalid.message.contains("broadcast"), "{invalid:?}");
    }
}

#[test]
fn hyperverge_takes_time_and_its_format_together() {
    for (one, other) in [("time", "time_format"), ("time_format", "time")] {
        let invalid = call("hyperverge", Send, with(good("hyperverge", Send, 1), one, json!("10"))).refused();
        assert_eq!(invalid.field, other);
    }
}

#[test]
fn relid_takes_the_life_of_a_code_from_the_server_where_the_payload_gives_none() {
    let payload = || without(good("relid", Send, 1), "expires_in");
    let invalid = call("relid", Send, payload()).refused();
    assert!(invalid.message.contains("expires_in is missing") && invalid.hint.contains("code_lifetime"), "{invalid:?}");
    // Told together with all other fields that are missing.
    let invalid = call("relid", Send, json!({"user_id": "alice.doe"})).refused();
    for field in ["enterprise_id", "msg", "notification_msg", "expires_in"] {
        assert!(invalid.message.contains(&format!("{field} is missing")), "{invalid:?}");
    }
    let given = |caller: Caller| caller.prepared().request.body.reveal().contains(r#""expires_in":300,"#);
    assert!(given(call("relid", Send, payload()).code_lifetime(300)));
    assert!(given(call("relid", Send, payload()).defaults(json!({"expires_in": 300})).code_lifetime(20)));
}

#[test]
fn relid_needs_a_place_for_the_code() {
    let payload = with(good("relid", Send, 1), "msg", json!([relid_msg("a"), relid_msg("b $$OTP$$")]));
    call("relid", Send, payload).prepared();
    let invalid = call("relid", Send, with(good("relid", Send, 1), "msg", json!([relid_msg("$$otp$$")]))).refused();
    assert!(invalid.message.contains("$$OTP$$"));
}

#[test]
fn what_was_kept_is_taken_again_unchanged() {
    for (vendor, operation, variant) in calls() {
        let payload = good(vendor, operation, variant);
        let first = call(vendor, operation, payload.clone()).prepared();
        for (name, value) in first.retained.iter() {
            let again = call(vendor, operation, with(payload.clone(), name, value.clone())).prepared();
            assert_eq!(keep(&again)[name], *value);
        }
    }
}

// No value is shown in words

#[track_caller]
fn assert_clean(invalid: &Invalid, canary: &str) {
    let shown = format!("{} {} {} {invalid:?}", invalid.field, invalid.message, invalid.hint);
    assert!(!shown.contains(canary), "{shown}");
}

const CANARY: &str = "canary-5309";

fn canaries() -> Vec<Value> {
    vec![
        json!(CANARY),
        json!(format!("{CANARY}\n")),
        json!(CANARY.repeat(500)),
        json!([CANARY]),
        json!({CANARY: CANARY}),
        json!({"message": CANARY, "other": CANARY}),
        json!([{"message": CANARY, CANARY: 1}]),
        json!({"otp": {"otp_spec": CANARY}}),
        json!({"client": [CANARY]}),
        json!({"app_code": CANARY, "appCode": CANARY}),
    ]
}

#[test]
fn no_refusal_shows_a_value() {
    let mut refusals = 0;
    for (vendor, operation, variant) in calls() {
        let fields = (by_name(vendor).unwrap().fields)(operation).unwrap();
        let keys = fields.iter().flat_map(|field| [field.name, field.wire]);
        for key in keys.chain(["unknown", "otp", CANARY, "two words", "", "é", "{}", "a\nb"]) {
            for canary in canaries() {
                let base = good(vendor, operation, variant);
                for payload in [with(base.clone(), key, canary.clone()), with(json!({}), key, canary.clone())] {
                    if let Err(invalid) = call(vendor, operation, payload).prepare() {
                        assert_clean(&invalid, CANARY);
                        refusals += 1;
                    }
                }
                for known in [with(base.clone(), key, canary.clone()), json!({key: CANARY})] {
                    let caller = call(vendor, operation, base.clone()).known(known);
                    if let Err(invalid) = caller.prepare() {
                        assert_clean(&invalid, CANARY);
                        refusals += 1;
                    }
                }
                let defaults = json!({key: canary});
                if let Err(invalid) = check_defaults(by_name(vendor).unwrap(), &members(defaults)) {
                    assert_clean(&invalid, CANARY);
                    refusals += 1;
                }
            }
        }
    }
    assert!(refusals > 1000, "{refusals}");
}

#[test]
fn a_key_that_may_be_a_value_is_not_shown() {
    let long = "k".repeat(64);
    for key in ["canary 1", "8144094480", "+918144094480", "ключ", "a-b", "", long.as_str(), "a\nb"] {
        let invalid = call("ideamart", Send, with(good("ideamart", Send, 1), key, json!(1))).refused();
        assert_eq!(invalid.field, "payload");
        assert_eq!(invalid.message, "a send through ideamart has a field whose name is not an identifier");
    }
}

#[test]
fn every_secret_of_a_call_is_named_for_redaction() {
    let named = |caller: Caller, wanted: &[&str]| {
        let prepared = caller.prepared();
        for value in wanted {
            assert!(prepared.secrets.iter().any(|secret| secret.reveal() == *value), "{value} is not named");
        }
    };
    let payload = with(good("iserveu", Send, 1), "mobile", json!("+91 81440-94480"));
    named(
        call("iserveu", Send, payload),
        &["8144094480", "918144094480", "+918144094480", "+91 81440-94480", "765386439745", "isu-client", "isu-secret"],
    );
    named(
        call("ideamart", Send, json!({"mobile": "077-1234567"})),
        &["tel:94771234567", "94771234567", "771234567", "0771234567", "077-1234567", "APP_001100", "idea-pass"],
    );
    named(
        caller("ideamart", Verify).code("123564").known(json!({"reference": "r", "mobile": "tel:94771234567"})),
        &["123564", "94771234567", "771234567"],
    );
    named(
        call("paytm", Verify, good("paytm", Verify, 1)).credentials(&[("username", "u"), ("password", "p")]),
        &["tok-1", "012345", "u", "p", "dTpw"],
    );
    named(call("relid", Verify, good("relid", Verify, 1)).credentials(&[("access_token", "abc")]), &["abc", "012345"]);
    named(
        call("iserveu", Verify, good("iserveu", Verify, 2)),
        &["1234567890", "9876543210", "919876543210", "8144094480", "012345"],
    );
}

// Members that no table knows

#[test]
fn extra_goes_into_the_body_as_it_is() {
    let extra =
        json!({"pid": "p-7", "dlt": {"entity": 1101.5, "ids": [1, null, "two\nlines"]}, "flag": false, "none": null});
    for (vendor, operation, variant) in calls() {
        if operation == Cancel || vendor == "sandbox" {
            continue;
        }
        let payload = good(vendor, operation, variant);
        let plain = call(vendor, operation, payload.clone()).prepared().request;
        let is_json = plain.body.reveal().starts_with('{');
        let plain = body(&plain);
        let prepared = call(vendor, operation, with(payload, "extra", extra.clone())).prepared();
        let mut expected = members(plain);
        expected.extend(members(extra.clone()));
        if !is_json {
            // In a form every value is text.
            expected
                .values_mut()
                .filter(|value| !value.is_string())
                .for_each(|value| *value = value.to_string().into());
        }
        assert_eq!(body(&prepared.request), Value::Object(expected), "{vendor} {operation:?}");
        // The values of `extra` are redacted like all others.
        for value in ["p-7", "1101.5", "two\nlines"] {
            assert!(prepared.secrets.iter().any(|secret| secret.reveal() == value), "{vendor}: {value} is not named");
        }
    }
}

#[test]
fn extra_lies_over_that_of_the_defaults() {
    let defaults = json!({"extra": {"a": "d", "b": "d"}});
    let body = |caller: Caller| {
        let body: Value = serde_json::from_str(caller.prepared().request.body.reveal()).unwrap();
        (body["a"].clone(), body["b"].clone(), body["c"].clone())
    };
    let send = || call("ideamart", Send, good("ideamart", Send, 1)).defaults(defaults.clone());
    assert_eq!(body(send()), (json!("d"), json!("d"), Value::Null));
    let payload = with(good("ideamart", Send, 1), "extra", json!({"b": "p", "c": "p"}));
    assert_eq!(body(send().payload(payload.clone())), (json!("d"), json!("p"), json!("p")));
    // A resend repeats the send's `extra`; its own members lie over that.
    let sent = keep(&send().payload(payload).prepared());
    assert_eq!(sent["extra"], json!({"b": "p", "c": "p"}));
    let resend = || caller("ideamart", Resend).known(sent.clone()).defaults(defaults.clone());
    assert_eq!(body(resend()), (json!("d"), json!("p"), json!("p")));
    let resend = resend().payload(json!({"extra": {"c": "r"}}));
    assert_eq!(keep(&resend.prepared())["extra"], json!({"b": "p", "c": "r"}));
    assert_eq!(body(resend), (json!("d"), json!("p"), json!("r")));
    // A verify does not take the send's `extra`, and its answer must not repeat it.
    let verify = caller("ideamart", Verify).known(with(sent, "reference", json!("r"))).defaults(defaults);
    assert_eq!(body(verify), (json!("d"), json!("d"), Value::Null));
    let verify = caller("ideamart", Verify).known(json!({"reference": "r", "extra": {"pid": "canary-9"}})).prepared();
    assert!(verify.secrets.iter().any(|secret| secret.reveal() == "canary-9"));
    assert!(!verify.request.body.reveal().contains("canary-9"));
    let sent = keep(&call("hyperverge", Send, with(good("hyperverge", Send, 1), "extra", json!({"a": 1}))).prepared());
    assert_eq!(body(caller("hyperverge", Resend).known(sent)), (Value::Null, Value::Null, Value::Null));
}

#[test]
fn extra_goes_over_nothing_that_the_gateway_sets() {
    for (vendor, operation, variant) in calls() {
        if operation == Cancel || vendor == "sandbox" {
            continue;
        }
        let payload = good(vendor, operation, variant);
        let body = body(&call(vendor, operation, payload.clone()).prepared().request);
        let mut names: Vec<String> = members(body.clone()).keys().cloned().collect();
        let fields = (by_name(vendor).unwrap().fields)(operation).unwrap();
        // A field that is left out cannot be set by `extra` under another of its names either.
        names.extend(
            (1..)
                .zip(fields)
                .filter(|(_, field)| vendor != "iserveu" && field.name != "extra")
                .map(|(_, field)| field.wire.into()),
        );
        names.extend(["otp", "otp_value", "code", "OTP"].map(String::from));
        // A vendor may read names without regard to case.
        for name in names.iter().flat_map(|name| [name.clone(), name.to_uppercase()]) {
            let invalid =
                call(vendor, operation, with(payload.clone(), "extra", json!({name.clone(): CANARY}))).refused();
            assert!(
                invalid.message.contains(&name) && invalid.message.contains("extra"),
                "{vendor} {name}: {invalid:?}"
            );
            assert!(!invalid.hint.is_empty());
            assert_clean(&invalid, CANARY);
        }
    }
    // In objects that the gateway sets itself, `extra` may add members beside the gateway's.
    let payload = |extra: Value| call("paytm", Verify, with(good("paytm", Verify, 1), "extra", extra));
    let beside = payload(json!({"head": {"clientId": "c"}, "body": {"x": {"y": 1}}})).prepared();
    let body: Value = serde_json::from_str(beside.request.body.reveal()).unwrap();
    assert_eq!(
        (&body["head"]["clientId"], &body["head"]["token"], &body["body"]["x"]["y"]),
        (&json!("c"), &json!("tok-1"), &json!(1))
    );
    for (extra, field) in [
        (json!({"head": {"token": CANARY}}), "extra.head.token"),
        (json!({"head": {"version": CANARY}}), "extra.head.version"),
        (json!({"body": {"otp": CANARY}}), "extra.body.otp"),
        (json!({"head": CANARY}), "extra.head"),
        (json!({"body": null}), "extra.body"),
        (json!({"mid": CANARY}), "extra.mid"),
        (json!({"head": {"Token": CANARY}}), "extra.head.Token"),
    ] {
        let invalid = payload(extra).refused();
        assert_eq!(invalid.field, field);
        assert_clean(&invalid, CANARY);
    }
    let metadata = |extra: Value| {
        let payload = with(good("ideamart", Send, 1), "metadata", json!({"os": "x"}));
        call("ideamart", Send, with(payload, "extra", json!({"applicationMetaData": extra})))
    };
    let body: Value = serde_json::from_str(metadata(json!({"carrier": "c"})).prepared().request.body.reveal()).unwrap();
    assert_eq!(body["applicationMetaData"], json!({"os": "x", "carrier": "c"}));
    for (extra, field) in [
        (json!({"os": CANARY}), "extra.applicationMetaData.os"),
        (json!({"app_code": CANARY}), "extra.applicationMetaData.appCode"),
        (json!({"appCode": CANARY, "x": 1}), "extra.applicationMetaData.appCode"),
        (json!({"x": 1, "pin": CANARY}), "pin"),
        (json!(CANARY), "extra.applicationMetaData"),
    ] {
        let invalid = metadata(extra).refused();
        assert_eq!(invalid.field, field);
        assert_clean(&invalid, CANARY);
    }
    let controls = json!({"controls": {"otp": {"attempts": 99}}});
    assert_eq!(
        call("relid", Send, with(good("relid", Send, 1), "extra", controls)).refused().field,
        "extra.controls.otp"
    );
    let fill = |value: Value, count: usize| Value::Array(vec![value; count]);
    for extra in [
        json!(CANARY),
        json!([CANARY]),
        json!(1),
        json!({"": 1}),
        json!({"a\nb": 1}),
        json!({"k".repeat(257): 1}),
        json!({"x": fill(json!(CANARY), 65)}),
        json!({"x": CANARY.repeat(2000)}),
        json!({"x": [[[[[[[[[1]]]]]]]]]}),
    ] {
        let invalid = call("ideamart", Send, with(good("ideamart", Send, 1), "extra", extra)).refused();
        assert_eq!(invalid.field, "extra");
        assert_clean(&invalid, CANARY);
    }
    for (vendor, extra) in
        [("ideamart", "password"), ("iserveu", "customerMobileNumber"), ("relid", "msg_type"), ("relid", "otp_value")]
    {
        let invalid = check_defaults(by_name(vendor).unwrap(), &members(json!({"extra": {extra: "x"}}))).unwrap_err();
        assert!(invalid.message.contains(extra), "{invalid:?}");
    }
    check_defaults(by_name("paytm").unwrap(), &members(json!({"extra": {"head": {"clientId": "c"}}}))).unwrap();
}

// The server option defaults

#[test]
fn defaults_take_what_is_constant_for_an_account() {
    for (vendor, defaults) in [
        ("iserveu", json!({"username": "u", "otpType": 1, "latLong": "1.5,2.5", "customer_ip": "10.0.0.1"})),
        ("hyperverge", json!({"template_id": "T", "otp_length": 6, "otpExpiry": "10", "channel_id_": 1})),
        ("paytm", json!({"mid": "M", "channel_id": "APP", "token_type": "TXN_TOKEN"})),
        (
            "relid",
            json!({"enterprise_id": "E", "msg": [relid_msg("$$OTP$$")], "controls": {"otp": {"otp_spec": "N-6"}}}),
        ),
        ("ideamart", json!({"metadata": {"client": "WebSite", "appCode": "https://a.example"}})),
        ("ideamart", json!({})),
    ] {
        let mut defaults = members(defaults);
        if defaults.shift_remove("channel_id_").is_some() {
            let mut wrong = defaults.clone();
            wrong.insert("templateid".into(), json!("T"));
            let invalid = check_defaults(by_name(vendor).unwrap(), &wrong).unwrap_err();
            assert!(invalid.hint.starts_with("did you mean template_id?"), "{invalid:?}");
        }
        check_defaults(by_name(vendor).unwrap(), &defaults).unwrap();
    }
}

#[test]
fn defaults_refuse_what_is_wrong_twice_or_of_one_person() {
    for (vendor, defaults, field) in [
        ("iserveu", json!({"mobile": "8144094480"}), "mobile"),
        ("iserveu", json!({"customerMobileNumber": "8144094480"}), "mobile"),
        ("iserveu", json!({"mobileNumber": "8144094480"}), "mobile"),
        ("iserveu", json!({"beneMobileNumber": "8144094480"}), "bene_mobile"),
        ("iserveu", json!({"ovdData": "765386439745"}), "ovd_data"),
        ("iserveu", json!({"reference": "1432452"}), "reference"),
        ("iserveu", json!({"latLong": "1.5,2.5", "latlong": "1.5,2.5"}), "lat_long"),
        ("iserveu", json!({"latLong": "1.5,2.5", "lat_long": "1.5,2.5"}), "lat_long"),
        ("iserveu", json!({"otp_type": 3}), "otp_type"),
        ("hyperverge", json!({"otp_length": 3}), "otp_length"),
        ("hyperverge", json!({"otp": "123456"}), "otp"),
        ("hyperverge", json!({"time": null}), "time"),
        ("hyperverge", json!({"transaction_id": "t"}), "transaction_id"),
        ("paytm", json!({"token": "t"}), "token"),
        ("paytm", json!({"orderId": "t"}), "order_id"),
        ("relid", json!({"otp_value": "t"}), "otp_value"),
        ("relid", json!({"user_id": "t"}), "user_id"),
        ("relid", json!({"controls": {"otp": {"attempts": "x"}}}), "controls.otp.attempts"),
        ("ideamart", json!({"subscriberId": "tel:94771234567"}), "mobile"),
        ("ideamart", json!({"applicationHash": "x"}), "application_hash"),
        ("ideamart", json!({"base_url": "x"}), "base_url"),
    ] {
        let invalid = check_defaults(by_name(vendor).unwrap(), &members(defaults)).unwrap_err();
        assert_eq!(invalid.field, field, "{invalid:?}");
    }
}

#[test]
fn every_field_has_a_rule_in_words_and_a_bound() {
    fn bounded(rule: &Rule) -> bool {
        match rule {
            Rule::Text { max, .. }
            | Rule::Message { max }
            | Rule::Alphanumeric { max, .. }
            | Rule::Digits { max, .. } => *max <= 4096,
            Rule::Identifier { max } | Rule::HeaderText { max } => *max <= 256,
            Rule::Object { members, .. } => members.iter().all(|field| bounded(&field.rule)),
            Rule::List { members, max } => *max <= 64 && members.iter().all(|field| bounded(&field.rule)),
            _ => true,
        }
    }
    for (_, dialect) in caller::VENDORS.iter() {
        for field in Operation::ALL.into_iter().filter_map(|operation| dialect.fields(operation)).flatten() {
            assert!(!field.rule.describe().is_empty() && bounded(&field.rule), "{}", field.name);
        }
    }
}

/// By the ITU's list of assigned codes: a code is no prefix of another, so that the first digits tell how long it is.
#[test]
fn the_calling_code_of_a_number() {
    const OF_TWO_DIGITS: [i32; 45] = [
        20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61,
        62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98, 7,
    ];
    for first in 100..1000 {
        let expected = match first {
            100..200 => 1,
            700..800 => 7,
            _ if OF_TWO_DIGITS.contains(&(first / 10)) => first / 10,
            _ => first,
        };
        assert_eq!(dialect::calling_code(&format!("+{first}5550100")), Some(expected), "{first}");
    }
    for none in ["", "+", "94771234567", "+9477", "+94771234567890123", "+94771x34567", "user:1", "+٩٤٧٧١٢٣٤٥٦٧"]
    {
        assert_eq!(dialect::calling_code(none), None, "{none}");
    }
}
