use serde_json::Value;

use crate::{Dialect, Secret, mobile::Country};

/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// Deeper values are not kept at all; [`crate::read`] keeps answers below this.
const MAX_DEPTH: usize = crate::MAX_ANSWER_DEPTH;
/// Shorter values would blot out half of every answer.
const MIN_SECRET: usize = 4;
/// A secret of so many digits is a number of a person, whatever signs stand between its digits.
const MIN_NUMBER: usize = 9;

/// Takes out of an answer what must not be stored: the vendor's sensitive members, this call's secrets, and whatever
/// looks like an Aadhaar number. Opaque ids, which the application needs unaltered, stay.
pub fn redact(dialect: &Dialect, secrets: &[Secret], value: &mut Value) {
    walk(dialect, &Needles::new(secrets), value, 0);
}

/// The same for a message.
pub fn redact_text(secrets: &[Secret], text: &str) -> String {
    Needles::new(secrets).clean(text)
}

fn walk(dialect: &Dialect, needles: &Needles, value: &mut Value, depth: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => *value = REDACTED.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| walk(dialect, needles, item, depth + 1)),
        Value::Object(members) => {
            let old = std::mem::take(members);
            for (key, mut member) in old {
                if names(dialect.sensitive, &key) {
                    continue;
                }
                let opaque = names(dialect.opaque, &key) && member.as_str().is_some_and(|id| needles.is_opaque(id));
                if !opaque {
                    walk(dialect, needles, &mut member, depth + 1);
                }
                members.insert(needles.clean(&key), member);
            }
        }
        Value::String(text) => {
            let clean = needles.clean(text);
            if clean != *text {
                *text = clean;
            }
        }
        Value::Number(number) => {
            let digits = number.to_string();
            if needles.is_number(&digits) || needles.clean_numbers(&digits) != digits {
                *value = REDACTED.into();
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn names(members: &[&str], key: &str) -> bool {
    members.iter().any(|member| member.eq_ignore_ascii_case(key))
}

/// One call's secrets, ready to be looked for.
struct Needles {
    /// In lower case, longest first, so that no tail of a longer spelling is left standing.
    words: Vec<Secret>,
    /// Those that are nothing but digits and long enough to be a person's number.
    numbers: Vec<Secret>,
}

impl Needles {
    fn new(secrets: &[Secret]) -> Self {
        let mut words: Vec<Secret> = secrets
            .iter()
            .filter(|secret| secret.reveal().len() >= MIN_SECRET)
            .map(|secret| Secret::new(secret.reveal().to_ascii_lowercase()))
            .collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.reveal().len()));
        let numbers = words
            .iter()
            .filter(|word| word.reveal().len() >= MIN_NUMBER && word.reveal().bytes().all(|byte| byte.is_ascii_digit()))
            .cloned()
            .collect();
        Self { words, numbers }
    }

    fn clean(&self, text: &str) -> String {
        self.clean_words(&self.clean_numbers(text))
    }

    fn clean_words(&self, text: &str) -> String {
        // ASCII case does not change lengths: a position in one is a position in the other.
        let lower = text.to_ascii_lowercase();
        let mut clean = String::with_capacity(text.len());
        let (mut at, mut kept) = (0, 0);
        while at < lower.len() {
            match self.words.iter().find(|word| lower.as_bytes()[at..].starts_with(word.reveal().as_bytes())) {
                // A needle is whole UTF-8, so it can only match where characters begin and end.
                Some(word) => {
                    clean.push_str(&text[kept..at]);
                    clean.push_str(REDACTED);
                    at += word.reveal().len();
                    kept = at;
                }
                None => at += 1,
            }
        }
        clean.push_str(&text[kept..]);
        clean
    }

    /// Runs of digits that hold a person's number, even with spaces or hyphens between the digits.
    fn clean_numbers(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let run = &rest[start..start + run_length(&rest[start..])];
            clean.push_str(&rest[..start]);
            let digits: String = run.chars().filter(char::is_ascii_digit).collect();
            let personal = self.numbers.iter().any(|number| digits.contains(number.reveal()));
            let aadhaar = run.split([' ', '-']).any(is_aadhaar)
                || (is_aadhaar(&digits) && run.split([' ', '-']).all(|group| group.len() == 4));
            clean.push_str(if personal || aadhaar { REDACTED } else { run });
            rest = &rest[start + run.len()..];
        }
        clean.push_str(rest);
        clean
    }

    /// A JSON number that is a secret: without the zeros that a number cannot begin with.
    fn is_number(&self, digits: &str) -> bool {
        self.words.iter().any(|word| {
            let bare = word.reveal().trim_start_matches('0');
            bare.len() >= MIN_SECRET - 1 && digits == bare
        })
    }

    /// An id that names nobody: not a number of a person's length, and no number or credential of this call in it.
    fn is_opaque(&self, id: &str) -> bool {
        let body = id.strip_prefix("tel:").unwrap_or(id);
        let lower = id.to_ascii_lowercase();
        (body.chars().any(|c| c.is_ascii_alphabetic()) || body.len() > 15)
            && !self.words.iter().any(|word| word.reveal().len() >= MIN_NUMBER && lower.contains(word.reveal()))
    }
}

