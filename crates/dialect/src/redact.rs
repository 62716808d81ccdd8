use std::ops::Range;

use memchr::memmem;
use serde_json::Value;

use crate::{dialect::Dialect, payload::phone_number::NumberingPlan, response::CallResult, secret::Secret};

/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// Deeper values are not kept at all; [`crate::response::read`] keeps answers below this.
const MAX_DEPTH: usize = crate::response::MAX_RESPONSE_DEPTH;
/// Shorter values would blot out half of every answer; no vendor makes a code that is shorter.
const MIN_SECRET: usize = 4;
/// So many digits are looked for with other signs between them, too: `123-456`.
const MIN_SPACED: usize = 6;
/// So many signs may stand between two digits of one number: `(81440) - 94480`.
const MAX_GAP: usize = 4;
/// A secret of this length does not stand in an id, or in a longer number, by chance.
const MIN_NUMBER: usize = 9;

impl CallResult {
    /// The reading as it may be told, and its answer as it may be put on record. What a vendor echoes of what it was
    /// sent stands in neither but in `response`, which goes to who sent it; a reference that holds some of it is none.
    pub fn redacted(mut self, dialect: &Dialect, secrets: &[Secret]) -> (Self, Option<Value>) {
        let needles = Needles::new(secrets);
        for text in [&mut self.vendor_code, &mut self.vendor_message].into_iter().flatten() {
            if let Some(clean) = needles.clean(text) {
                *text = clean;
            }
        }
        self.reference = self.reference.filter(|reference| !needles.stand_in(reference));
        let mut record = self.response.clone();
        if let Some(record) = &mut record {
            walk(dialect, &needles, record, 0);
        }
        (self, record)
    }
}

/// Takes out of an answer what must not be stored: the vendor's sensitive members, this call's secrets, and whatever
/// looks like an Aadhaar number. Opaque ids, which the application needs unaltered, stay.
pub fn redact(dialect: &Dialect, secrets: &[Secret], value: &mut Value) {
    walk(dialect, &Needles::new(secrets), value, 0);
}

/// The same for a message.
pub fn redact_text(secrets: &[Secret], text: &str) -> String {
    Needles::new(secrets).clean(text).unwrap_or_else(|| text.into())
}

