use crate::payload::{rule::Rule, suggest::nearest};

/// One field of a payload: our name, the vendor's, and what may stand in it.
#[derive(Clone, Copy, Debug)]
pub struct AnyField<'a> {
    /// Ours, snake_case, the same for every vendor where the thing is the same.
    pub name: &'a str,
    /// The vendor's own name, accepted beside ours and used on the wire.
    pub wire: &'a str,
    pub rule: Rule<'a>,
    /// The call cannot be made without it.
    pub required: bool,
    /// Belongs to the verification: a later call may repeat it, never change it.
    pub fixed: bool,
    /// Belongs to one person or one journey: never in the server option `defaults`, which is stored in the clear.
    pub personal: bool,
    /// Must not survive in anything that a vendor answers.
    pub secret: bool,
    /// Good for one call only (a trace id, the channel of one resend): not kept for the next.
    pub once: bool,
    /// What does in its place where it is left out; None of a required field, and of one that nobody needs.
    pub instead: Option<&'static str>,
    /// Which of the operation's variants it is of, where there are several: `otp_type 1`.
    pub variant: Option<&'static str>,
    /// What may stand in it, as JSON; a text without its quotes.
    pub example: Option<&'static str>,
    /// What its rule does not say: the unit, what holds where it is left out.
    pub note: Option<&'static str>,
}

/// One of a vendor that has a file of its own here.
pub type Field = AnyField<'static>;

impl<'a> AnyField<'a> {
    pub(crate) const fn optional(name: &'a str, wire: &'a str, rule: Rule<'a>) -> Self {
        Self {
            name,
            wire,
            rule,
            required: false,
            fixed: false,
            personal: false,
            secret: false,
            once: false,
            instead: None,
            variant: None,
            example: None,
            note: None,
        }
    }

    pub(crate) const fn required(name: &'a str, wire: &'a str, rule: Rule<'a>) -> Self {
        let mut field = Self::optional(name, wire, rule);
        field.required = true;
        field
    }

    pub(crate) const fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    pub(crate) const fn personal(mut self) -> Self {
        self.personal = true;
        self
    }

    pub(crate) const fn secret(mut self) -> Self {
        self.personal = true;
        self.secret = true;
        self
    }

    pub(crate) const fn once(mut self) -> Self {
        self.personal = true;
        self.once = true;
        self
    }

    /// The call needs it, or what `instead` names: the dialect's own rule, said for people.
    pub(crate) const fn or(mut self, instead: &'static str) -> Self {
        self.instead = Some(instead);
        self
    }

    pub(crate) const fn like(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    pub(crate) const fn noted(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    /// The table of one variant.
    pub(crate) const fn of_variant<const N: usize>(variant: &'static str, mut table: [Self; N]) -> [Self; N] {
        let mut at = 0;
        while at < N {
            table[at].variant = Some(variant);
            at += 1;
        }
        table
    }

    /// What the vendor takes and no table here knows. As a `once`, where the call is another one than the send.
    pub(crate) const fn extra(once: bool) -> Self {
        let mut field = Self::optional("extra", "extra", Rule::Extra);
        field.secret = true;
        field.once = once;
        field
    }

    /// Whether a payload may name it so.
    pub fn is_called(&self, key: &str) -> bool {
        self.name == key || self.wire == key
    }
}

/// Of a send, where the vendor has no other way: it names none on the wire. A payload that names another is refused
/// here, and a route takes it to a member that has it.
pub(crate) const BY_SMS: Field = Field::optional("channel", "channel", Rule::Channel(&[("sms", "sms")]))
    .noted("the vendor has no other way, and is not told");

/// A payload that cannot be sent. No value of the payload is ever in it: it ends in a server log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field under our name, with its path in an object or array (`msg[0].message`).
    pub field: String,
    /// Which field, and what is wrong with it.
    pub message: String,
    /// The same without the caller's own words: a code may stand where a field's name is expected.
    pub logged: String,
    /// The rule, or what to do.
    pub hint: String,
    pub blame: Box<Blame>,
}

/// What more there is to say of a payload that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The other fields that message and hint are about, if there are any.
    pub others: Vec<String>,
    /// It is a value that is wrong, as people type them; not which fields there are.
    pub is_value: bool,
    /// The fields that are missing, and whether each may be the same for all calls of an account: it may stand in the
    /// server option `defaults` then.
    pub missing: Vec<(String, bool)>,
}

