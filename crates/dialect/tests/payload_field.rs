//! Promise: what the view says of a payload's fields is what calls take: every example follows its rule, all fields
//! that are called required are enough, and none of them can be left out.

mod caller;

use std::collections::BTreeMap;

use caller::{Caller, caller, keep};
use dialect::{DIALECTS, Dialect, Operation, PayloadField, defaults_in_force, payload_fields};
use serde_json::{Map, Value, json};

/// Returns the rows of one operation, or of one of its variants.
fn rows<'a>(dialect: &'a Dialect, operation: Operation, variant: Option<&str>) -> Vec<PayloadField<'a>> {
    let is_of = |row: &PayloadField| {
        variant.is_none_or(|variant| !row.required.contains('(') || row.required.contains(variant))
    };
    payload_fields(dialect).into_iter().filter(|row| row.operation == operation && is_of(row)).collect()
}

/// Returns the variants of a vendor's calls, as its first field selects them.
fn variants(dialect: &Dialect) -> &'static [Option<&'static str>] {
    if dialect.name == "iserveu" { &[Some("otp_type 1"), Some("otp_type 2")] } else { &[None] }
}

fn body<'a>(rows: impl IntoIterator<Item = &'a PayloadField<'a>>, variant: Option<&str>) -> Map<String, Value> {
    let mut body: Map<_, _> = rows.into_iter().map(|row| (row.field.to_owned(), row.example.clone())).collect();
    if let (Some(variant), Some(chosen)) = (variant, body.get_mut("otp_type")) {
        *chosen = variant.trim_start_matches("otp_type ").into();
    }
    body
}

fn call(dialect: &Dialect, operation: Operation, body: &Map<String, Value>) -> Caller {
    caller(dialect.name, operation).payload(Value::Object(body.clone()))
}

/// Calls the test with each vendor, operation and variant, and their rows.
fn each(mut test: impl FnMut(&'static Dialect, Operation, Option<&'static str>, &[PayloadField])) {
    for dialect in DIALECTS {
        for operation in Operation::ALL.into_iter().filter(|operation| (dialect.fields)(*operation).is_some()) {
            for variant in variants(dialect) {
                test(dialect, operation, *variant, &rows(dialect, operation, *variant));
            }
        }
    }
}

#[test]
fn every_example_follows_its_rule() {
    each(|dialect, operation, variant, rows| {
        assert!(!rows.is_empty());
        // `time` goes with `time_format`; `extra` goes with every other field.
        let all = body(rows, variant);
        call(dialect, operation, &all)
            .prepare()
            .unwrap_or_else(|why| panic!("{} {operation:?}: {why:?}", dialect.name));
    });
}

#[test]
fn what_is_required_is_enough_and_not_too_much() {
    each(|dialect, operation, variant, rows| {
        let what = format!("{} {operation:?} {variant:?}", dialect.name);
        // In a flow begun elsewhere nothing is known.
        let needed: Vec<_> = rows.iter().filter(|row| !row.required.starts_with("no")).collect();
        let whole = body(needed.iter().copied(), variant);
        call(dialect, operation, &whole).prepare().unwrap_or_else(|why| panic!("{what}: {why:?}"));
        for row in &needed {
            let mut less = whole.clone();
            less.remove(row.field);
            match call(dialect, operation, &less).prepare() {
                Ok(_) => assert!(row.required.contains(", or "), "{what} does without {}", row.field),
                Err(why) => assert!(
                    why.field == row.field || why.blame.others.iter().any(|field| field == row.field),
                    "{what}: {why:?}"
                ),
            }
        }
        // A field that another can stand in for may be left out.
        let Some(or) = needed.iter().find(|row| row.required.contains(", or ")) else { return };
        if or.required.contains("code_lifetime") {
            let mut less = whole.clone();
            less.remove(or.field);
            call(dialect, operation, &less).code_lifetime(60).prepared();
        }
    });
}

