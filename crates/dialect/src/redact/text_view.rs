//! A text, folded so that secrets are found in it. `Call (81440) - 94480, or 2` is seen as
//!
//! - words: `call (81440) - 94480, or 2`, in which a code or a name is found however it is written;
//! - digits: `8144094480 2`, in which a number is found whatever signs stand between its digits: a letter, or more than
//!   four signs, begins another number;
//! - groups of digits that stand together: `81440`, `94480`, `2`, by which an Aadhaar number is told from a sum.
//!
//! Each byte of words and digits knows which bytes of the text it stands for: those bytes are redacted.

use std::ops::Range;

use memchr::memmem;

use crate::redact::{MIN_NUMBER, MIN_SECRET, aadhaar::is_aadhaar};

/// How many signs may stand between two digits of one number: `(81440) - 94480`.
const MAX_GAP: usize = 4;

/// Returns the views in which a text is searched: as it stands and, where it looks encoded, decoded. Each view is
/// searched for itself: what looks encoded may be a secret that has a `%` before it.
pub fn views(text: &str) -> impl Iterator<Item = View> {
    let decoders: [(_, Decoder); 2] = [('%', percent_encoded), ('\\', escaped)];
    let needed = decoders.into_iter().filter(|(sign, _)| text.contains(*sign));
    std::iter::once(View::new(text, |_| None)).chain(needed.map(|(_, decode)| View::new(text, decode)))
}

/// Reads one encoded character at the beginning of a text: the character, and the bytes that it takes.
type Decoder = fn(&str) -> Option<(char, usize)>;

/// A text as it is compared: in lower case, digits of all scripts as ASCII, without invisible characters.
#[derive(Default)]
pub struct View {
    pub words: Folded,
    /// Digits alone, with a space between the digits of two numbers.
    pub digits: Folded,
    /// Runs of digits without a sign between them: where in `digits` each run begins, and how long it is.
    groups: Vec<(usize, usize)>,
}

/// A folded text, and for each of its bytes the place in the original text, from and to.
#[derive(Default)]
pub struct Folded {
    pub text: String,
    places: Vec<(usize, usize)>,
}

/// The characters between a digit and the digit before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Digit,
    /// This many signs, few enough to stand within one number.
    Signs(usize),
    /// A letter, or more signs than stand within one number: the next digit begins another number.
    Another,
}

impl Before {
    /// Returns the state after one more character, which is no digit.
    fn and(self, c: char) -> Self {
        let signs = match self {
            Self::Digit => 1,
            Self::Signs(signs) => signs + 1,
            Self::Another => return Self::Another,
        };
        if c.is_alphanumeric() || signs > MAX_GAP { Self::Another } else { Self::Signs(signs) }
    }
}

impl View {
    pub fn new(text: &str, decode: Decoder) -> Self {
        let mut view = Self { words: Folded::with_capacity(text.len()), ..Self::default() };
        let mut before = Before::Another;
        let mut at = 0;
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
            before = if c.is_ascii_digit() {
                view.push_digit(c, place, before);
                Before::Digit
            } else {
                before.and(c)
            };
        }
        view
    }

    fn push_digit(&mut self, digit: char, place: (usize, usize), before: Before) {
        if before == Before::Another && !self.digits.text.is_empty() {
            self.digits.push(' ', place);
        }
        match self.groups.last_mut() {
            Some((_, length)) if before == Before::Digit => *length += 1,
            _ => self.groups.push((self.digits.text.len(), 1)),
        }
        self.digits.push(digit, place);
    }

    /// Finds twelve digits with the right check digit, in one run or in runs of one length.
    pub fn find_aadhaar(&self, spans: &mut Vec<Range<usize>>) {
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

    /// Returns the place of folded bytes in the original text, which is what is redacted.
    fn span(&self, at: usize, length: usize) -> Range<usize> {
        self.places[at].0..self.places[at + length - 1].1
    }

    /// Returns whether the needle stands in the text. A needle that is longer than the text is not even searched for:
    /// preparing a search costs time in proportion to the needle's length.
    pub fn holds(&self, needle: &str) -> bool {
        needle.len() <= self.text.len() && memmem::find(self.text.as_bytes(), needle.as_bytes()).is_some()
    }

    /// Finds the whole needle; the beginning of a needle, if at least half of it and [`MIN_NUMBER`] bytes are there;
    /// and at the end of a text that was cut, what the cut left of a needle.
    pub fn find(&self, needle: &str, is_cut: bool, spans: &mut Vec<Range<usize>>) {
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

/// Returns the text without the half of an encoded character that a cut has left: `%3`, `\u00`.
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
    // One character of UTF-8 has at most four bytes.
    for at in (0..12).step_by(3) {
        text.get(at..)?.strip_prefix('%')?;
        bytes.push(u8::try_from(hex(text.get(at + 1..at + 3))?).ok()?);
        if let Some(c) = std::str::from_utf8(&bytes).ok().and_then(|text| text.chars().next()) {
            return Some((c, at + 3));
        }
    }
    None
}

/// Returns whether a character is invisible between others: soft hyphens, joiners, marks of direction, variation
/// selectors.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// Returns a digit of any script, or a letter of full width, as ASCII; any other character as it is.
pub(crate) fn ascii(c: char) -> char {
    /// The zero of each script (Unicode's category Nd; of the scripts beyond U+FFFF only those of the vendors' region:
    /// Chakma, Takri, Modi, Warang Citi).
    const ZEROS: [u32; 40] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
        0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x11136, 0x116c0, 0x11650, 0x118e0,
    ];
    let code = u32::from(c);
    match code {
        0..0x660 => c,
        0xff01..=0xff5e => char::from_u32(code - 0xfee0).unwrap_or(c),
        // The digits of mathematics, in five styles.
        0x1d7ce..=0x1d7ff => char::from_digit((code - 0x1d7ce) % 10, 10).unwrap_or(c),
        _ => ZEROS.iter().find_map(|zero| char::from_digit(code.checked_sub(*zero)?, 10)).unwrap_or(c),
    }
}