/// Digits with at most one space or hyphen between two of them.
fn run_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        let digit = bytes[end].is_ascii_digit();
        let bridge = matches!(bytes[end], b' ' | b'-') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        if !digit && !bridge {
            break;
        }
        end += 1;
    }
    end
}

/// Twelve digits with a right check digit (Verhoeff), as UIDAI gives them out. One in ten other numbers of twelve
/// digits is taken for one too: rather a lost receipt number than a kept Aadhaar number.
fn is_aadhaar(digits: &str) -> bool {
    const TURN: [[u8; 10]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
        [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
        [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
        [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
        [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
        [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
        [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
    ];
    // Multiplication in the dihedral group of the pentagon.
    let times = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + (b - 5)) % 5 + 5,
        (false, true) => ((a - 5) + 5 - b) % 5 + 5,
        (false, false) => ((a - 5) + 5 - (b - 5)) % 5,
    };
    digits.len() == 12
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits
            .bytes()
            .rev()
            .enumerate()
            .fold(0, |check, (at, byte)| times(check, TURN[at % 8][usize::from(byte - b'0')]))
            == 0
}

/// Gathers the secrets of one call.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Secret>);

impl Secrets {
    pub(crate) fn add(&mut self, value: &str) {
        if !value.is_empty() && !self.0.iter().any(|secret| secret.reveal() == value) {
            self.0.push(Secret::new(value));
        }
    }

    pub(crate) fn add_values<const N: usize>(&mut self, values: [Option<&Value>; N]) {
        for value in values.into_iter().flatten() {
            match value {
                Value::String(text) => self.add(text),
                Value::Number(number) => self.add(&number.to_string()),
                _ => {}
            }
        }
    }

    /// The number as sent, as typed, and as a vendor may write it.
    pub(crate) fn add_mobile(&mut self, country: Country, value: Option<&Value>, typed: Option<&Value>) {
        let Some(mobile) = value.and_then(|value| country.parse_value(value)) else {
            return;
        };
        self.add(mobile.wire().reveal());
        self.add(mobile.recipient().reveal());
        for spelling in mobile.spellings() {
            self.add(spelling.reveal());
        }
        self.add_values([typed]);
    }

    pub(crate) fn into_vec(self) -> Vec<Secret> {
        self.0
    }
}

#[cfg(test)]
mod tests {
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
            "e": 234123412346_u64
        });
        redact(&crate::iserveu::DIALECT, &secrets, &mut answer);
        assert_eq!(
            answer,
            json!({
                "a": "[redacted]", "b": ["[redacted]", "[redacted]", 98765], "[redacted]": {"c": "[redacted]"},
                "d": 9876.5, "e": "[redacted]"
            })
        );
    }

    #[test]
    fn an_opaque_id_stays_and_a_plain_number_in_its_place_does_not() {
        let secrets = secrets(&["tel:94771234567", "94771234567", "771234567", "4634"]);
        let mut answer = json!({"subscriberId": "tel:hu3b84346f63899a32ec742a666503a02a4dffe4f5", "pin": "4634"});
        redact(&crate::ideamart::DIALECT, &secrets, &mut answer);
        assert_eq!(answer["subscriberId"], "tel:hu3b84346f63899a32ec742a666503a02a4dffe4f5");
        for plain in ["tel:94771234567", "94771234567", "tel:hu94771234567"] {
            let mut answer = json!({"subscriberId": plain});
            redact(&crate::ideamart::DIALECT, &secrets, &mut answer);
            assert!(!answer.to_string().contains("771234567"), "{answer}");
        }
    }

    #[test]
    fn sensitive_members_are_gone_at_any_depth() {
        let mut answer = json!({"data": [{"MobileNumber": "x", "name": "y", "ok": 1}]});
        redact(&crate::iserveu::DIALECT, &[], &mut answer);
        assert_eq!(answer, json!({"data": [{"ok": 1}]}));
    }

    #[test]
    fn what_is_too_deep_is_not_kept() {
        let mut answer = json!("8144094480");
        for _ in 0..100 {
            answer = json!([answer]);
        }
        redact(&crate::iserveu::DIALECT, &secrets(&["8144094480"]), &mut answer);
        assert!(!answer.to_string().contains("8144094480"));
    }
}
