use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    call::{Call, FindBy, Prepared, is_header_value},
    operation::Operation,
    payload::{
        code::CodeForm,
        field::{AnyField, Field, Invalid},
    },
    response::CallResult,
    rest::{self, Description},
    secret::Secret,
};

/// The wait between two sends to one recipient where a vendor's page names none: 30 s, as the vendors that name one
/// ask.
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(30);

/// One vendor: the fields that its calls take, how a call is written and how an answer is read.
#[derive(Clone)]
pub struct Dialect {
    /// `ideamart`; the foreign data wrapper is `otp_ideamart`.
    pub name: &'static str,
    /// The documented host; None where the vendor runs on the customer's premises.
    pub base_url: Option<&'static str>,
    /// The host on which the vendor lets its customers try calls, where its page names one: a code that is sent there
    /// reaches nobody.
    pub test_host: Option<&'static str>,
    /// How long a code lives by the vendor's page (docs/vendors); None where the page does not say.
    pub code_lifetime: Option<Duration>,
    /// What the vendor's codes are made of.
    pub code: CodeForm,
    /// How many wrong codes the vendor allows; 5 where its page does not say.
    pub max_checks: u32,
    /// How long the vendor's page asks to wait between two sends to one recipient; `RESEND_AFTER` where the page does
    /// not say.
    pub resend_after: Duration,
    /// Whether a verify may be found by a reference ([`crate::FindBy`]): what no verify is found by is in no index.
    pub is_found_by_reference: bool,
    /// The sets of user mapping options of which exactly one must be given, whole. An empty set: the vendor needs none.
    pub credential_sets: &'static [&'static [&'static str]],
    /// The credentials that go into an HTTP header unencoded.
    pub header_credentials: &'static [&'static str],
    /// Server options that only this vendor has.
    pub server_options: &'static [ServerOption],
    /// The fields that an operation takes, all variants together; None where the vendor has no such operation.
    pub fields: fn(Operation) -> Option<Vec<&'static Field>>,
    /// Reads what a person types to name whom the code goes to, into the form of a send's [`Prepared::recipient`].
    /// Returns None if the vendor takes no such number or user id; [`Dialect::recipient_field`] says what it takes.
    pub recipient: fn(&str) -> Option<Secret>,
    /// Members of a body that are no fields of a payload, because the dialect sets them itself.
    pub set_members: &'static [&'static str],
    /// Writes the HTTP message. An error names the field that is wrong and its rule, without the field's value.
    pub prepare: fn(&Call) -> Result<Prepared, Invalid>,
    /// Reads an answer by the vendor's own table: operation, HTTP status, JSON (`Null` where the body is empty).
    /// Returns None if the answer is not in the vendor's form: the common rules of `interpret` decide then.
    pub read: fn(Operation, u16, &Value) -> Option<CallResult>,
    /// The beginnings of those vendor codes that say, or may say, that this machine's address is not on the vendor's
    /// list.
    pub address_codes: &'static [&'static str],
    /// Members of an answer that may name a person or a session, at any depth: removed before the answer is stored.
    pub sensitive: &'static [&'static str],
    /// Members of an answer that hold an opaque id, which the application must get unaltered. [`crate::redact()`]
    /// leaves such an id alone unless a plain number stands in it.
    pub opaque: &'static [&'static str],
    /// What a server's option `description` says of a vendor that has no file here. The methods below ask the
    /// description first, the fields above second.
    pub description: Option<Arc<Description>>,
}

/// A server option that only one vendor has. It is no secret: everybody may see it.
pub struct ServerOption {
    pub name: &'static str,
    pub required: bool,
    /// The option tells accounts apart, more than the credentials do: guesses are counted by its value.
    pub names_account: bool,
    /// Says what is wrong with a value; called when the option is written, and again when it is used.
    pub check: fn(&str) -> Result<(), Invalid>,
}

impl Dialect {
    /// Returns whether a credential can be sent: in a header only visible ASCII can stand, with spaces inside alone.
    pub fn can_send(&self, credential: &str, value: &str) -> bool {
        let is_described = self.description.as_ref().is_some_and(|described| described.is_in_header(credential));
        !(self.header_credentials.contains(&credential) || is_described) || is_header_value(value)
    }

    /// Returns whether an answer with this vendor code, or with this HTTP status, may mean that this machine's address
    /// is not on the vendor's list.
    pub fn may_mean_address(&self, code: Option<&str>, status: Option<u16>) -> bool {
        let status = status.map(|status| status.to_string());
        let mut said = code.into_iter().chain(status.as_deref());
        said.any(|said| self.address_codes.iter().any(|code| said.starts_with(code)))
    }

    /// Returns the field of a send that names whom the code goes to: `mobile`, or `user_id`.
    pub fn recipient_field(&self) -> AnyField<'_> {
        let fields = self.fields(Operation::Send).unwrap_or_default();
        let names_person = |field: &AnyField| matches!(field.name, "mobile" | "user_id");
        fields.into_iter().find(names_person).unwrap_or(rest::RECIPIENT)
    }

    /// Returns the fields that an operation takes, all variants together; None if the vendor has no such operation.
    pub fn fields(&self, operation: Operation) -> Option<Vec<AnyField<'_>>> {
        match &self.description {
            Some(described) => described.fields(operation),
            None => Some((self.fields)(operation)?.into_iter().copied().collect()),
        }
    }

    /// Returns whether each server of this dialect brings a description of its own, in which the vendor's fields stand.
    pub fn is_for_descriptions(&self) -> bool {
        self.server_options.iter().any(|option| option.name == "description")
    }

    /// Returns the sets of user mapping options of which exactly one must be given, whole.
    pub fn credential_sets(&self) -> Vec<Vec<&str>> {
        match &self.description {
            Some(described) => vec![described.credentials.iter().map(String::as_str).collect()],
            None => self.credential_sets.iter().map(|set| set.to_vec()).collect(),
        }
    }

    /// Returns the text of the description, to be parsed in another process.
    pub fn description_text(&self) -> Option<String> {
        self.description.as_ref().map(|described| described.text.clone())
    }

    /// Writes the HTTP message. An error names the field that is wrong and its rule, without the field's value.
    pub fn prepare(&self, call: &Call) -> Result<Prepared, Invalid> {
        let prepared = match &self.description {
            Some(described) => described.prepare(self, call),
            None => (self.prepare)(call),
        }?;
        debug_assert!(self.is_found_by_reference || prepared.find_by == FindBy::Recipient, "{}", self.name);
        Ok(prepared)
    }

    /// Reads an answer by the vendor's own table; an empty body comes as null.
    pub(crate) fn read(&self, operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
        match &self.description {
            Some(described) => described.read(operation, status, answer),
            None => (self.read)(operation, status, answer),
        }
    }

    /// Returns the members of a body that the dialect sets itself.
    pub(crate) fn set_members(&self) -> impl Iterator<Item = &str> {
        self.set_members.iter().copied()
    }

    /// Returns the members of an answer that are not stored.
    pub fn sensitive(&self) -> impl Iterator<Item = &str> {
        let described = self.description.iter().flat_map(|described| &described.sensitive);
        self.sensitive.iter().copied().chain(described.map(String::as_str))
    }

    /// Returns the members of an answer that hold an opaque id.
    pub fn opaque(&self) -> impl Iterator<Item = &str> {
        let described = self.description.iter().flat_map(|described| &described.opaque);
        self.opaque.iter().copied().chain(described.map(String::as_str))
    }
}
