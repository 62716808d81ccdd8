use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    call::{Call, Prepared, is_header_value},
    operation::Operation,
    payload::{
        code::CodeForm,
        field::{AnyField, Field, Invalid},
    },
    response::CallResult,
    rest::{self, Description},
    secret::Secret,
};

/// Where the page gives no wait: what the vendors that do give one ask for.
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(30);

/// One vendor: what it takes, how a call is written, how an answer is read.
#[derive(Clone)]
pub struct Dialect {
    /// `ideamart`; the foreign data wrapper is `otp_ideamart`.
    pub name: &'static str,
    /// The documented host; none where the vendor runs on the customer's premises.
    pub base_url: Option<&'static str>,
    /// The host on which the vendor lets its customers try things, where its page names one: nobody gets a code from
    /// it.
    pub test_host: Option<&'static str>,
    /// How long the vendor says that a code lives (docs/vendors); none where it does not say.
    pub code_lifetime: Option<Duration>,
    /// What its codes are made of.
    pub code: CodeForm,
    /// How many wrong codes the vendor allows; 5 where it does not say.
    pub max_checks: u32,
    /// How long the vendor's page asks to wait between two sends to one recipient; [`RESEND_AFTER`] where it does not
    /// say.
    pub resend_after: Duration,
    /// The sets of user mapping options of which exactly one must be given, whole. An empty set: none are needed.
    pub credential_sets: &'static [&'static [&'static str]],
    /// Those credentials that go into a header of HTTP as they are.
    pub header_credentials: &'static [&'static str],
    /// Server options that only this vendor has.
    pub server_options: &'static [ServerOption],
    /// The fields that an operation takes, all variants together; none where the vendor has no such operation.
    pub fields: fn(Operation) -> Option<Vec<&'static Field>>,
    /// What a person types for whom the code goes to, in the form that [`Prepared::recipient`] of a send has. None:
    /// this vendor takes no such number or user id; [`Dialect::recipient_field`] says what it takes.
    pub recipient: fn(&str) -> Option<Secret>,
    /// Members of a body that are no fields of a payload: the dialect sets them itself.
    pub set_members: &'static [&'static str],
    /// Writes the HTTP message, or says which field is wrong and what its rule is, without its value.
    pub prepare: fn(&Call) -> Result<Prepared, Invalid>,
    /// Reads an answer by the vendor's own table: operation, HTTP status, JSON (`Null` where the body is empty).
    /// Returns None where it has not this vendor's shape: then the common rules of `interpret` decide.
    pub read: fn(Operation, u16, &Value) -> Option<CallResult>,
    /// What a code of the vendor's begins with that says, or may say, that this machine's address is not on its list.
    pub address_codes: &'static [&'static str],
    /// Members of an answer that may name a person or a session, at any depth: removed before it is stored.
    pub sensitive: &'static [&'static str],
    /// Members of an answer that hold an opaque id, which the application must get unaltered. [`crate::redact`] leaves
    /// them alone unless a plain number stands in them.
    pub opaque: &'static [&'static str],
    /// What a server says of a vendor that has no file here: it goes before all of the above but the name.
    pub description: Option<Arc<Description>>,
}

/// A server option that only one vendor has. It is no secret: everybody may see it.
pub struct ServerOption {
    pub name: &'static str,
    pub required: bool,
    /// It says, more than the credentials do, which account a flow is of: guesses count by it.
    pub names_account: bool,
    /// What is wrong with a value; asked when it is written, and again when it is used.
    pub check: fn(&str) -> Result<(), Invalid>,
}

impl Dialect {
    /// Whether a credential can be sent: in a header only visible ASCII can stand, and spaces between.
    pub fn can_send(&self, credential: &str, value: &str) -> bool {
        let is_described = self.description.as_ref().is_some_and(|described| described.is_in_header(credential));
        !(self.header_credentials.contains(&credential) || is_described) || is_header_value(value)
    }

    /// Whether an answer with this code, or HTTP status, may mean that this machine's address is not on the vendor's
    /// list.
    pub fn may_mean_address(&self, code: Option<&str>, status: Option<u16>) -> bool {
        let status = status.map(|status| status.to_string());
        let mut said = code.into_iter().chain(status.as_deref());
        said.any(|said| self.address_codes.iter().any(|code| said.starts_with(code)))
    }

    /// The field of a send that names whom the code goes to: `mobile`, or `user_id`.
    pub fn recipient_field(&self) -> AnyField<'_> {
        let fields = self.fields(Operation::Send).unwrap_or_default();
        let names_person = |field: &AnyField| matches!(field.name, "mobile" | "user_id");
        fields.into_iter().find(names_person).unwrap_or(rest::RECIPIENT)
    }

    /// The fields that an operation takes, all variants together; none where the vendor has no such operation.
    pub fn fields(&self, operation: Operation) -> Option<Vec<AnyField<'_>>> {
        match &self.description {
            Some(described) => described.fields(operation),
            None => Some((self.fields)(operation)?.into_iter().copied().collect()),
        }
    }

    /// Whether each of its servers has a description of its own; what it says is in none of the fields above.
    pub fn is_for_descriptions(&self) -> bool {
        self.server_options.iter().any(|option| option.name == "description")
    }

    /// The sets of user mapping options of which exactly one must be given, whole.
    pub fn credential_sets(&self) -> Vec<Vec<&str>> {
        match &self.description {
            Some(described) => vec![described.credentials.iter().map(String::as_str).collect()],
            None => self.credential_sets.iter().map(|set| set.to_vec()).collect(),
        }
    }

    /// The description, to be read elsewhere.
    pub fn description_text(&self) -> Option<String> {
        self.description.as_ref().map(|described| described.text.clone())
    }

    /// Writes the HTTP message, or says which field is wrong and what its rule is, without its value.
    pub fn prepare(&self, call: &Call) -> Result<Prepared, Invalid> {
        match &self.description {
            Some(described) => described.prepare(self, call),
            None => (self.prepare)(call),
        }
    }

    /// Reads an answer by the vendor's own table; null: it is empty.
    pub(crate) fn read(&self, operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
        match &self.description {
            Some(described) => described.read(operation, status, answer),
            None => (self.read)(operation, status, answer),
        }
    }

    /// Members of a body that the dialect sets itself.
    pub(crate) fn set_members(&self) -> impl Iterator<Item = &str> {
        self.set_members.iter().copied()
    }

    /// Members of an answer that are not stored.
    pub fn sensitive(&self) -> impl Iterator<Item = &str> {
        let described = self.description.iter().flat_map(|described| &described.sensitive);
        self.sensitive.iter().copied().chain(described.map(String::as_str))
    }

    /// Members of an answer that hold an opaque id.
    pub fn opaque(&self) -> impl Iterator<Item = &str> {
        let described = self.description.iter().flat_map(|described| &described.opaque);
        self.opaque.iter().copied().chain(described.map(String::as_str))
    }
}
