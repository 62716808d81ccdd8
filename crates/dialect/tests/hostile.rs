//! Promise: whatever a server answers (cut off, twisted, huge, deep, random), reading it and redacting it never panics
//! and never reports a code as sent or approved, a verification as over, or a call as one to be made again that the
//! vendor did not say so of in its documented form.

mod caller;
mod page;

use caller::{VENDORS, read_bytes};
use dialect::{Operation, Operation::Verify, Outcome, Secret, redact, redact_text};
use page::{documented, is_end, is_good, names_an_end, says_nothing_was_done, says_success};
use serde_json::{Value, json};

/// Checks that a success that is reported was said by the vendor. (Not the other way round: doubt is always allowed.)
#[track_caller]
fn check(vendor: &str, operation: Operation, status: u16, body: &[u8]) {
    let reading = read_bytes(vendor, operation, status, body);
    if is_good(reading.outcome) {
        let shown = String::from_utf8_lossy(body);
        assert!(says_success(vendor, operation, status, body), "{vendor} {operation:?} {status} {shown}");
    }
    if is_end(reading.outcome) && !reading.is_guess && operation == Verify {
        assert!(names_an_end(vendor, status, body), "{vendor} {status} {}", String::from_utf8_lossy(body));
    }
    if reading.outcome == Outcome::ProviderError {
        let shown = String::from_utf8_lossy(body);
        assert!(
            says_nothing_was_done(vendor, operation, status, false, body),
            "{vendor} {operation:?} {status} {shown}"
        );
    }
    if reading.outcome == Outcome::Unknown {
        assert!(reading.vendor_message.is_some());
    }
    if let Some(mut response) = reading.response {
        redact(caller::vendor(vendor), &[Secret::new("8144094480"), Secret::new("1234")], &mut response);
        assert!(!response.to_string().contains("8144094480"));
    }
}

#[test]
fn a_documented_success_is_one() {
    for (vendor, operation, body) in documented() {
        let text = body.to_string();
        let good = is_good(read_bytes(vendor, operation, 200, text.as_bytes()).outcome);
        assert_eq!(good, says_success(vendor, operation, 200, text.as_bytes()), "{vendor} {text}");
    }
}

#[test]
fn an_answer_cut_off_anywhere_is_no_success() {
    for (vendor, operation, body) in documented() {
        let text = body.to_string();
        for end in 0..text.len() {
            let reading = read_bytes(vendor, operation, 200, &text.as_bytes()[..end]);
            assert_eq!(reading.outcome, Outcome::Unknown, "{vendor} {end}");
        }
        let mut longer = text.clone().into_bytes();
        longer.extend_from_slice(b"}");
        assert_eq!(read_bytes(vendor, operation, 200, &longer).outcome, Outcome::Unknown);
    }
}

/// Returns copies of a value in which one member each is replaced.
fn replaced(value: &Value, with: &Value) -> Vec<Value> {
    let mut all = vec![with.clone()];
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                for other in replaced(member, with) {
                    let mut copy = members.clone();
                    copy.insert(key.clone(), other);
                    all.push(Value::Object(copy));
                }
                let mut without = members.clone();
                without.shift_remove(key);
                all.push(Value::Object(without));
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for other in replaced(item, with) {
                    let mut copy = items.clone();
                    copy[at] = other;
                    all.push(Value::Array(copy));
                }
            }
        }
        _ => {}
    }
    all
}

fn strange() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(200),
        json!(1e300),
        json!(0.5),
        json!(u64::MAX),
        json!(""),
        json!("0"),
        json!("0000"),
        json!("S"),
        json!("SUCCESS"),
        json!("success "),
        json!("FAILED"),
        json!("200"),
        json!("S1000"),
        json!("E1850"),
        json!("\u{0}\u{1f}"),
        json!("ʼn".repeat(3000)),
        json!([]),
        json!({}),
        json!([["SUCCESS"]]),
        json!({"message": {"message": "SUCCESS"}}),
    ]
}

