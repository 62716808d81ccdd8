//! Reads what a vendor's free text says of a code. Only words about the OTP count: "invalid pincode" does not mean a
//! wrong code.

/// What a text says of the code that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wrong,
    Expired,
}

impl Verdict {
    /// Returns None if the text says nothing of the code.
    pub(crate) fn read(words: &str) -> Option<Self> {
        let words = words.to_lowercase();
        let words: Vec<&str> = spoken(&words).collect();
        let begins = |word: &str, stems: &[&str]| stems.iter().any(|stem| word.starts_with(stem));
        if of_otp(&words, |word| begins(word, &["expir"])) {
            Some(Self::Expired)
        } else if of_otp(&words, |word| begins(word, &["wrong", "invalid", "incorrect", "mismatch", "unmatch"]))
            || of_otp_negated(&words, |word| begins(word, &["match", "valid", "correct"]))
            || asks_again(&words)
        {
            Some(Self::Wrong)
        } else {
            None
        }
    }
}

/// Returns a text as it is compared with the words of a page: without case, spaces, underscores and final stops.
pub(crate) fn text_key(text: &str) -> String {
    let key: String = text.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    key.trim_end_matches('.').to_lowercase()
}

/// Splits a text into its words.
pub(crate) fn spoken(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Words that may stand between an adjective and the OTP: "invalid or expired OTP".
const BEFORE_OTP: &[&str] = &[
    "the",
    "entered",
    "provided",
    "given",
    "submitted",
    "supplied",
    "or",
    "and",
    "expired",
    "invalid",
    "incorrect",
    "wrong",
];

/// Words that may stand between the OTP and the word about it: "the OTP entered by you has already expired".
const AFTER_OTP: &[&str] = &[
    "is",
    "was",
    "has",
    "have",
    "had",
    "are",
    "been",
    "being",
    "be",
    "you",
    "your",
    "user",
    "customer",
    "by",
    "the",
    "it",
    "entered",
    "provided",
    "given",
    "submitted",
    "supplied",
    "code",
    "pin",
    "value",
    "number",
    "password",
    "request",
    "session",
    "validity",
    "time",
    "already",
    "seems",
    "to",
    "or",
    "and",
    "does",
    "do",
    "did",
    "doesn",
    "didn",
    "isn",
    "didnt",
    "doesnt",
    "not",
    "t",
    "expired",
    "invalid",
    "incorrect",
    "wrong",
];

/// Returns whether a word of this kind is said of the OTP.
fn of_otp(words: &[&str], kind: impl Fn(&str) -> bool) -> bool {
    said(words, |at| kind(words[at]))
}

/// Returns whether a word of this kind, with a "not" before it, is said of the OTP.
fn of_otp_negated(words: &[&str], kind: impl Fn(&str) -> bool) -> bool {
    said(words, |at| kind(words[at]) && at > 0 && matches!(words[at - 1], "not" | "t" | "didnt" | "doesnt"))
}

/// Returns whether the text asks for a valid OTP ("Please enter a valid OTP"), which says that the given one was not.
fn asks_again(words: &[&str]) -> bool {
    let sound = |word: &str| matches!(word, "valid" | "correct");
    words.windows(2).any(|pair| sound(pair[0]) && pair[1] == "otp") && words.contains(&"enter")
}

fn said(words: &[&str], kind: impl Fn(usize) -> bool) -> bool {
    let otps =
        (0..words.len()).filter(|at| words[*at] == "otp" || words[*at..].starts_with(&["one", "time", "password"]));
    otps.into_iter().any(|otp| {
        (0..words.len()).filter(|at| kind(*at)).any(|at| match at < otp {
            true => words[at + 1..otp].iter().all(|word| BEFORE_OTP.contains(word)),
            false => words[otp + 1..at].iter().all(|word| AFTER_OTP.contains(word)),
        })
    })
}