fn walk(dialect: &Dialect, needles: &Needles, value: &mut Value, depth: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => *value = REDACTED.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| walk(dialect, needles, item, depth + 1)),
        Value::Object(members) => {
            let old = std::mem::take(members);
            for (key, mut member) in old {
                if names(dialect.sensitive(), &key) {
                    continue;
                }
                let is_named = dialect.opaque().any(|name| name.eq_ignore_ascii_case(&key));
                let opaque = is_named && member.as_str().is_some_and(|id| needles.is_opaque(id));
                if !opaque {
                    walk(dialect, needles, &mut member, depth + 1);
                }
                members.insert(needles.clean(&key).unwrap_or(key), member);
            }
        }
        Value::String(text) => {
            if let Some(clean) = needles.clean(text) {
                *text = clean;
            }
        }
        Value::Number(number) => {
            if needles.is_number(&number.to_string()) {
                *value = REDACTED.into();
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// `mobileNumber` is also `MobileNumber` and `mobile_number`: what is to go is named broadly, what may stay exactly.
fn names<'a>(mut members: impl Iterator<Item = &'a str>, key: &str) -> bool {
    let plain = |name| str::bytes(name).filter(|byte| !matches!(byte, b'_' | b'-' | b' '));
    members.any(|member| {
        plain(member).map(|byte| byte.to_ascii_lowercase()).eq(plain(key).map(|byte| byte.to_ascii_lowercase()))
    })
}

/// Whether a text has the name of a member in it that is not kept.
pub(crate) fn names_a_person(dialect: &Dialect, text: &str) -> bool {
    let plain = |text: &str| text.replace(['_', '-', ' '], "").to_lowercase();
    let text = plain(text);
    dialect.sensitive().any(|name| text.contains(&plain(name)))
}

/// One call's secrets, ready to be looked for.
struct Needles {
    words: Vec<Secret>,
    /// The digits of those that have no letters.
    numbers: Vec<Secret>,
}

impl Needles {
    fn new(secrets: &[Secret]) -> Self {
        let mut needles = Self { words: Vec::new(), numbers: Vec::new() };
        for secret in secrets {
            let view = View::new(secret.reveal(), |_| None);
            if view.words.text.len() >= MIN_SECRET {
                if view.digits.text.len() >= MIN_SPACED && !view.words.text.chars().any(char::is_alphabetic) {
                    needles.numbers.push(Secret::new(view.digits.text));
                }
                needles.words.push(Secret::new(view.words.text));
            }
        }
        needles
    }

    /// The text without what must not be stored; none if it may stay as it is.
    fn clean(&self, text: &str) -> Option<String> {
        let is_cut = text.ends_with('…') || text.ends_with("...");
        let mut spans = Vec::new();
        for view in views(text) {
            for (folded, needle) in self.sought(&view) {
                folded.find(needle, is_cut, &mut spans);
            }
            view.find_aadhaar(&mut spans);
        }
        if spans.is_empty() {
            return None;
        }
        spans.sort_by_key(|span| span.start);
        let is_digit = |c: char| is_invisible(c) || ascii(c).is_ascii_digit();
        let mut clean = String::with_capacity(text.len());
        let mut kept = 0;
        for span in spans {
            let (mut from, mut to) = (span.start.max(kept), span.end);
            if to < kept {
                continue;
            }
            // The country's code and the trunk's zero go with a number, and no rest becomes a run of its own.
            if text[from..].starts_with(is_digit) {
                from = kept + text[kept..from].trim_end_matches(is_digit).len();
            }
            if text[..to].ends_with(is_digit) {
                to = text.len() - text[to..].trim_start_matches(is_digit).len();
            }
            clean.push_str(&text[kept..from]);
            if from > kept || kept == 0 {
                clean.push_str(REDACTED);
            }
            kept = to;
        }
        clean.push_str(&text[kept..]);
        Some(clean)
    }

    /// What is looked for, and where.
    fn sought<'a>(&'a self, view: &'a View) -> impl Iterator<Item = (&'a Folded, &'a str)> {
        let words = self.words.iter().map(|word| (&view.words, word.reveal()));
        words.chain(self.numbers.iter().map(|number| (&view.digits, number.reveal())))
    }

    fn stand_in(&self, id: &str) -> bool {
        let holds = |(folded, needle): (&Folded, &str)| needle.len() >= MIN_NUMBER && folded.holds(needle);
        views(id).any(|view| self.sought(&view).any(holds))
    }

    /// A JSON number that is a secret, without the zeros that a number cannot begin with, or that holds a person's.
    fn is_number(&self, number: &str) -> bool {
        let Some(digits) = whole(number) else { return self.stand_in(number) };
        let is_secret = self.words.iter().any(|word| {
            let bare = word.reveal().trim_start_matches('0');
            bare.len() >= MIN_SECRET - 1 && digits == bare
        });
        is_secret || is_aadhaar(&digits) || self.stand_in(&digits)
    }

    /// An id that names nobody: not a number of a person's length, and no number or credential of this call in it.
    fn is_opaque(&self, id: &str) -> bool {
        let body = id.strip_prefix("tel:").unwrap_or(id);
        (body.chars().any(|c| c.is_ascii_alphabetic()) || body.len() > 15) && !self.stand_in(id)
    }
}

