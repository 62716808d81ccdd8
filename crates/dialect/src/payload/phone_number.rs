use serde_json::Value;

use super::code::{is_hyphen, unseen_ends_off};
use crate::secret::Secret;

/// Longest text that is read as a number, in bytes: three times a number's digits.
const MAX_TYPED: usize = 48;

/// The numbering plans that the vendors send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberingPlan {
    India,
    SriLanka,
    /// Whichever country a number names.
    Any,
}

/// Returns whether a text is a phone number of any country.
pub fn is_phone_number(typed: &str) -> bool {
    NumberingPlan::Any.parse(typed).is_some()
}

/// Returns the calling code of the country of a normalised number, or of the plan that the country shares with others.
/// Returns None if it is no number.
pub fn calling_code(recipient: &str) -> Option<i32> {
    let digits = recipient.strip_prefix('+')?;
    let is_number = (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let length = match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0' | b'1' | b'2' | b'3' | b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        _ => 3,
    };
    is_number.then(|| digits[..length].parse().ok()).flatten()
}

/// One phone number, however it was typed.
pub(crate) struct PhoneNumber {
    country: NumberingPlan,
    /// The digits without the country's code: ten in India, nine in Sri Lanka. Of any other country all digits: where
    /// its code ends is not looked up.
    national: Secret,
}

impl NumberingPlan {
    const fn code(self) -> &'static str {
        match self {
            Self::India => "91",
            Self::SriLanka => "94",
            Self::Any => "",
        }
    }

    /// Returns the accepted forms, for a hint.
    pub(crate) const fn rule(self) -> &'static str {
        match self {
            Self::India => {
                "an Indian mobile number: exactly 10 digits, the first of them 6 to 9, alone or after +91, 91, 0091 \
                 or 0"
            }
            Self::SriLanka => {
                "one Sri Lankan mobile number: tel:947XXXXXXXX, +947XXXXXXXX, 947XXXXXXXX, 00947XXXXXXXX, 07XXXXXXXX \
                 or 7XXXXXXXX"
            }
            Self::Any => {
                "a phone number: + and 8 to 15 digits, country first, without a (0) after it; a mobile of India or \
                 Sri Lanka also as their vendors take it"
            }
        }
    }

    /// Reads a number: every accepted spelling of it gives the same [`PhoneNumber`].
    pub(crate) fn parse(self, typed: &str) -> Option<PhoneNumber> {
        let typed = unseen_ends_off(typed);
        let national = match self {
            Self::India => indian(typed),
            Self::SriLanka => sri_lankan(typed),
            Self::Any => return any(typed),
        }?;
        Some(PhoneNumber { country: self, national })
    }

    /// Reads a number from a member of a payload.
    pub(crate) fn parse_value(self, value: &Value) -> Option<PhoneNumber> {
        match value {
            Value::String(text) => self.parse(text),
            Value::Number(number) => self.parse(Secret::new(number.as_u64()?.to_string()).reveal()),
            _ => None,
        }
    }
}

impl PhoneNumber {
    /// Returns the number as the vendors of its country document it.
    pub(crate) fn wire(&self) -> Secret {
        match self.country {
            NumberingPlan::India => self.national.clone(),
            NumberingPlan::SriLanka => Secret::new(format!("tel:94{}", self.national.reveal())),
            NumberingPlan::Any => self.recipient(),
        }
    }

    /// Returns `+94771234567`: the one form of a number, however it was typed.
    pub(crate) fn recipient(&self) -> Secret {
        Secret::new(format!("+{}{}", self.country.code(), self.national.reveal()))
    }

    /// Returns `+94*****4567`.
    pub(crate) fn masked(&self) -> String {
        let national = self.national.reveal();
        let (hidden, shown) = national.split_at(national.len() - 4);
        format!("+{}{}{shown}", self.country.code(), "*".repeat(hidden.len()))
    }

    /// Returns the digits with which a vendor may write the number, longer spellings first.
    pub(crate) fn spellings(&self) -> [Secret; 3] {
        let after = |prefix| Secret::new(format!("{prefix}{}", self.national.reveal()));
        [after(self.country.code()), after("0"), self.national.clone()]
    }
}

