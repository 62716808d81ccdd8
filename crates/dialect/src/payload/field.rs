use crate::payload::{rule::Rule, suggest::nearest};

/// One field of a payload: our name, the vendor's name, and the rule for its value.
#[derive(Clone, Copy, Debug)]
pub struct AnyField<'a> {
    /// Our name, in snake_case; the same for every vendor where the meaning is the same.
    pub name: &'a str,
    /// The vendor's own name, accepted beside ours and used in the HTTP message.
    pub wire: &'a str,
    pub rule: Rule<'a>,
    /// Whether the call cannot be made without the field.
    pub required: bool,
    /// Whether the field belongs to the verification: a later call may repeat its value, never change it.
    pub fixed: bool,
    /// Whether the field belongs to one person or one journey, and may not stand in the server option `defaults`, which
    /// is stored in the clear.
    pub personal: bool,
    /// Whether the value is redacted from whatever a vendor answers.
    pub secret: bool,
    /// Whether the value is good for one call only (a trace id, the channel of one resend) and is not kept for the
    /// next.
    pub once: bool,
    /// The field, or whatever else, that can stand in for this one; None for a required field, and for one that no call
    /// needs.
    pub instead: Option<&'static str>,
    /// The operation's variant that the field belongs to, if the operation has several: `otp_type 1`.
    pub variant: Option<&'static str>,
    /// An example of the value, as JSON; a text without its quotes.
    pub example: Option<&'static str>,
    /// What the rule does not say: the unit, or what holds if the field is left out.
    pub note: Option<&'static str>,
}

/// A field of a vendor that has a file of its own here.
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

    /// Marks a field that the call needs unless it has what `instead` names: the dialect checks that, people read it.
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

    /// Returns the table with every field marked as of one variant.
    pub(crate) const fn of_variant<const N: usize>(variant: &'static str, mut table: [Self; N]) -> [Self; N] {
        let mut at = 0;
        while at < N {
            table[at].variant = Some(variant);
            at += 1;
        }
        table
    }

    /// The field `extra`: members that the vendor takes and no table here knows. `once` where the call is no send.
    pub(crate) const fn extra(once: bool) -> Self {
        let mut field = Self::optional("extra", "extra", Rule::Extra);
        field.secret = true;
        field.once = once;
        field
    }

    /// Returns whether a payload may call the field by this key.
    pub fn is_called(&self, key: &str) -> bool {
        self.name == key || self.wire == key
    }
}

/// The field `channel` of a vendor that sends by SMS alone, and is not told. A payload with another channel is refused;
/// a route goes on to a member that has the channel.
pub(crate) const BY_SMS: Field = Field::optional("channel", "channel", Rule::Channel(&[("sms", "sms")]))
    .noted("the vendor has no other way, and is not told");

/// A fault of a payload, which keeps it from being sent. It holds no value of the payload: it ends in a server log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field under our name, with its path within an object or array (`msg[0].message`).
    pub field: String,
    /// Names the field and says what is wrong with it.
    pub message: String,
    /// The message without the caller's own words: a code may stand where a field's name is expected.
    pub logged: String,
    /// The rule, or what to do.
    pub hint: String,
    pub blame: Box<Blame>,
}

/// Whom a fault concerns: which fields, and whether a person's input or the caller's code is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The other fields that message and hint are about.
    pub others: Vec<String>,
    /// Whether a value is wrong, as people type it, rather than the choice of fields.
    pub is_value: bool,
    /// The fields that are missing. The flag says whether the field may be the same for all calls of an account, so
    /// that it may stand in the server option `defaults`.
    pub missing: Vec<(String, bool)>,
}

/// How many faults one error names at most.
const MOST_NAMED: usize = 16;

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let message = message.into();
        let blame = Box::new(Blame { others: Vec::new(), is_value: true, missing: Vec::new() });
        Self { field: field.into(), logged: message.clone(), message, hint: hint.into(), blame }
    }

    /// Makes a fault in the choice of fields: whoever wrote the payload is to blame, not a person's input.
    pub(crate) fn of_fields(field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let mut fault = Self::new(field, message, hint);
        fault.blame.is_value = false;
        fault
    }

    /// Makes the fault of a required field that nobody gave.
    pub(crate) fn missing(field: &AnyField, what: &str) -> Self {
        let (name, rule) = (field.name, field.rule.describe());
        let mut fault = Self::of_fields(name, format!("{name} is missing: {what} needs it"), format!("{name}: {rule}"));
        fault.blame.missing.push((name.to_owned(), !field.personal));
        fault
    }

    /// Joins all faults into one error, so that nobody mends the first only to meet the next.
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

    /// Makes the fault of a key that no field has. The key is shown only if it is an identifier: any other key may be a
    /// value that slipped into the wrong place.
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

/// Returns whether a key is `[A-Za-z_][A-Za-z0-9_]{0,62}`: short and plain enough to be shown.
pub fn is_identifier(key: &str) -> bool {
    key.len() <= 63
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && key.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Returns a name without case, hyphens, underscores and spaces: `templateID`, `template-id` and `template_id` are
/// spellings of one name.
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