/// The digits of a number that is whole, however it is written: `8144094480.0` and `8.14409448e9` are 8144094480.
/// Without sign and leading zeros: none of zero.
pub(crate) fn whole(number: &str) -> Option<String> {
    let number = number.trim().trim_start_matches(['-', '+']).to_ascii_lowercase();
    let (mantissa, exponent) = number.split_once('e').unwrap_or((&number, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{before}{after}");
    let point = exponent.parse::<isize>().ok().filter(|exponent| exponent.abs() < 32)?;
    let point = before.len().checked_add_signed(point)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if point < digits.len() {
        let fraction = digits.split_off(point);
        if fraction.bytes().any(|digit| digit != b'0') {
            return None;
        }
    } else {
        digits.extend(std::iter::repeat_n('0', point - digits.len()));
    }
    Some(digits.trim_start_matches('0').to_owned())
}

/// The views in which a text is searched: as it stands and, where it looks encoded, decoded. Each for itself, since
/// what looks encoded may be a secret that has a `%` before it.
fn views(text: &str) -> impl Iterator<Item = View> {
    let decoders: [(_, Decoder); 2] = [('%', percent_encoded), ('\\', escaped)];
    let needed = decoders.into_iter().filter(|(sign, _)| text.contains(*sign));
    std::iter::once(View::new(text, |_| None)).chain(needed.map(|(_, decode)| View::new(text, decode)))
}

/// Reads one encoded character at the beginning of a text: the character, and the bytes that it takes.
type Decoder = fn(&str) -> Option<(char, usize)>;

/// A text as it is compared: in lower case, digits of all scripts as ASCII, without invisible characters.
#[derive(Default)]
struct View {
    words: Folded,
    /// Digits alone. Between those that are not of one number stands a space.
    digits: Folded,
    /// The digits that follow each other immediately: from where in `digits`, and how many.
    groups: Vec<(usize, usize)>,
}

/// A folded text, and for each of its bytes what it stands for.
#[derive(Default)]
struct Folded {
    text: String,
    places: Vec<(usize, usize)>,
}

impl View {
    fn new(text: &str, decode: Decoder) -> Self {
        let mut view = Self { words: Folded::with_capacity(text.len()), ..Self::default() };
        let (mut at, mut gap, mut is_apart) = (0, 0, true);
        while let Some(first) = text[at..].chars().next() {
            let (c, length) = decode(&text[at..]).unwrap_or((first, first.len_utf8()));
            let place = (at, at + length);
            at += length;
            if is_invisible(c) {
                continue;
            }
            let c = ascii(c);
            if c.is_ascii() {
                view.words.push(c.to_ascii_lowercase(), place);
            } else {
                c.to_lowercase().for_each(|lower| view.words.push(lower, place));
            }
            if !c.is_ascii_digit() {
                gap += 1;
                is_apart |= c.is_alphanumeric() || gap > MAX_GAP;
                continue;
            }
            if is_apart && !view.digits.text.is_empty() {
                view.digits.push(' ', place);
            }
            match view.groups.last_mut() {
                Some((_, length)) if gap == 0 => *length += 1,
                _ => view.groups.push((view.digits.text.len(), 1)),
            }
            view.digits.push(c, place);
            (gap, is_apart) = (0, false);
        }
        view
    }

    /// Twelve digits together, or in groups of one length, that have the right check digit.
    fn find_aadhaar(&self, spans: &mut Vec<Range<usize>>) {
        for size in [12, 6, 4, 3, 1] {
            for groups in self.groups.windows(12 / size) {
                let from = groups[0].0;
                let together = groups.iter().zip(0..).all(|(group, number)| *group == (from + number * size, size));
                if together && is_aadhaar(&self.digits.text[from..from + 12]) {
                    spans.push(self.digits.span(from, 12));
                }
            }
        }
    }
}

impl Folded {
    fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), places: Vec::with_capacity(bytes) }
    }

    fn push(&mut self, c: char, place: (usize, usize)) {
        self.text.push(c);
        self.places.resize(self.text.len(), place);
    }

    /// What is to go, in bytes of the text that was folded.
    fn span(&self, at: usize, length: usize) -> Range<usize> {
        self.places[at].0..self.places[at + length - 1].1
    }

    /// Not even begins to search where there is no room: that costs as much as the needle is long.
    fn holds(&self, needle: &str) -> bool {
        needle.len() <= self.text.len() && memmem::find(self.text.as_bytes(), needle.as_bytes()).is_some()
    }

    /// The whole needle; the beginning of a long one, as far as it goes; and where the text was cut, what was left of
    /// it.
    fn find(&self, needle: &str, is_cut: bool, spans: &mut Vec<Range<usize>>) {
        let enough = needle.len().div_ceil(2).max(MIN_NUMBER);
        let half = (enough..needle.len()).find(|at| needle.is_char_boundary(*at)).unwrap_or(needle.len());
        if self.holds(&needle[..half]) {
            let text = self.text.as_str();
            spans.extend(text.match_indices(needle).map(|(at, _)| self.span(at, needle.len())));
            for (at, _) in text.match_indices(&needle[..half]) {
                let length = text[at..].bytes().zip(needle.bytes()).take_while(|(a, b)| a == b).count();
                spans.push(self.span(at, length));
            }
        }
        if is_cut {
            let text = self.text.trim_end_matches(['.', '…']);
            for text in [text, without_half(text)].map(str::as_bytes) {
                let lengths = MIN_SECRET..needle.len().min(text.len() + 1);
                if let Some(length) = lengths.rev().find(|length| text.ends_with(&needle.as_bytes()[..*length])) {
                    spans.push(self.span(text.len() - length, length));
                }
            }
        }
    }
}