/// Reads an Indian mobile number. The vendors' pages say "exactly 10 digits"; India's numbering plan says that mobiles
/// begin with 6 to 9. No code reaches any other number: a text that looks like one is a slip.
fn indian(typed: &str) -> Option<Secret> {
    let (plus, digits) = digits_of(typed)?;
    let digits = digits.reveal();
    let national = match (plus, digits.len()) {
        (true, 12) | (false, 12) => digits.strip_prefix("91"),
        (false, 14) => digits.strip_prefix("0091"),
        (false, 11) => digits.strip_prefix('0'),
        (false, 10) => Some(digits),
        _ => None,
    };
    national.filter(|national| national.starts_with(['6', '7', '8', '9'])).map(Secret::new)
}

/// Reads the forms that docs/vendors/ideamart.md lists. Mobile numbers begin with 7.
fn sri_lankan(typed: &str) -> Option<Secret> {
    let (plus, digits);
    let national = match typed.strip_prefix("tel:") {
        Some(digits) => digits.strip_prefix("94").filter(|_| digits.len() == 11)?,
        None => {
            (plus, digits) = digits_of(typed)?;
            let digits = digits.reveal();
            match (plus, digits.len()) {
                (true, 11) | (false, 11) => digits.strip_prefix("94"),
                (false, 13) => digits.strip_prefix("0094"),
                (false, 10) => digits.strip_prefix('0'),
                (false, 9) => Some(digits),
                _ => None,
            }?
        }
    };
    let sound = national.bytes().all(|byte| byte.is_ascii_digit()) && national.starts_with('7');
    sound.then(|| Secret::new(national))
}

/// Reads a number of any country. Ten digits that begin with 07 are Sri Lankan: Indian mobiles begin with 6 to 9.
fn any(typed: &str) -> Option<PhoneNumber> {
    let of = |country| move |national| PhoneNumber { country, national };
    sri_lankan(typed)
        .map(of(NumberingPlan::SriLanka))
        .or_else(|| indian(typed).map(of(NumberingPlan::India)))
        .or_else(|| international(typed))
}

/// Reads a number of any kind that has its `+`: a landline can be called.
fn international(typed: &str) -> Option<PhoneNumber> {
    let (plus, secret) = digits_of(typed)?;
    let digits = secret.reveal();
    if !plus || !(8..=15).contains(&digits.len()) {
        return None;
    }
    for (country, length) in [(NumberingPlan::India, 10), (NumberingPlan::SriLanka, 9)] {
        if let Some(national) = digits.strip_prefix(country.code()) {
            // A number of a known country has a known length; a trunk zero after the country is a slip that would reach
            // nobody.
            let sound = national.len() == length && !national.starts_with('0');
            return sound.then(|| PhoneNumber { country, national: Secret::new(national) });
        }
    }
    // No country's code begins with 0.
    (!digits.starts_with('0')).then_some(PhoneNumber { country: NumberingPlan::Any, national: secret })
}

/// Returns whether a plus leads, and the digits of a number as people write it: single spaces, hyphens and dots between
/// them, pairs of parentheses around some. A zero in parentheses after the country's code is left out: it is dialled
/// within that country alone.
fn digits_of(typed: &str) -> Option<(bool, Secret)> {
    if typed.len() > MAX_TYPED {
        return None;
    }
    // Room for every digit at once: a text that grows leaves copies behind.
    let mut digits = String::with_capacity(typed.len());
    let (mut plus, mut opened_at, mut trunk_zero, mut last) = (false, None, None, None);
    for c in typed.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if !plus && digits.is_empty() && matches!(last, None | Some('(')) => plus = true,
            '(' if opened_at.is_none() && last != Some('+') => opened_at = Some(digits.len()),
            ')' if last.is_some_and(|last| last.is_ascii_digit()) => {
                let (before, within) = digits.split_at(opened_at.take()?);
                match (before, within) {
                    ("91" | "94" | "0091" | "0094", "0") if trunk_zero.is_none() => {
                        trunk_zero = digits.pop();
                    }
                    ("", _) => {}
                    // Some countries keep that zero, and of which country a number is is not looked up.
                    (_, "0") => return None,
                    _ => {}
                }
            }
            _ if is_separator(c) && last.is_some_and(|last| last.is_ascii_digit() || last == ')') => {}
            _ => return None,
        }
        last = Some(c);
    }
    let ends = opened_at.is_none() && last.is_some_and(|last| last.is_ascii_digit() || last == ')');
    ends.then(|| (plus, Secret::new(digits)))
}