#[test]
fn a_wrong_type_in_any_place_is_survived() {
    for (vendor, operation, body) in documented() {
        for with in strange() {
            for twisted in replaced(&body, &with) {
                for status in [200, 202, 204, 302, 400, 401, 404, 410, 429, 500, 503] {
                    check(vendor, operation, status, twisted.to_string().as_bytes());
                }
            }
        }
    }
}

#[test]
fn an_answer_to_another_call_or_of_another_vendor_is_survived() {
    for (_, _, body) in documented() {
        for (vendor, _) in VENDORS.iter() {
            for operation in Operation::ALL {
                for status in [200, 202, 204, 404, 410, 503] {
                    check(vendor, operation, status, body.to_string().as_bytes());
                }
            }
        }
    }
}

/// A random generator of a seed, so that a failure can be seen again (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

const SPLINTERS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"null",
    b"true",
    b"\xff",
    b"\xc3",
    b"\\u0000",
    b"\\ud800",
    b"SUCCESS",
    b"FAILED",
    b"S1000",
    b"0000",
    b"-",
    b"e9",
    b" ",
    b"\n",
    b"8144094480",
];

fn mutate(dice: &mut Dice, body: &mut Vec<u8>, other: &[u8]) {
    let at = dice.roll(body.len() + 1);
    match dice.roll(6) {
        0 if at < body.len() => body[at] = dice.roll(256) as u8,
        1 if at < body.len() => body[at] ^= 1 << dice.roll(8),
        2 => {
            let to = (at + dice.roll(8)).min(body.len());
            body.drain(at..to);
        }
        3 => {
            let from = dice.roll(other.len());
            let to = (from + dice.roll(24)).min(other.len());
            body.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let splinter = SPLINTERS[dice.roll(SPLINTERS.len())];
            body.splice(at..at, splinter.iter().copied());
        }
    }
}

#[test]
fn random_mutations_are_survived() {
    let documented = documented();
    let texts: Vec<Vec<u8>> = documented.iter().map(|(_, _, body)| body.to_string().into_bytes()).collect();
    let mut dice = Dice(0x5eed_0001);
    for round in 0..60_000 {
        let (vendor, operation, _) = &documented[round % documented.len()];
        let mut body = texts[round % texts.len()].clone();
        for _ in 0..=dice.roll(4) {
            let other = &texts[dice.roll(texts.len())];
            mutate(&mut dice, &mut body, other);
        }
        check(vendor, *operation, [200, 200, 202, 204, 400, 404, 410, 500][dice.roll(8)], &body);
    }
}

#[test]
fn very_deep_and_very_long_answers_are_survived() {
    for (vendor, _) in VENDORS.iter() {
        for body in [
            b"[".repeat(1 << 20),
            b"{\"a\":".repeat(1 << 17),
            [b"[".repeat(500_000), b"]".repeat(500_000)].concat(),
            b"\"".repeat(1 << 20),
            b" ".repeat((1 << 20) + 1),
            [b"{\"status\":\"".to_vec(), b"9".repeat(1 << 19), b"\"}".to_vec()].concat(),
            b"9".repeat(1 << 20),
        ] {
            let reading = read_bytes(vendor, Verify, 200, &body);
            assert_eq!(reading.outcome, Outcome::Unknown);
        }
    }
}

#[test]
fn redaction_of_random_text_never_panics_and_leaves_no_secret() {
    let secrets: Vec<Secret> =
        ["8144094480", "918144094480", "1234", "tökén-1234", "éé"].into_iter().map(Secret::new).collect();
    let pieces =
        ["8144094480", "81440 94480", "1234", "tökén", "-1234", "é", "ü", "0", "9", " ", "-", "TÖKÉN-1234", "x"];
    let mut dice = Dice(0x5eed_0002);
    for _ in 0..20_000 {
        let text: String = (0..dice.roll(12)).map(|_| pieces[dice.roll(pieces.len())]).collect();
        let clean = redact_text(&secrets, &text);
        for secret in ["8144094480", "1234", "tökén-1234", "81440 94480"] {
            assert!(!clean.contains(secret), "{text} -> {clean}");
        }
    }
}
