//! Tells whether a text calls a function of ours, or one of a misspelt name: its name, or its schema's, begins with
//! `otp_`, and a parenthesis follows. A comment or a literal calls nothing; but in a text that is no longer SQL, the
//! letters alone count.
//!
//! ```text
//! SELECT otp_send('p', '{...}')                   calls ours
//! select "otp_gateway" . find('94...')            calls ours: the schema's name tells
//! SELECT otp_sned('p', '{...}')                   calls ours, as far as its arguments are secret
//! DO $$ BEGIN PERFORM otp_send(...); END $$       calls ours: the literal of DO, and of CREATE FUNCTION, is code
//! EXECUTE a('94...')                              if what was prepared as `a` does: `executes` is asked
//! SELECT otp_send('p', '{"mobile": "94            calls ours: cut off, so that the letters alone tell
//! SELECT * FROM otp_gateway.attempt               does not: no parenthesis follows
//! SELECT 1 -- otp_send('p', '{}')                 does not: a comment
//! SELECT 'otp_send(1)'                            does not: a literal
//! ```

use memchr::{memchr_iter, memchr2_iter, memmem};

const PREFIX: &[u8] = b"otp_";
const EXECUTE: &[u8] = b"execute";
/// How deep literals within literals are searched: DO, EXECUTE, and what that executes.
const DEPTH: usize = 8;

/// How a text is to be read.
#[derive(Clone, Copy)]
pub struct Reading {
    /// Whether a backslash escapes in every literal, not only in E'': standard_conforming_strings is off.
    pub has_escapes: bool,
    /// Whether the text quotes statements, as an error's context does: a double quote is where a statement begins or
    /// ends.
    pub quotes: bool,
}

/// Returns whether a text calls a function of ours. `executes` tells, for the name of a prepared statement, whether
/// that statement does.
pub fn calls_ours(text: &[u8], how: Reading, executes: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    // Most texts end here, at the speed of memory.
    (mentions_ours(text) || occurrences(text, EXECUTE, b'x', b'X', 1).next().is_some())
        && is_call(text, how, false, DEPTH, executes)
}

/// Returns whether the letters of such a call stand anywhere in a text, even within a literal or a comment.
pub fn spells_ours(text: &[u8]) -> bool {
    occurrences(text, PREFIX, b'_', b'_', 3).any(|at| {
        let rest = skip(skip(&text[at + PREFIX.len()..], is_of_word), is_between_tokens);
        let name = |after_dot| skip(skip(skip(after_dot, is_between_tokens), is_of_word), is_between_tokens);
        rest.starts_with(b"(") || rest.strip_prefix(b".").is_some_and(|after_dot| name(after_dot).starts_with(b"("))
    })
}

fn mentions_ours(text: &[u8]) -> bool {
    occurrences(text, PREFIX, b'_', b'_', 3).next().is_some()
}

/// Finds a word, in any case, by that letter of it which is rare.
fn occurrences<'a>(
    text: &'a [u8],
    word: &'static [u8],
    lower: u8,
    upper: u8,
    at: usize,
) -> Box<dyn Iterator<Item = usize> + 'a> {
    let is_there = move |place: usize| {
        let start = place.checked_sub(at)?;
        text.get(start..start + word.len()).filter(|found| found.eq_ignore_ascii_case(word)).map(|_| start)
    };
    if lower == upper {
        Box::new(memchr_iter(lower, text).filter_map(is_there))
    } else {
        Box::new(memchr2_iter(lower, upper, text).filter_map(is_there))
    }
}

/// Returns whether the tokens of a text make a call of ours. `is_body`: the text is a function's body, whose literals
/// are code, too.
fn is_call(text: &[u8], how: Reading, is_body: bool, depth: usize, executes: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let mut tokens = Tokens { rest: text, how, goes_on: false, is_cut: false };
    let mut statement = Statement::default();
    // Of the name that is being read: whether a part of it begins as ours, and whether a dot ended it last.
    let (mut is_ours, mut goes_on) = (false, false);
    let mut is_executed = false;
    for token in tokens.by_ref() {
        match token {
            Token::Word { text, is_quoted } => {
                if std::mem::take(&mut is_executed) && executes(&name_of(text, is_quoted)) {
                    return true;
                }
                is_executed = !is_quoted && text.eq_ignore_ascii_case(EXECUTE);
                is_ours = begins_as_ours(text) || goes_on && is_ours;
                goes_on = false;
                statement.word(text);
                continue;
            }
            Token::Sign(b'.') => {
                goes_on = true;
                continue;
            }
            Token::Sign(b'(') if is_ours && !goes_on => return true,
            Token::Sign(b';') => statement = Statement::default(),
            Token::Sign(_) => {}
            Token::Literal(text) if is_body || statement.has_body => {
                let is_code = depth == 0 && spells_ours(text)
                    || depth > 0 && mentions_ours(text) && is_call(text, how, true, depth - 1, executes);
                if is_code {
                    return true;
                }
            }
            Token::Literal(_) => {}
        }
        (is_ours, goes_on, is_executed) = (false, false, false);
    }
    tokens.is_cut && spells_ours(text)
}

fn begins_as_ours(word: &[u8]) -> bool {
    word.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
}

fn name_of(word: &[u8], is_quoted: bool) -> Vec<u8> {
    if is_quoted { word.to_vec() } else { word.to_ascii_lowercase() }
}

/// How a statement begins: a literal of DO and of CREATE FUNCTION is code.
#[derive(Default)]
struct Statement {
    words: usize,
    creates: bool,
    has_body: bool,
}