fn is_separator(c: char) -> bool {
    c == '.' || is_hyphen(c) || (c.is_whitespace() && !c.is_control())
}

/// Returns a user id as people may see it: its ends, if it is long enough to hide behind them.
pub(crate) fn mask_user(id: &str) -> String {
    let chars: Vec<char> = id.chars().collect();
    if chars.len() < 8 {
        return "*****".into();
    }
    let (head, tail) = (&chars[..2], &chars[chars.len() - 2..]);
    head.iter().copied().chain("*****".chars()).chain(tail.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_spelling_of_an_indian_number_is_one_recipient() {
        for typed in [
            json!("8144094480"),
            json!("+918144094480"),
            json!("+91 81440 94480"),
            json!("91-8144094480"),
            json!("918144094480"),
            json!("00918144094480"),
            json!("08144094480"),
            json!("81440-94480"),
            json!("  8144094480\r\n"),
            json!("\u{202a}+91\u{a0}81440\u{a0}94480\u{202c}"),
            json!("81440\u{2011}94480"),
            json!("+91.81440.94480"),
            json!("(0)8144094480"),
            json!("(081440) 94480"),
            json!("(+91) 81440-94480"),
            json!("(+91)(81440)(94480)"),
            json!("+91 (0) 81440 94480"),
            json!("0091 (0)81440 94480"),
            json!("91(0)8144094480"),
            json!(8144094480_u64),
            json!(918144094480_u64),
        ] {
            let mobile = NumberingPlan::India.parse_value(&typed).unwrap();
            assert_eq!(mobile.wire().reveal(), "8144094480");
            assert_eq!(mobile.recipient().reveal(), "+918144094480");
            assert_eq!(mobile.masked(), "+91******4480");
        }
        for first in ["6", "7", "8", "9"] {
            let typed = format!("{first}144094480");
            assert_eq!(NumberingPlan::India.parse_value(&json!(typed)).unwrap().wire().reveal(), typed);
        }
        // Ten digits that begin with the country's code are ten digits.
        assert_eq!(NumberingPlan::India.parse_value(&json!("9198765432")).unwrap().wire().reveal(), "9198765432");
    }

    #[test]
    fn what_is_no_indian_number_is_refused() {
        for typed in [
            json!(""),
            json!("814409448"),
            json!("81440944801"),
            json!("+8144094480"),
            json!("+94771234567"),
            // No mobile: the first digit is not 6 to 9.
            json!("0144094480"),
            json!("1144094480"),
            json!("5144094480"),
            json!("+915144094480"),
            json!("91 5144094480"),
            json!("00910144094480"),
            json!("05144094480"),
            json!(5144094480_u64),
            json!("81440--94480"),
            json!("81440..94480"),
            json!("81440\n94480"),
            json!("8144094480-"),
            json!("81440 94480 or 81440 94481"),
            json!("8144094480, 8144094481"),
            json!("8144094480;ext=7"),
            // Parentheses that are not a pair, or hold nothing.
            json!("(81440 94480"),
            json!("81440) 94480"),
            json!("((81440)) 94480"),
            json!("81440 () 94480"),
            json!("(+)8144094480"),
            json!("+91 +8144094480"),
            json!("91+8144094480"),
            // A (0) that is after no country's code is a digit too many.
            json!("+91 814 (0) 4094480"),
            json!("+91 (00)8144094480"),
            json!("+91 (0)(0)8144094480"),
            json!("+(0)918144094480"),
            json!("0(0)8144094480"),
            json!("814409448O"),
            json!("८१४४०९४४८०"),
            json!(-8144094480_i64),
            json!(8144094480.5),
            json!(true),
            json!(["8144094480"]),
            json!("8".repeat(10_000)),
        ] {
            assert!(NumberingPlan::India.parse_value(&typed).is_none());
        }
    }

    #[test]
    fn every_listed_spelling_of_a_sri_lankan_number_is_one_recipient() {
        for typed in [
            json!("tel:94771234567"),
            json!("+94771234567"),
            json!("94771234567"),
            json!("0094771234567"),
            json!("0771234567"),
            json!("771234567"),
            json!("077 123 4567"),
            json!("+94-77-123-4567"),
            json!(" tel:94771234567 "),
            json!("(077) 123-4567"),
            json!("077.123.4567"),
            json!(" 077 123 4567\t"),
            json!("+94 (0)77 1234567"),
            json!("+94(0)77 123 4567"),
            json!(771234567),
            json!(94771234567_u64),
        ] {
            let mobile = NumberingPlan::SriLanka.parse_value(&typed).unwrap();
            assert_eq!(mobile.wire().reveal(), "tel:94771234567");
            assert_eq!(mobile.recipient().reveal(), "+94771234567");
            assert_eq!(mobile.masked(), "+94*****4567");
        }
    }

    #[test]
    fn what_is_no_sri_lankan_number_is_refused() {
        for typed in [
            "tel:all",
            "all",
            "tel:",
            "tel:0771234567",
            "tel:+94771234567",
            "tel:9477123456",
            "tel:hu3b84346f63899a32",
            "+940771234567",
            "0112345678x",
            "0112345678",
            "112345678",
            "+94112345678",
            "94912345678",
            "0094612345678",
            "tel:94112345678",
            "+918144094480",
            "tel:94 771234567",
            "tel:(94)771234567",
            "tel: 94771234567",
            "+94 (0)11 234 5678",
            "+94 (0)(77) (0)1234567",
            "tel:94077123456",
        ] {
            assert!(NumberingPlan::SriLanka.parse_value(&json!(typed)).is_none(), "{typed}");
        }
    }

    #[test]
    fn every_spelling_of_a_number_of_any_country_is_one_recipient() {
        for (typed, recipient, masked) in [
            ("+44 20 7946 0958", "+442079460958", "+********0958"),
            ("+44-2079460958", "+442079460958", "+********0958"),
            (" (+44) 20.7946.0958 ", "+442079460958", "+********0958"),
            ("+1 (202) 555-0123", "+12025550123", "+*******0123"),
            ("+94 (0)11 234 5678", "+94112345678", "+94*****5678"),
            ("+12345678", "+12345678", "+****5678"),
            ("+123456789012345", "+123456789012345", "+***********2345"),
            ("tel:94771234567", "+94771234567", "+94*****4567"),
            ("0771234567", "+94771234567", "+94*****4567"),
            ("771234567", "+94771234567", "+94*****4567"),
            ("8144094480", "+918144094480", "+91******4480"),
            ("08144094480", "+918144094480", "+91******4480"),
            ("+91 81440-94480", "+918144094480", "+91******4480"),
            // Landlines, which can be called.
            ("+91 22 2345 6789", "+912223456789", "+91******6789"),
            ("+94 11 234 5678", "+94112345678", "+94*****5678"),
        ] {
            for typed in [typed, recipient] {
                let mobile = NumberingPlan::Any.parse_value(&json!(typed)).unwrap();
                assert_eq!((mobile.recipient().reveal(), mobile.masked().as_str()), (recipient, masked), "{typed}");
            }
        }
        for typed in [
            "+1234567",
            "+1234567890123456",
            "442079460958",
            "+0442079460958",
            // In Italy that 0 is dialled, in Britain it is not.
            "+44 (0)20 7946 0958",
            "+39 (0)6 1234 5678",
            "+91814409448",
            "+910144094480",
            "+940771234567",
            // Without its + a number is a mobile of India or Sri Lanka.
            "2223456789",
            "912223456789",
            "0112345678",
            "94112345678",
            "tel:94112345678",
            "tel:all",
            "",
        ] {
            assert!(NumberingPlan::Any.parse_value(&json!(typed)).is_none(), "{typed}");
        }
    }

    #[test]
    fn a_user_id_shows_its_ends_only_when_it_is_long() {
        assert_eq!(mask_user("alice"), "*****");
        assert_eq!(mask_user("alice.b"), "*****");
        assert_eq!(mask_user("alice.bo"), "al*****bo");
        assert_eq!(mask_user("ålice.bø"), "ål*****bø");
    }
}