#[test]
fn what_is_kept_need_not_be_given_again() {
    each(|dialect, operation, variant, rows| {
        if operation == Operation::Send {
            assert!(rows.iter().all(|row| !row.required.starts_with("kept")), "{}", dialect.name);
            return;
        }
        let sent = self::rows(dialect, Operation::Send, variant);
        let sent = sent.iter().filter(|row| row.required.starts_with("yes"));
        let mut known = keep(&call(dialect, Operation::Send, &body(sent, variant)).prepared());
        let reference = payload_fields(dialect).into_iter().find(|row| row.field == "reference");
        if let Some(reference) = &reference {
            // The vendor's answer to the send brings the reference.
            known.as_object_mut().unwrap().entry("reference").or_insert_with(|| reference.example.clone());
        }
        let mut given = body(rows.iter().filter(|row| row.required.starts_with("yes")), variant);
        if operation == Operation::Resend {
            given.entry("reference").and_modify(|new| *new = json!("REF0000043"));
        }
        let what = format!("{} {operation:?} {variant:?}", dialect.name);
        call(dialect, operation, &given).known(known.clone()).prepare().unwrap_or_else(|why| panic!("{what}: {why:?}"));
        for name in given.keys() {
            let mut less = given.clone();
            less.remove(name);
            let why = call(dialect, operation, &less).known(known.clone()).refused();
            assert!(why.field == *name || why.blame.others.contains(name), "{what}: {why:?}");
        }
    });
}

#[test]
fn the_rows_of_a_vendor_read_as_they_should() {
    let rows = |vendor, operation: Operation| {
        let rows = payload_fields(dialect::by_name(vendor).unwrap()).into_iter();
        let of = rows.filter(|row| row.operation == operation);
        of.map(|row| format!("{} {} {}", row.field, row.vendor_name.unwrap_or("-"), row.required)).collect::<Vec<_>>()
    };
    assert_eq!(
        rows("ideamart", Operation::Send),
        [
            "mobile subscriberId yes",
            "application_hash applicationHash no",
            "metadata applicationMetaData no",
            "channel channel no",
            "extra - no"
        ]
    );
    assert_eq!(rows("ideamart", Operation::Verify), ["reference referenceNo kept", "extra - no"]);
    let iserveu = rows("iserveu", Operation::Verify);
    for expected in [
        "otp_type otpType kept",
        "mobile mobileNumber kept (otp_type 1)",
        "mobile customerMobileNumber kept (otp_type 2)",
        "name name yes (otp_type 1)",
        "pincode pincode no (otp_type 1)",
        "pincode pincode yes (otp_type 2)",
    ] {
        assert!(iserveu.iter().any(|row| row == expected), "{expected}: {iserveu:#?}");
    }
    assert!(
        rows("relid", Operation::Send).contains(&"expires_in expires_in yes, or the option code_lifetime".to_owned())
    );
    assert!(rows("sandbox", Operation::Verify).contains(&"mobile mobile kept, or reference".to_owned()));
}

#[test]
fn defaults_say_how_long_a_code_lives_and_how_often_it_is_checked() {
    let of = |vendor, defaults: Value| {
        let said = defaults_in_force(dialect::by_name(vendor).unwrap(), &BTreeMap::new(), &caller::members(defaults));
        (said.code_lifetime.map(|life| life.as_secs()), said.max_checks, said.has_no_life)
    };
    assert_eq!(of("hyperverge", json!({})), (None, None, false));
    assert_eq!(of("hyperverge", json!({"otp_expiry": 10})), (Some(600), None, false));
    assert_eq!(of("hyperverge", json!({"otpExpiry": "10", "templateId": "x"})), (Some(600), None, false));
    assert_eq!(of("relid", json!({})), (None, None, false));
    assert_eq!(of("relid", json!({"expires_in": 90})), (Some(90), None, false));
    assert_eq!(of("relid", json!({"controls": {"otp": {"attempts": 7}}})), (None, Some(7), false));
    assert_eq!(of("iserveu", json!({"otp_type": "1"})), (None, None, false));
    assert_eq!(of("iserveu", json!({"otp_type": "2"})), (None, None, true));
}

#[test]
fn what_the_defaults_could_give_is_known() {
    let of = |vendor, defaults: Value| {
        dialect::missing_defaults(dialect::by_name(vendor).unwrap(), &caller::members(defaults))
    };
    assert_eq!(of("hyperverge", json!({})), ["template_id"]);
    assert_eq!(of("hyperverge", json!({"templateId": "t"})), [] as [&str; 0]);
    assert_eq!(of("ideamart", json!({})), [] as [&str; 0]);
    assert_eq!(of("paytm", json!({})), ["mid"]);
    assert_eq!(of("relid", json!({"enterprise_id": "bank"})), ["msg", "notification_msg"]);
    assert_eq!(of("iserveu", json!({"otp_type": "1"})), ["username"]);
}

#[test]
fn the_sandbox_alone_asks_nobody() {
    let is_local = |dialect: &&&Dialect| defaults_in_force(dialect, &BTreeMap::new(), &Map::new()).is_local;
    let local: Vec<_> = DIALECTS.iter().filter(is_local).map(|dialect| dialect.name).collect();
    assert_eq!(local, ["sandbox"]);
}