impl Statement {
    fn word(&mut self, text: &[u8]) {
        self.words += 1;
        let is = |word: &[u8]| text.eq_ignore_ascii_case(word);
        match self.words {
            1 if is(b"do") => self.has_body = true,
            1 => self.creates = is(b"create"),
            2 | 4 if self.creates => self.has_body |= is(b"function") || is(b"procedure"),
            _ => {}
        }
    }
}

enum Token<'a> {
    /// A name or a key word; a quoted name without its quotes.
    Word {
        text: &'a [u8],
        is_quoted: bool,
    },
    /// The text between quotes or dollars, as it is written.
    Literal(&'a [u8]),
    Sign(u8),
}

/// The tokens of SQL, by the rules of Postgres' scanner; comments are left out.
struct Tokens<'a> {
    rest: &'a [u8],
    how: Reading,
    /// Whether the literal before had escapes and goes on in the next literal.
    goes_on: bool,
    /// Whether the text ended within a literal, a quoted name or a comment.
    is_cut: bool,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let quotes = self.how.quotes;
            self.rest = skip(self.rest, |byte| byte.is_ascii_whitespace() || quotes && byte == b'"');
            let (&first, after) = self.rest.split_first()?;
            match first {
                b'-' if after.first() == Some(&b'-') => {
                    self.rest = skip(self.rest, |byte| byte != b'\n' && byte != b'\r')
                }
                b'/' if after.first() == Some(&b'*') => self.leave_comment(),
                b'\'' => {
                    let has_escapes = std::mem::take(&mut self.goes_on) || self.how.has_escapes;
                    return Some(Token::Literal(self.literal(after, has_escapes)));
                }
                b'"' => {
                    let (text, rest) = self.until(after, memchr::memchr(b'"', after), 1);
                    self.rest = rest;
                    return Some(Token::Word { text, is_quoted: true });
                }
                b'$' => {
                    let tag = skip(after, is_of_tag);
                    let tag_ends = tag.first() == Some(&b'$') && !after[0].is_ascii_digit();
                    if !tag_ends {
                        self.rest = after;
                        return Some(Token::Sign(b'$'));
                    }
                    let (quote, body) = self.rest.split_at(self.rest.len() - tag.len() + 1);
                    let (text, rest) = self.until(body, memmem::find(body, quote), quote.len());
                    self.rest = rest;
                    return Some(Token::Literal(text));
                }
                _ if is_of_word(first) => {
                    let rest = skip(self.rest, is_of_word);
                    let text = &self.rest[..self.rest.len() - rest.len()];
                    self.rest = rest;
                    if text.eq_ignore_ascii_case(b"e") && rest.first() == Some(&b'\'') {
                        return Some(Token::Literal(self.literal(&rest[1..], true)));
                    }
                    // A number, or the number of a parameter.
                    let is_quoted = false;
                    return Some(if first.is_ascii_digit() {
                        Token::Sign(b'0')
                    } else {
                        Token::Word { text, is_quoted }
                    });
                }
                _ => {
                    self.rest = after;
                    return Some(Token::Sign(first));
                }
            }
        }
    }
}

impl<'a> Tokens<'a> {
    /// Returns what stands before a place, and what comes so many bytes after that place.
    fn until(&mut self, text: &'a [u8], end: Option<usize>, length: usize) -> (&'a [u8], &'a [u8]) {
        match end {
            Some(end) => (&text[..end], &text[end + length..]),
            None => {
                self.is_cut = true;
                (text, &[])
            }
        }
    }

    /// Returns the literal that begins here. A doubled quote ends a literal and begins the next, which makes no
    /// difference to a search; so does a literal that is continued on another line.
    fn literal(&mut self, text: &'a [u8], has_escapes: bool) -> &'a [u8] {
        let mut end = memchr::memchr(b'\'', text);
        if has_escapes {
            let mut at = 0;
            end = loop {
                match memchr::memchr2(b'\'', b'\\', &text[at.min(text.len())..]) {
                    Some(found) if text[at + found] == b'\\' => at += found + 2,
                    found => break found.map(|found| at + found),
                }
            };
        }
        let (literal, rest) = self.until(text, end, 1);
        self.rest = rest;
        self.goes_on = has_escapes && (rest.first() == Some(&b'\'') || is_continued(rest));
        literal
    }

    /// Skips a comment; comments nest.
    fn leave_comment(&mut self) {
        let mut depth = 0usize;
        while let Some(at) = memchr::memchr2(b'*', b'/', self.rest) {
            let after = &self.rest[at + 1..];
            let ends = self.rest[at] == b'*' && after.first() == Some(&b'/');
            let begins = self.rest[at] == b'/' && after.first() == Some(&b'*');
            self.rest = if ends || begins { &after[1..] } else { after };
            depth = depth + usize::from(begins) - usize::from(ends);
            if depth == 0 {
                return;
            }
        }
        (self.rest, self.is_cut) = (&[], true);
    }
}

/// Returns whether a quote comes after a line break, with nothing but white space and comments of one line before it.
fn is_continued(mut text: &[u8]) -> bool {
    let mut has_line_break = false;
    loop {
        let rest = skip(text, |byte| byte.is_ascii_whitespace());
        has_line_break |= text[..text.len() - rest.len()].iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        match rest.strip_prefix(b"--") {
            Some(comment) => text = skip(comment, |byte| byte != b'\n' && byte != b'\r'),
            None => return has_line_break && rest.first() == Some(&b'\''),
        }
    }
}

fn skip(text: &[u8], what: impl Fn(u8) -> bool) -> &[u8] {
    &text[text.iter().position(|byte| !what(*byte)).unwrap_or(text.len())..]
}

fn is_of_word(byte: u8) -> bool {
    is_of_tag(byte) || byte == b'$'
}

fn is_of_tag(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_between_tokens(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'"'
}
