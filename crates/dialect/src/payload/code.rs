//! Reads a code as a person types it.

use crate::{
    redact::{ascii, is_invisible},
    secret::Secret,
};

/// Longest code that is passed on.
const MAX_CODE_CHARS: usize = 64;

/// What a vendor's codes are made of.
#[derive(Clone, Copy, Debug)]
pub enum CodeForm {
    /// `min` to `max` digits, as the vendor's page says; nothing else can be a code.
    Digits { min: usize, max: usize },
    /// Digits wherever a code is shown, though no page promises it: the vendor judges what is no number.
    Numeric,
    /// Letters and signs, too.
    Text,
}

impl CodeForm {
    /// Returns the code that was meant: in a number white space and hyphens mean nothing, and digits of every script
    /// count. Returns None if the text cannot be a code of the vendor's.
    pub fn read(self, typed: &str) -> Option<Secret> {
        let number = match self {
            Self::Digits { .. } | Self::Numeric => number(typed),
            Self::Text => None,
        };
        match (self, number) {
            (Self::Digits { min, max }, number) => number.filter(|number| (min..=max).contains(&number.reveal().len())),
            (_, Some(number)) => Some(number),
            (_, None) => text(typed),
        }
    }
}

/// Returns the digits of a text that holds nothing but a number, or None.
fn number(typed: &str) -> Option<Secret> {
    let means_nothing = |c: char| c.is_whitespace() || is_hyphen(c) || is_invisible(c);
    let signs = || typed.chars().map(ascii).filter(|c| !means_nothing(*c));
    let is_number = signs().all(|c| c.is_ascii_digit()) && (1..=MAX_CODE_CHARS).contains(&signs().count());
    is_number.then(|| Secret::new(signs().collect::<String>()))
}

/// Returns a text as it was typed, without white space and invisible characters at its ends.
pub(super) fn unseen_ends_off(typed: &str) -> &str {
    typed.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

/// Returns the text without invisible characters; None if it is empty, too long, or has control characters.
fn text(typed: &str) -> Option<Secret> {
    let text = Secret::new(unseen_ends_off(typed).chars().filter(|c| !is_invisible(*c)).map(ascii).collect::<String>());
    let is_code = (1..=MAX_CODE_CHARS).contains(&text.reveal().chars().count());
    (is_code && !text.reveal().chars().any(char::is_control)).then_some(text)
}

pub(super) fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIX: CodeForm = CodeForm::Digits { min: 4, max: 9 };

    fn read(form: CodeForm, typed: &str) -> Option<String> {
        form.read(typed).map(|code| code.reveal().to_owned())
    }

    #[test]
    fn a_number_is_read_as_what_it_means() {
        for typed in [
            "012345",
            " 012345\n",
            "\t012 345\r\n",
            "012-345",
            "0 1 2 3 4 5",
            "012\u{a0}345",
            "012\u{2009}\u{2013}\u{2009}345",
            "012\u{2011}345",
            "0\u{200b}12345\u{200e}",
            "\u{feff}012345",
            "０１２３４５",
            "０１２－３４５",
            "٠١٢٣٤٥",
            "۰۱۲۳۴۵",
            "०१२३४५",
            "০১২৩৪৫",
            "੦੧੨੩੪੫",
            "૦૧૨૩૪૫",
            "୦୧୨୩୪୫",
            "௦௧௨௩௪௫",
            "౦౧౨౩౪౫",
            "೦೧೨೩೪೫",
            "൦൧൨൩൪൫",
            "෦෧෨෩෪෫",
            "᱐᱑᱒᱓᱔᱕",
            "꯰꯱꯲꯳꯴꯵",
            "\u{11136}\u{11137}\u{11138}\u{11139}\u{1113a}\u{1113b}",
            "၀၁၂၃၄၅",
            "०1２٣४۵",
        ] {
            assert_eq!(read(SIX, typed).as_deref(), Some("012345"), "{typed:?}");
            assert_eq!(read(CodeForm::Numeric, typed).as_deref(), Some("012345"), "{typed:?}");
        }
    }

    #[test]
    fn what_can_be_no_code_is_none() {
        let long = "1".repeat(65);
        for typed in ["", " ", "\n", "\u{200b}", "1\u{0}2", "12\u{7}34", &long] {
            for form in [SIX, CodeForm::Numeric, CodeForm::Text] {
                assert_eq!(read(form, typed), None, "{typed:?}");
            }
        }
        for typed in ["-", "123", "1234567890", "12a456", "12.34", "abcd", "+1234", "½½½½", "²³¹²", "ⅣⅣⅣⅣ", "四四四四"]
        {
            assert_eq!(read(SIX, typed), None, "{typed:?}");
        }
    }

    #[test]
    fn where_nobody_says_that_it_is_a_number_a_text_stays_one() {
        for form in [CodeForm::Numeric, CodeForm::Text] {
            for (typed, code) in
                [("aB9x", "aB9x"), (" 12a 45 ", "12a 45"), ("\"\\", "\"\\"), ("x-1\u{200b}", "x-1"), ("ａB९", "aB9")]
            {
                assert_eq!(read(form, typed).as_deref(), Some(code), "{typed:?}");
            }
        }
        // A hyphen may belong to the code.
        assert_eq!(read(CodeForm::Text, " 12-34 ").as_deref(), Some("12-34"));
        assert_eq!(read(CodeForm::Text, "１２３४").as_deref(), Some("1234"));
    }
}