/// So many faults are named in one error.
const MOST_NAMED: usize = 16;

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let message = message.into();
        let blame = Box::new(Blame { others: Vec::new(), is_value: true, missing: Vec::new() });
        Self { field: field.into(), logged: message.clone(), message, hint: hint.into(), blame }
    }

    /// The same of which fields there are: whoever wrote the payload is to blame, and nobody's value.
    pub(crate) fn of_fields(field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let mut fault = Self::new(field, message, hint);
        fault.blame.is_value = false;
        fault
    }

    /// A field that the call needs, and that nobody gave.
    pub(crate) fn missing(field: &AnyField, what: &str) -> Self {
        let (name, rule) = (field.name, field.rule.describe());
        let mut fault = Self::of_fields(name, format!("{name} is missing: {what} needs it"), format!("{name}: {rule}"));
        fault.blame.missing.push((name.to_owned(), !field.personal));
        fault
    }

    /// All faults as one, so that nobody mends the first only to meet the next.
    pub(crate) fn all(faults: Vec<Self>) -> Result<(), Self> {
        let mut faults = faults.into_iter();
        let Some(mut all) = faults.next() else { return Ok(()) };
        let mut unnamed = 0;
        for fault in faults {
            let (blame, more) = (&mut all.blame, *fault.blame);
            blame.is_value &= more.is_value;
            if blame.others.len() + more.others.len() + 2 > MOST_NAMED {
                unnamed += 1 + more.others.len();
                continue;
            }
            blame.missing.extend(more.missing);
            blame.others.push(fault.field);
            blame.others.extend(more.others);
            all.message = format!("{}; {}", all.message, fault.message);
            all.logged = format!("{}; {}", all.logged, fault.logged);
            if !all.hint.contains(&fault.hint) {
                all.hint = format!("{}; {}", all.hint, fault.hint);
            }
        }
        if unnamed > 0 {
            all.message = format!("{}; and {unnamed} more", all.message);
            all.logged = format!("{}; and {unnamed} more", all.logged);
        }
        Err(all)
    }

    /// A key that nobody knows, shown only where it cannot be a value that slipped into the wrong place.
    pub(crate) fn unknown_key<'a>(
        place: &str,
        prefix: &str,
        key: &str,
        valid: impl Iterator<Item = &'a AnyField<'a>> + Clone,
    ) -> Self {
        let names: Vec<&str> = valid.clone().map(|field| field.name).collect();
        let listed = if names.is_empty() { "it takes none".into() } else { format!("it takes: {}", names.join(", ")) };
        if !is_identifier(key) {
            let field = if prefix.is_empty() { "payload" } else { prefix.trim_end_matches('.') };
            return Self::of_fields(field, format!("{place} has a field whose name is not an identifier"), listed);
        }
        let spellings = valid.flat_map(|field| [field.name, field.wire]);
        let hint = match nearest(key, spellings) {
            Some(near) => format!("did you mean {near}? {listed}"),
            None => listed,
        };
        let logged = format!("{place} has no field {prefix}%s");
        Self {
            logged,
            ..Self::of_fields(format!("{prefix}{key}"), format!("{place} has no field {prefix}{key}"), hint)
        }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Invalid {}

/// `[A-Za-z_][A-Za-z0-9_]{0,62}`: short and plain enough to be shown.
pub fn is_identifier(key: &str) -> bool {
    key.len() <= 63
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && key.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// `templateID`, `template-id` and `template_id` are the same slip of the same name.
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_the_name() {
        let names = ["mobile", "template_id", "otp_length", "password_file"];
        assert_eq!(nearest("moblie", names), Some("mobile"));
        assert_eq!(nearest("templateID", names), Some("template_id"));
        assert_eq!(nearest("otp_lenght", names), Some("otp_length"));
        assert_eq!(nearest("pasword_file", names), Some("password_file"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"m".repeat(100_000), names), None);
    }
}
