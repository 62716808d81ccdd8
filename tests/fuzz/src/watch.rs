//! The secrets of a call, their spellings, and the search for them in what is left of an answer. It shares no code with
//! the redactor that it watches.

use dialect::{Dialect, Operation};
use serde_json::Value;

pub struct Canaries {
    /// As the user typed it, with the country.
    pub number: String,
    /// Of a verify.
    pub code: Option<String>,
    pub token: String,
    /// With a right check digit: found even where the call has none.
    pub aadhaar: String,
    /// Without the country.
    national: &'static str,
    /// What the marks stand for, as JSON source.
    spellings: Vec<String>,
    /// Those of number and token that must be found as they are.
    encoded: Vec<String>,
}

/// The marks: U+E000 and those after it, in UTF-8.
const MARK: [u8; 2] = [0xee, 0x80];
/// So many spellings, the first, are JSON numbers, which need no quotes.
const BARE: usize = 6;

impl Canaries {
    pub fn of(vendor: &str, operation: Operation) -> Self {
        let (country, national) = if vendor == "ideamart" { ("94", "771234567") } else { ("91", "8144094480") };
        let code = (operation == Operation::Verify).then(|| "907314".to_owned());
        let (token, aadhaar) = ("cAnary/tok+én=7f".to_owned(), "234123412346".to_owned());
        let digits = |zero: u32| {
            let other = |digit: char| char::from_u32(zero + u32::from(digit) - u32::from('0')).expect("a digit");
            national.chars().map(other).collect::<String>()
        };
        let between = |sign: &str| national.chars().map(String::from).collect::<Vec<_>>().join(sign);
        let (first, rest) = national.split_at(1);
        let (head, tail) = national.split_at(5);
        let typed = code.as_deref().unwrap_or("907314");
        let spellings = vec![
            // As numbers.
            national.to_owned(),
            format!("{country}{national}"),
            format!("{national}.000"),
            format!("{first}.{rest}e{}", rest.len()),
            typed.to_owned(),
            aadhaar.clone(),
            // As texts.
            national.to_owned(),
            format!("+{country}{national}"),
            format!("0{national}"),
            format!("+{country} {head} {tail}"),
            format!("({head}) - {tail}"),
            between("."),
            between("\u{200b}"),
            digits(0xff10),
            digits(0x966),
            format!("%2B{country}%20{head}%20{tail}"),
            format!("\\u00{:02x}{rest}", first.as_bytes()[0]),
            format!("{head}\\\\u002d{tail}"),
            typed.to_owned(),
            format!("{}-{}", &typed[..3], &typed[3..]),
            token.clone(),
            token.to_uppercase(),
            token.replace('k', "\u{ad}k"),
            token.replace('/', "\\/"),
            token.replace('/', "\\\\/"),
            token.replace('/', "%2F").replace('+', "%2b").replace('é', "%C3%A9").replace('=', "%3D"),
            aadhaar.clone(),
            format!("{} {} {}", &aadhaar[..4], &aadhaar[4..8], &aadhaar[8..]),
        ];
        let number = format!("+{country} {head} {tail}");
        let encoded = spellings.iter().filter(|spelling| spelling.contains(['%', '\\']));
        let encoded = encoded.map(|spelling| spelling.replace("\\\\", "\\")).collect();
        Self { number, code, token, aadhaar, national, spellings, encoded }
    }

    /// How many marks there are.
    pub const MARKS: u32 = 28;

    pub fn mark(number: u32) -> char {
        char::from_u32(0xe000 + number % Self::MARKS).expect("a character of private use")
    }

    /// The body with what its marks stand for.
    pub fn weave(&self, body: &[u8]) -> Vec<u8> {
        assert_eq!(self.spellings.len(), Self::MARKS as usize);
        let mut woven = Vec::with_capacity(body.len());
        let mut rest = body;
        while let Some(first) = rest.first() {
            let number = rest.strip_prefix(&MARK).and_then(|after| usize::from(*after.first()?).checked_sub(0x80));
            let Some((number, spelling)) = number.and_then(|number| Some((number, self.spellings.get(number)?))) else {
                woven.push(*first);
                rest = &rest[1..];
                continue;
            };
            rest = &rest[3..];
            if number < BARE && woven.last() == Some(&b'"') && rest.first() == Some(&b'"') {
                woven.pop();
                rest = &rest[1..];
            }
            woven.extend_from_slice(spelling.as_bytes());
        }
        woven
    }

