use serde_json::json;

use super::*;

fn secrets(values: &[&str]) -> Vec<Secret> {
    values.iter().map(|value| Secret::new(*value)).collect()
}

#[test]
fn a_secret_is_found_wherever_it_stands() {
    let secrets = secrets(&["918144094480", "8144094480", "123456", "tok-Secret"]);
    for (text, clean) in [
        ("OTP 123456 sent to 8144094480", "OTP [redacted] sent to [redacted]"),
        ("to +91 81440 94480.", "to +[redacted]."),
        ("to 0091-8144094480", "to [redacted]"),
        ("x8144094480y123456", "x[redacted]y[redacted]"),
        ("TOK-SECRET", "[redacted]"),
        ("Aadhaar 2341 2341 2346", "Aadhaar [redacted]"),
        ("nothing ÿ here 12345", "nothing ÿ here 12345"),
    ] {
        assert_eq!(redact_text(&secrets, text), clean);
    }
}

#[test]
fn a_number_is_found_however_it_is_written() {
    let secrets = secrets(&["918144094480", "8144094480", "123456"]);
    for (text, clean) in [
        ("at (814) 409 - 4480!", "at ([redacted]!"),
        ("(81440) - 94480", "([redacted]"),
        ("814.409.4480", "[redacted]"),
        ("81440/94480", "[redacted]"),
        ("81440_94480", "[redacted]"),
        ("81440\u{a0}94480", "[redacted]"),
        ("8 1 4 4 0 9 4 4 8 0", "[redacted]"),
        ("81\u{200b}4409\u{200d}4480", "[redacted]"),
        ("८१४४०९४४८०", "[redacted]"),
        ("８１４４０９４４８０", "[redacted]"),
        ("𝟖𝟏𝟒𝟒𝟎𝟗𝟒𝟒𝟖𝟎", "[redacted]"),
        ("%2B91%2081440%2094480&x", "%2B[redacted]&x"),
        (r#"{\"m\":\"81440\u002d94480\"}"#, r#"{\"m\":\"[redacted]\"}"#),
        (r#"{\"m\":\"\u0038144094480\"}"#, r#"{\"m\":\"[redacted]\"}"#),
        ("code 123-456", "code [redacted]"),
        ("12 - 34 - 56", "[redacted]"),
        ("8.14409448E9", "[redacted]E9"),
        ("814409 then 4480", "814409 then 4480"),
    ] {
        assert_eq!(redact_text(&secrets, text), clean);
    }
}

#[test]
fn a_word_is_found_however_it_is_written() {
    let secrets = secrets(&["Tökén/Wort=17", "100%20free", "2012", "Ωmega%20", "8144094480"]);
    for (text, clean) in [
        ("TÖKÉN/WORT=17", "[redacted]"),
        ("T%C3%B6k%C3%A9n%2FWort%3D17", "[redacted]"),
        ("Tök\\u00e9n\\/Wort=17.", "[redacted]."),
        ("tök\u{ad}én/wort=17", "[redacted]"),
        ("Ｔökén/Ｗort=１７", "[redacted]"),
        ("is 100%20free", "is [redacted]"),
        ("is 100%2520free", "is [redacted]"),
        // A text that looks encoded is also searched as it stands.
        ("x%2012", "x%[redacted]"),
        (r"%28144\u002d094480", "%[redacted]"),
        ("ωMEGA%20", "[redacted]"),
    ] {
        assert_eq!(redact_text(&secrets, text), clean);
    }
}

#[test]
fn what_was_cut_short_is_found_too() {
    let secrets = secrets(&["0123456789abcdefghij", "8144094480"]);
    for (text, clean) in [
        ("0123456789abcdefgh-", "[redacted]-"),
        ("0123456789...", "[redacted]..."),
        ("is 01234567…", "is [redacted]…"),
        ("to 8144 0944…", "to [redacted]…"),
        // The cut is in the middle of an encoded character.
        ("to %381440%3…", "to [redacted]%3…"),
        ("to \\u00381440\\u00…", "to [redacted]\\u00…"),
        ("100% of 8144…", "100% of [redacted]…"),
        ("100%3…", "100%3…"),
        ("814409448", "[redacted]"),
        // Less than half of the secret, and no sign that the text was cut.
        ("012345678-", "012345678-"),
        ("81440944", "81440944"),
    ] {
        assert_eq!(redact_text(&secrets, text), clean);
    }
}

#[test]
fn secrets_that_overlap_go_whole() {
    assert_eq!(redact_text(&secrets(&["12345", "34567"]), "x1234567x"), "x[redacted]x");
    assert_eq!(redact_text(&secrets(&["1234", "5678"]), "12345678"), "[redacted]");
    // Digits beside a secret are redacted with it, and do not become a number of their own.
    for text in ["+8144094480234123412346", "234123412346８１４４０９４４８０", "x1234\u{200b}234123412346x"]
    {
        let clean = redact_text(&secrets(&["+8144094480", "8144094480", "1234"]), text);
        assert!(!clean.contains("23412"), "{clean}");
    }
    assert_eq!(redact_text(&secrets(&["canary/token=7f"]), "canary/token=7234123412346x"), "[redacted]x");
}

/// No run of text here equals a secret. A search that found these would cost more than it finds.
#[test]
fn what_is_no_run_stays() {
    let secrets = secrets(&["8144094480", "123", "abcd"]);
    for answer in [
        json!(["81440", "94480"]),
        json!({"area": "81440", "number": "94480"}),
        json!("ODE0NDA5NDQ4MA=="),
        json!("0844904418"),
        // Too short: no vendor makes such a code.
        json!({"code": 123, "words": "123"}),
        json!("a-b-c-d"),
    ] {
        let mut clean = answer.clone();
        redact(&crate::dialects::iserveu::DIALECT, &secrets, &mut clean);
        assert_eq!(clean, answer);
    }
}

#[test]
fn an_aadhaar_number_may_stand_in_groups_of_one_length() {
    for text in ["2341-2341-2346", "2341.2341.2346", "234123 412346", "234 123 412 346", "2 3 4 1 2 3 4 1 2 3 4 6"] {
        assert_eq!(redact_text(&[], &format!("x {text}, y")), "x [redacted], y");
    }
    assert_eq!(redact_text(&[], "२३४१ २३४१ २३४६, 17"), "[redacted], 17");
    for text in ["23412 3412346", "1234123412346", "2341a23412346", "2341 2341     2346", "2341 2341 2347"] {
        assert_eq!(redact_text(&[], text), text);
    }
    let mut answer = json!(234123412346.0);
    redact(&crate::dialects::iserveu::DIALECT, &[], &mut answer);
    assert_eq!(answer, json!("[redacted]"));
}

#[test]
fn the_check_digit_tells_an_aadhaar_number_from_twelve_digits() {
    assert!(is_aadhaar("234123412346"));
    assert!(!is_aadhaar("234123412347"));
    assert!(!is_aadhaar("1234"));
    assert_eq!(redact_text(&[], "id 234123412346, at 234123412347"), "id [redacted], at 234123412347");
}

#[test]
fn numbers_and_keys_are_looked_at_too() {
    let secrets = secrets(&["8144094480", "0123", "9876"]);
    let mut answer = json!({
        "a": 8144094480_u64, "b": [918144094480_u64, 9876, 98765], "8144094480": {"c": 123}, "d": 9876.5,
        "e": 234123412346_u64, "f": 8144094480.0, "h": -9876.0
    });
    answer["g"] = serde_json::from_str("81440.94480").unwrap();
    answer["i"] = serde_json::from_str("8.14409448e9").unwrap();
    answer["j"] = serde_json::from_str("814409448000E-02").unwrap();
    redact(&crate::dialects::iserveu::DIALECT, &secrets, &mut answer);
    assert_eq!(
        answer,
        json!({
            "a": "[redacted]", "b": ["[redacted]", "[redacted]", 98765], "[redacted]": {"c": "[redacted]"},
            "d": 9876.5, "e": "[redacted]", "f": "[redacted]", "g": "[redacted]", "h": "[redacted]",
            "i": "[redacted]", "j": "[redacted]"
        })
    );
}

#[test]
fn an_opaque_id_stays_and_a_plain_number_in_its_place_does_not() {
    let secrets = secrets(&["tel:94771234567", "94771234567", "771234567", "4634"]);
    let mut answer = json!({"subscriberId": "tel:hu3b84346f63899a32ec742a666503a02a4dffe4f5", "pin": "4634"});
    redact(&crate::dialects::ideamart::DIALECT, &secrets, &mut answer);
    assert_eq!(answer["subscriberId"], "tel:hu3b84346f63899a32ec742a666503a02a4dffe4f5");
    for plain in ["tel:94771234567", "94771234567", "tel:hu94771234567"] {
        let mut answer = json!({"subscriberId": plain});
        redact(&crate::dialects::ideamart::DIALECT, &secrets, &mut answer);
        assert!(!answer.to_string().contains("771234567"), "{answer}");
    }
}

#[test]
fn only_the_documented_name_makes_an_id_opaque() {
    let mut answer = json!({"RequestId": "234123412346r", "request_id": "234123412346r"});
    redact(&crate::dialects::hyperverge::DIALECT, &[], &mut answer);
    assert_eq!(answer, json!({"RequestId": "234123412346r", "request_id": "[redacted]r"}));
}

#[test]
fn sensitive_members_are_gone_at_any_depth() {
    let mut answer = json!({"data": [{"MobileNumber": "x", "mobile_number": "x", "name": "y", "ok": 1}]});
    redact(&crate::dialects::iserveu::DIALECT, &[], &mut answer);
    assert_eq!(answer, json!({"data": [{"ok": 1}]}));
}

#[test]
fn what_is_too_deep_is_not_kept() {
    let mut answer = json!("8144094480");
    for _ in 0..100 {
        answer = json!([answer]);
    }
    redact(&crate::dialects::iserveu::DIALECT, &secrets(&["8144094480"]), &mut answer);
    assert!(!answer.to_string().contains("8144094480"));
}
