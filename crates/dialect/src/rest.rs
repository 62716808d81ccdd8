//! Vendors that are described, not programmed (docs/rest.md): a JSON text says which message each operation is, and
//! which answer means what. The description is data: a placeholder is a whole value, and nothing is computed.

mod answer;
mod cursor;
mod described_field;
mod message;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    call::{Call, FindBy, Prepared},
    dialect::{Dialect, RESEND_AFTER, ServerOption},
    operation::Operation::{self, Cancel, Resend, Send, Verify},
    payload::{
        code::CodeForm,
        field::{AnyField, Field, Invalid},
        fill::{FilledPayload, no_operation},
        phone_number::NumberingPlan,
        rule::{IDENTIFIER, Rule},
    },
    response::json_depth_exceeds,
    rest::{
        answer::{Line, Place},
        cursor::{Cursor, Read},
        described_field::{DescribedField, GIVEN, read_name},
        message::{Message, Name, Position, Values},
    },
    secret::Secret,
};

/// The part that all descriptions have in common; alone, it stands for a vendor whose description is not at hand.
pub static DIALECT: Dialect = Dialect {
    name: "rest",
    base_url: None,
    test_host: None,
    code_lifetime: None,
    code: CodeForm::Numeric,
    max_checks: 5,
    resend_after: RESEND_AFTER,
    // A description may come to name one while flows are open.
    is_found_by_reference: true,
    credential_sets: &[],
    header_credentials: &[],
    server_options: &[
        ServerOption { name: "description", required: false, names_account: false, check: |_| Ok(()) },
        ServerOption { name: "description_file", required: false, names_account: false, check: |_| Ok(()) },
    ],
    fields: |_| None,
    recipient: |typed| Some(NumberingPlan::Any.parse(typed)?.recipient()),
    set_members: &[],
    prepare: |call| Err(no_operation(&DIALECT, call.operation)),
    read: |_, _, _| None,
    address_codes: &[],
    sensitive: &[],
    opaque: &[],
    description: None,
};

/// The field of a send that says whom the code goes to.
pub(crate) const RECIPIENT: Field = Field::required("mobile", "mobile", Rule::PhoneNumber);

const REFERENCE: Field = Field::required("reference", "reference", IDENTIFIER).fixed().personal();

/// Longest description that is read, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;
/// Deepest nesting of a description that is read.
const MAX_DEPTH: usize = 16;
/// A week, in seconds.
const WEEK: u64 = 7 * 86_400;

/// What a server's option `description` says of its vendor.
pub struct Description {
    /// The description's JSON without line breaks and indentation.
    pub(crate) text: String,
    fields: Vec<DescribedField>,
    /// The user mapping options, each of which must be given.
    pub(crate) credentials: Vec<String>,
    /// The credentials that go into the header `authorization`: a user and a password as Basic, or a token as Bearer.
    authorization: Vec<String>,
    messages: Vec<Message>,
    /// Where an answer has the vendor's reference. None: the vendor knows a flow by the verification's id.
    reference: Option<Vec<Place>>,
    vendor_code: Vec<Place>,
    vendor_message: Vec<Place>,
    attempts_left: Vec<Place>,
    retry_after: Vec<Place>,
    lines: Vec<Line>,
    pub(crate) sensitive: Vec<String>,
    pub(crate) opaque: Vec<String>,
}

const MEMBERS: &str = "fields credentials authorization code_digits code_lifetime max_checks resend_after operations \
                       reference vendor_code vendor_message attempts_left retry_after outcomes sensitive opaque";

/// Returns the dialect that a description makes. An error says what is wrong, and where.
pub fn described(text: &str) -> Result<Dialect, Invalid> {
    let hint = "docs/rest.md says what stands where.";
    let refuse = |what: String| Invalid::new("description", format!("the description is wrong: {what}"), hint);
    if text.len() > MAX_DESCRIPTION_BYTES || json_depth_exceeds(text.as_bytes(), MAX_DEPTH) {
        return Err(refuse(format!(
            "it is longer than {MAX_DESCRIPTION_BYTES} bytes, or deeper than {MAX_DEPTH} levels"
        )));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| refuse(format!("it is not JSON: {error}")))?;
    read(&Cursor { value: &value, path: String::new() }).map_err(refuse)
}