    /// Nothing of the call in a text.
    #[track_caller]
    pub fn assert_absent(&self, text: &str) {
        self.assert_not_in_id(text);
        if let Some(code) = &self.code {
            assert!(!is_spaced_out(code, text), "the code in {text:?}");
        }
        if text.len() < self.aadhaar.len() {
            return;
        }
        let plain = plain(text);
        for aadhaar in [&self.aadhaar, &self.spellings[27]] {
            for (at, _) in plain.match_indices(aadhaar.as_str()) {
                let beside = [plain[..at].chars().next_back(), plain[at + aadhaar.len()..].chars().next()];
                // In a longer run of digits it is none.
                assert!(beside.into_iter().flatten().any(char::is_numeric), "an Aadhaar number in {text:?}");
            }
        }
    }

    /// No number and no credential in an id, which may hold as many digits as a code has.
    #[track_caller]
    pub fn assert_not_in_id(&self, id: &str) {
        if id.len() < self.national.len() {
            return;
        }
        assert!(!is_spaced_out(self.national, id), "the number in {id:?}");
        let lower = plain(id).to_lowercase();
        assert!(!lower.contains(&self.token.to_lowercase()), "the token in {id:?}");
        for spelling in self.encoded.iter().filter(|spelling| spelling.len() <= id.len()) {
            for (at, _) in id.match_indices(spelling) {
                // What follows \u or % is a part of another character, if it is encoded.
                let before: String = id[..at].chars().rev().take(5).collect();
                let is_torn = before.contains(if spelling.contains('%') { "%" } else { "u\\" });
                assert!(is_torn, "{spelling:?} in {id:?}");
            }
        }
    }

    #[track_caller]
    pub fn assert_absent_in(&self, dialect: &Dialect, value: &Value) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    let is_it = |name: &str| name.eq_ignore_ascii_case(key);
                    assert!(!dialect.sensitive().any(is_it), "{key} is left");
                    self.assert_absent(key);
                    match member {
                        Value::String(id) if dialect.opaque().any(is_it) => self.assert_not_in_id(id),
                        _ => self.assert_absent_in(dialect, member),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.assert_absent_in(dialect, item)),
            Value::String(text) => self.assert_absent(text),
            Value::Number(number) => {
                let text = number.to_string();
                assert!(!is_spaced_out(self.national, &text), "the number in {text}");
                let value = number.as_f64();
                for secret in [Some(&self.aadhaar), self.code.as_ref()].into_iter().flatten() {
                    assert!(text != *secret && value != secret.parse().ok(), "{secret} in {text}");
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// Without what is not seen: what Unicode calls format characters and variation selectors, below U+10000.
fn plain(text: &str) -> String {
    let is_unseen = |c| match u32::from(c) {
        0xad | 0x34f | 0x61c | 0xfeff => true,
        code => [0x180b..0x180f, 0x200b..0x2010, 0x202a..0x202f, 0x2060..0x2070, 0xfe00..0xfe10]
            .iter()
            .any(|range| range.contains(&code)),
    };
    text.chars().filter(|c| !is_unseen(*c)).collect()
}

/// Whether the digits of a number stand in a text, with at most four signs between two of them.
fn is_spaced_out(number: &str, text: &str) -> bool {
    let value = |c: char| match u32::from(c) {
        code @ 0xff10..=0xff19 => Some(code - 0xff10),
        code @ 0x966..=0x96f => Some(code - 0x966),
        _ => c.to_digit(10),
    };
    let chars: Vec<char> = text.chars().collect();
    let digits: Vec<u32> = number.chars().filter_map(value).collect();
    (0..chars.len()).filter(|start| value(chars[*start]) == Some(digits[0])).any(|start| {
        let mut at = start + 1;
        digits[1..].iter().all(|digit| {
            at += chars[at..].iter().take_while(|c| !c.is_alphanumeric()).take(4).count() + 1;
            chars.get(at - 1).is_some_and(|c| value(*c) == Some(*digit))
        })
    })
}