/// Without the half of an encoded character that a cut has left: `%3`, `\u00`.
fn without_half(text: &str) -> &str {
    let tail = text.trim_end_matches(|c: char| c.is_ascii_hexdigit() || c == 'u');
    match tail.strip_suffix(['%', '\\']) {
        Some(whole) if text.len() - whole.len() < 6 => whole,
        _ => text,
    }
}

fn hex(digits: Option<&str>) -> Option<u32> {
    u32::from_str_radix(digits?, 16).ok()
}

fn escaped(text: &str) -> Option<(char, usize)> {
    match text.strip_prefix('\\')?.bytes().next()? {
        b'u' => Some((char::from_u32(hex(text.get(2..6))?)?, 6)),
        b'b' | b'f' | b'n' | b'r' | b't' => Some((' ', 2)),
        sign => sign.is_ascii_punctuation().then_some((char::from(sign), 2)),
    }
}

fn percent_encoded(text: &str) -> Option<(char, usize)> {
    let mut bytes = Vec::new();
    // UTF-8 has at most four bytes for one character.
    for at in (0..12).step_by(3) {
        text.get(at..)?.strip_prefix('%')?;
        bytes.push(u8::try_from(hex(text.get(at + 1..at + 3))?).ok()?);
        if let Some(c) = std::str::from_utf8(&bytes).ok().and_then(|text| text.chars().next()) {
            return Some((c, at + 3));
        }
    }
    None
}

/// Characters that stand between others unseen: soft hyphens, joiners, marks of direction, variation selectors.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// A digit of whatever script, or a letter of full width, as ASCII; others stay.
pub(crate) fn ascii(c: char) -> char {
    /// Where the ten digits of a script begin (Unicode's Nd; beyond U+FFFF those of the region alone: Chakma, Takri,
    /// Modi, Warang Citi).
    const ZEROS: [u32; 40] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
        0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x11136, 0x116c0, 0x11650, 0x118e0,
    ];
    let code = u32::from(c);
    match code {
        0..0x660 => c,
        0xff01..=0xff5e => char::from_u32(code - 0xfee0).unwrap_or(c),
        // Of mathematics, in five styles.
        0x1d7ce..=0x1d7ff => char::from_digit((code - 0x1d7ce) % 10, 10).unwrap_or(c),
        _ => ZEROS.iter().find_map(|zero| char::from_digit(code.checked_sub(*zero)?, 10)).unwrap_or(c),
    }
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
                Value::Array(items) => items.iter().for_each(|item| self.add_values([Some(item)])),
                Value::Object(members) => members.values().for_each(|member| self.add_values([Some(member)])),
                Value::Null | Value::Bool(_) => {}
            }
        }
    }

    /// The number as sent, as typed, and as a vendor may write it.
    pub(crate) fn add_mobile(&mut self, country: NumberingPlan, value: Option<&Value>, typed: Option<&Value>) {
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
            // What looks encoded is also looked at as it stands.
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
            // In the middle of a character that is encoded.
            ("to %381440%3…", "to [redacted]%3…"),
            ("to \\u00381440\\u00…", "to [redacted]\\u00…"),
            ("100% of 8144…", "100% of [redacted]…"),
            ("100%3…", "100%3…"),
            ("814409448", "[redacted]"),
            // Less than half of it, and nothing says that it was cut.
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
        // What stands beside a number goes with it, and does not become a run of its own.
        for text in ["+8144094480234123412346", "234123412346８１４４０９４４８０", "x1234\u{200b}234123412346x"]
        {
            let clean = redact_text(&secrets(&["+8144094480", "8144094480", "1234"]), text);
            assert!(!clean.contains("23412"), "{clean}");
        }
        assert_eq!(redact_text(&secrets(&["canary/token=7f"]), "canary/token=7234123412346x"), "[redacted]x");
    }

    /// What is not looked for: it is no run that equals a secret, and looking for it would cost more than it finds.
    #[test]
    fn what_is_no_run_stays() {
        let secrets = secrets(&["8144094480", "123", "abcd"]);
        for answer in [
            json!(["81440", "94480"]),
            json!({"area": "81440", "number": "94480"}),
            json!("ODE0NDA5NDQ4MA=="),
            json!("0844904418"),
            // No vendor makes so short a code.
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
        for text in ["2341-2341-2346", "2341.2341.2346", "234123 412346", "234 123 412 346", "2 3 4 1 2 3 4 1 2 3 4 6"]
        {
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
}