fn read(top: &Cursor) -> Read<Dialect> {
    let description = Description::of(top)?;
    description.check_flow(top)?;
    let seconds = |name, least| Ok::<_, String>(top.member(name).number(least, WEEK)?.map(Duration::from_secs));
    let digits = top.member("code_digits");
    let code = match digits.each(|at| at.number(4, 64))?.as_slice() {
        [] => CodeForm::Numeric,
        [Some(min), Some(max)] if min <= max => CodeForm::Digits { min: *min as usize, max: *max as usize },
        _ => return digits.mistake("it is the least and the most digits that a code has: [4, 10]"),
    };
    Ok(Dialect {
        code,
        code_lifetime: seconds("code_lifetime", 1)?,
        max_checks: top.member("max_checks").number(1, 1000)?.map_or(DIALECT.max_checks, |most| most as u32),
        resend_after: seconds("resend_after", 0)?.unwrap_or(RESEND_AFTER),
        description: Some(Arc::new(description)),
        ..DIALECT.clone()
    })
}

fn read_authorization(at: &Cursor, credentials: &[String]) -> Read<Vec<String>> {
    at.only("basic bearer")?;
    let credentials: Vec<&String> = credentials.iter().collect();
    let credential = |at: &Cursor| at.choice(&credentials, |name| name.as_str()).cloned();
    let (basic, bearer) = (at.member("basic").each(credential)?, at.member("bearer").each(credential)?);
    let is_one = matches!((basic.len(), bearer.len()), (2, 0) | (0, 1)) || at.value.is_null();
    at.need(is_one, r#"it is neither {"basic": ["user", "password"]} nor {"bearer": "token"}"#)?;
    Ok([basic, bearer].concat())
}

impl Description {
    fn of(top: &Cursor) -> Read<Self> {
        top.only(MEMBERS)?;
        // The names that are taken: of fields and credentials, and the vendor's own of fields.
        let mut taken = Vec::new();
        let fields = top.member("fields").members()?.into_iter();
        let fields = fields.map(|(name, at)| DescribedField::read(&at, name, &mut taken)).collect::<Read<Vec<_>>>()?;
        let credentials = top.member("credentials").each(|at| read_name(at, &at.text()?, &mut taken))?;
        let operations = top.member("operations");
        operations.only(&Operation::ALL.map(Operation::as_str).join(" "))?;
        let of_fields = fields.iter().map(|field| (field.name.as_str(), matches!(field.rule, Rule::Any)));
        let of_others = credentials.iter().map(String::as_str).chain(GIVEN).map(|name| (name, false));
        let names: Vec<Name> = of_fields.chain(of_others).collect();
        let message = |operation: Operation| {
            operations.member(operation.as_str()).given(|at| Message::read(at, operation, &names)).transpose()
        };
        let messages = Operation::ALL.into_iter().filter_map(message).collect::<Read<Vec<_>>>()?;
        let described: Vec<Operation> = messages.iter().map(|message| message.operation).collect();
        let reference = top.member("reference");
        let reference = if reference.value == "{verification_id}" { None } else { Some(reference.each(Place::read)?) };
        let mut opaque = top.member("opaque").each(Cursor::text)?;
        opaque.extend(reference.iter().flatten().filter_map(Place::id_name));
        Ok(Self {
            text: top.value.to_string(),
            authorization: read_authorization(&top.member("authorization"), &credentials)?,
            vendor_code: top.member("vendor_code").each(Place::read)?,
            vendor_message: top.member("vendor_message").each(Place::read)?,
            attempts_left: top.member("attempts_left").each(Place::read)?,
            retry_after: top.member("retry_after").each(Place::read)?,
            lines: top.member("outcomes").each(|at| Line::read(at, &described))?,
            sensitive: top.member("sensitive").each(Cursor::text)?,
            opaque,
            reference,
            messages,
            fields,
            credentials,
        })
    }

    /// Checks that a flow can come of the description: somebody gets a code, the vendor compares one, and no field and
    /// no credential is without a place.
    fn check_flow(&self, top: &Cursor) -> Read<()> {
        let has = |operation, name: &str| !self.places_of(operation, name).is_empty();
        let is_used = |name: &str| Operation::ALL.into_iter().any(|operation| has(operation, name));
        let at = |operation: Operation| top.member("operations").member(operation.as_str());
        at(Send).need(has(Send, "mobile"), "it has no {mobile}: nobody would get a code")?;
        at(Verify).need(has(Verify, "code"), "it has no {code}: the vendor would compare nothing")?;
        let has_one = has(Verify, "reference") || has(Verify, "mobile");
        at(Verify).need(has_one, "it has neither {reference} nor {mobile}: whose code it is, nobody knows")?;
        let voids = self.message(Resend).is_some_and(|message| message.cancel_first);
        at(Cancel).need(!voids || self.message(Cancel).is_some(), "it is missing, and resend has cancel_first")?;
        let has_place = !is_used("reference") || self.reference.as_ref().is_none_or(|places| !places.is_empty());
        top.member("reference").need(has_place, "it is missing: where in an answer it stands")?;
        let mut names = self.fields.iter().map(|field| &field.name).chain(&self.credentials);
        names.try_for_each(|name| {
            let has_place = self.authorization.contains(name) || is_used(name);
            top.need(has_place, format_args!("no message has a place for {{{name}}}"))
        })
    }

    fn message(&self, operation: Operation) -> Option<&Message> {
        self.messages.iter().find(|message| message.operation == operation)
    }

    /// Returns the paths of literal texts that may be credentials.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().flat_map(|message| &message.literals).map(String::as_str)
    }

    /// Returns the positions at which an operation's messages have a value.
    fn places_of(&self, operation: Operation, name: &str) -> Vec<Position> {
        let voids = self.message(operation).is_some_and(|message| message.cancel_first);
        let messages = [Some(operation), voids.then_some(Operation::Cancel)].into_iter().flatten();
        let uses = messages.filter_map(|of| self.message(of)).flat_map(|message| &message.uses);
        uses.filter(|(used, _)| used == name).map(|(_, position)| *position).collect()
    }

    /// Returns whether a credential goes into a header unencoded.
    pub(crate) fn is_in_header(&self, credential: &str) -> bool {
        let mut uses = self.messages.iter().flat_map(|message| &message.uses);
        self.authorization == [credential] || uses.any(|(name, at)| name == credential && *at == Position::Header)
    }

    fn is_found_by_reference(&self) -> bool {
        !self.places_of(Operation::Verify, "reference").is_empty()
    }

    pub fn fields(&self, operation: Operation) -> Option<Vec<AnyField<'_>>> {
        let message = self.message(operation)?;
        let described = self.fields.iter().filter_map(|field| {
            let places = self.places_of(operation, &field.name);
            (!places.is_empty()).then(|| field.of(operation, places.contains(&Position::Path)))
        });
        let reference = (!self.places_of(operation, "reference").is_empty()).then_some(REFERENCE);
        let extra = message.json.as_ref().map(|_| Field::extra(operation != Operation::Send));
        Some(described.chain(reference).chain(extra).collect())
    }

    /// Returns the value of the header `authorization`, made of the credentials.
    fn authorization(&self, call: &Call) -> Option<Secret> {
        let credential = |name: &String| call.credentials.get(name).cloned().unwrap_or_default();
        let (kind, secret) = match self.authorization.as_slice() {
            [user, password] => ("Basic", Secret::basic(&credential(user), &credential(password))),
            [token] => ("Bearer", credential(token)),
            _ => return None,
        };
        Some(Secret::new(format!("{kind} {}", secret.reveal())))
    }

    pub fn prepare(&self, dialect: &Dialect, call: &Call) -> Result<Prepared, Invalid> {
        let operation = call.operation;
        let (Some(message), Some(table)) = (self.message(operation), self.fields(operation)) else {
            return Err(no_operation(dialect, operation));
        };
        let mut filled = FilledPayload::new(dialect, call, &table, &format!("a {}", operation.as_str()))?;
        for field in self.fields.iter().filter(|field| table.iter().any(|one| one.name == field.name)) {
            if let Some(default) = &field.default {
                filled.or_default(&field.name, default.clone());
            }
        }
        let values = Values::new(self, call, &filled)?;
        let cancel = self.message(Cancel).filter(|_| message.cancel_first);
        let mobile = filled.mobile(NumberingPlan::Any);
        let reference = match operation {
            Send | Resend => self.reference.is_none().then(|| call.verification_id.to_owned()),
            Verify | Cancel => filled.reference("reference"),
        };
        let find_by = if self.is_found_by_reference() { FindBy::Reference } else { FindBy::Recipient };
        let mut prepared = Prepared {
            cancel_first: cancel.map(|cancel| values.request(cancel)).transpose()?,
            recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
            recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
            reference,
            code_lifetime: self.fields.iter().find_map(|field| field.code_lifetime(filled.get(&field.name)?)),
            keeps_code: message.keeps_code,
            ..filled.prepared(values.request(message)?, find_by)
        };
        // An answer that repeats the header has the credentials in this encoded form.
        let encoded = values.authorization.as_ref().and_then(|header| header.reveal().split_once(' '));
        prepared.secrets.extend(encoded.map(|(_, secret)| Secret::new(secret)));
        Ok(prepared)
    }
}
