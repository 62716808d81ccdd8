//! Promise: every vendor's table, the next vendor's included, says which fields are of a person, of the flow and of a
//! path: whoever forgets `personal`, `fixed`, `sensitive` or `path_segment` hears of it here.

mod caller;

use caller::{Caller, VENDORS, caller, vendor};
use dialect::{AnyField, Dialect, Operation, Operation::*, Prepared, Rule, redact};
use serde_json::{Map, Value, json};

/// Calls the test with every field of every operation and variant.
fn each(mut test: impl FnMut(&'static str, &'static Dialect, Operation, AnyField<'static>)) {
    for (name, dialect) in VENDORS.iter() {
        for operation in Operation::ALL {
            dialect.fields(operation).into_iter().flatten().for_each(|field| test(name, dialect, operation, field));
        }
    }
}

/// Fields of no person and no journey: they may stand in the option `defaults`, in the clear, for all to read.
const LASTING: &str = "
    *: channel locale template_id otp_length otp_expiry app_hash
    hyperverge: time time_format show_last_four_digits
    ideamart: metadata
    iserveu: username otp_type amount lat_long public_ip customer_ip address pincode ovd_type param_a param_b param_c
    iserveu: bene_bank_name bank_code bene_ifsc_code transaction_mode is_hold_transaction
    msg91: sender unicode real_time_response
    paytm: mid token_type auto_read_hash channel_id remember_me
    relid: enterprise_id user_type expires_in msg notification_msg actions ds_required controls
    twilio: friendly_name channel_configuration risk_check tags
    vonage: brand sender entity_id content_id channel_timeout code_length fraud_check
";

fn is_lasting(vendor: &str, field: &str) -> bool {
    let lines = LASTING.lines().filter_map(|line| line.trim().split_once(": "));
    lines.filter(|(of, _)| *of == vendor || *of == "*").any(|(_, names)| names.split(' ').any(|name| name == field))
}

#[test]
fn a_field_is_personal_or_it_is_known_to_be_none() {
    each(|vendor, _, operation, field| {
        let what = format!("{vendor}'s {} of a {}", field.name, operation.as_str());
        let is_one =
            field.once || matches!(field.rule, Rule::Extra) || field.personal != is_lasting(vendor, field.name);
        assert!(is_one, "{what}: .personal(), or in LASTING?");
    });
}

#[test]
fn what_a_flow_is_of_cannot_change_within_it() {
    each(|name, dialect, operation, field| {
        let is_of = |other: Operation| dialect.fields(other).into_iter().flatten().any(|one| one.name == field.name);
        let comes_back = is_of(Send) && (is_of(Verify) || is_of(Cancel)) && field.personal && !field.once;
        // The person's document, which a verify has to show again.
        let is_shown_again = (name, field.name) == ("iserveu", "ovd_data");
        let names_flow = field.name == "reference" || field.name == dialect.recipient_field().name;
        // `extra` belongs to one call.
        if names_flow && operation != Send || comes_back && !is_shown_again && !matches!(field.rule, Rule::Extra) {
            let what = format!("{name}'s {} of a {}", field.name, operation.as_str());
            // Paytm is told the number in a send alone, and finds the flow by the order.
            assert!(field.fixed || (name, field.name) == ("paytm", "mobile"), "{what}: .fixed()?");
        }
    });
}

#[test]
fn the_name_that_a_secret_goes_by_is_not_kept_of_an_answer() {
    each(|name, dialect, operation, field| {
        let is_person = matches!(
            field.rule,
            Rule::PhoneNumber | Rule::PhoneOrEmail | Rule::Email | Rule::IndianMobile | Rule::SriLankanMobile
        );
        let is_one_value = !matches!(field.rule, Rule::Object { .. } | Rule::List { .. } | Rule::Any | Rule::Extra);
        // The sandbox has no answer.
        if !(is_person || field.secret && is_one_value) || name == "sandbox" {
            return;
        }
        let mut answer = json!({"echo": [{ field.wire: "whoever it is" }]});
        redact(dialect, &[], &mut answer);
        // An id of the vendor's that stands for the number may be what the application needs.
        let is_opaque = dialect.opaque().any(|one| one.eq_ignore_ascii_case(field.wire));
        let what = format!("{name}'s {} of a {}", field.wire, operation.as_str());
        assert!(is_opaque || answer == json!({"echo": [{}]}), "{what} is not in sensitive: {answer}");
    });
}

/// Returns the payload of a call with every field that it needs, from the examples of its table.
fn payload(dialect: &Dialect, operation: Operation) -> Map<String, Value> {
    let fields = dialect.fields(operation).unwrap_or_default();
    let needed = fields.iter().filter(|field| field.required || field.instead.is_some());
    let mut payload: Map<String, Value> = needed.map(|field| (field.name.to_owned(), field.example())).collect();
    // iServeU's table holds the fields of two variants.
    if dialect.name == "iserveu" {
        let whole = json!({
            "mobile": "8144094480", "otp_type": "1", "username": "u", "ovd_type": "Aadhaar Card", "ovd_data": "234123412346",
            "name": "A", "lat_long": "1.5,2.5", "public_ip": "192.168.1.1"
        });
        payload = caller::members(whole);
        payload.retain(|name, _| fields.iter().any(|field| field.name == name));
    }
    payload
}

fn paths(prepared: &Prepared) -> Vec<String> {
    let requests = [Some(&prepared.request), prepared.cancel_first.as_ref()];
    requests.into_iter().flatten().map(|request| request.path.reveal().to_owned()).collect()
}

#[test]
fn no_value_leads_to_another_path() {
    let hostile =
        ["..", ".", "../../admin", "a/b", "a?b=c", "a#b", "%2e%2e", "//evil.example", "\\evil", "a\r\nHost: x", "a b"];
    let is_plain = |path: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%:@!$&'()*+,;=".contains(&byte);
        path.bytes().all(is_allowed) && path.split('/').all(|segment| !matches!(segment, "." | ".."))
    };
    let mut in_paths = 0;
    for (name, dialect) in VENDORS.iter() {
        for operation in Operation::ALL.into_iter().filter(|operation| dialect.fields(*operation).is_some()) {
            let payload = payload(dialect, operation);
            let call = |payload: &Map<String, Value>| caller(name, operation).payload(payload.clone().into());
            let plain = paths(&call(&payload).prepared());
            let mut check = |of: &str, call: Caller| {
                let Ok(prepared) = call.prepare() else { return };
                for (path, plain) in paths(&prepared).iter().zip(&plain) {
                    assert!(is_plain(path), "{name}'s {of} of a {}: {path}", operation.as_str());
                    assert_eq!(path.matches('/').count(), plain.matches('/').count(), "{name}'s {of}: {path}");
                    in_paths += usize::from(path != plain);
                }
            };
            for value in hostile {
                for field in dialect.fields(operation).unwrap_or_default() {
                    // The value comes from the caller, or from the vendor's answer to the send.
                    let mut given = payload.clone();
                    given.insert(field.name.to_owned(), value.into());
                    check(field.name, call(&given));
                    given.shift_remove(field.name);
                    check(field.name, call(&given).known(json!({ field.name: value })));
                }
                for option in dialect.server_options.iter().filter(|option| (option.check)(value).is_ok()) {
                    check(option.name, call(&payload).option(option.name, value));
                }
            }
        }
    }
    assert!(in_paths > 10, "no value stood in a path: {in_paths}");
    assert!(vendor("twilio").fields(Cancel).is_some() && vendor("vonage").fields(Cancel).is_some());
}
