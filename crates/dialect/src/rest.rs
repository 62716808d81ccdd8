//! A vendor described, not programmed (docs/rest.md): JSON that says which message each operation is, and
//! which answer means what. It is data: a placeholder is a whole value, and nothing is computed.

mod answer;
mod cursor;
mod described_field;
mod message;
mod reader;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    call::{Call, FindBy, Prepared},
    dialect::{Dialect, RESEND_AFTER, ServerOption},
    operation::Operation,
    payload::{
        code::CodeForm,
        field::{AnyField, Field, Invalid},
        fill::{FilledPayload, no_operation},
        phone_number::NumberingPlan,
        rule::{IDENTIFIER, Rule},
    },
    redact::whole,
    response::json_depth_exceeds,
    rest::{
        answer::{Line, Places},
        cursor::{Cursor, Read},
        described_field::DescribedField,
        message::{Message, Values},
    },
    secret::Secret,
};

/// What all descriptions have in common, and what is left of a vendor whose description is not at hand.
pub static DIALECT: Dialect = BARE;

const BARE: Dialect = Dialect {
    name: "rest",
    base_url: None,
    test_host: None,
    code_lifetime: None,
    code: CodeForm::Numeric,
    max_checks: 5,
    resend_after: RESEND_AFTER,
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
    sensitive: &[],
    opaque: &[],
    description: None,
};

/// Whom a code goes to.
pub(crate) const RECIPIENT: Field = Field::required("mobile", "mobile", Rule::PhoneNumber);

const REFERENCE: Field = Field::required("reference", "reference", IDENTIFIER).fixed().personal();

/// A longer description is not read.
pub const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;
/// A deeper one is not read.
const MAX_DEPTH: usize = 16;
/// A week, in seconds.
const WEEK: u64 = 7 * 86_400;

/// What a server says of its vendor.
pub struct Description {
    /// Without what is there for its reader's eye.
    pub(crate) text: String,
    fields: Vec<DescribedField>,
    /// The set of user mapping options.
    pub(crate) credentials: Vec<String>,
    pub(crate) header_credentials: Vec<String>,
    authorization: Option<Authorization>,
    /// By operation; so are all that follow each other in fours.
    messages: [Option<Message>; 4],
    /// What each takes from payload or record, and whether its path does.
    takes: [Vec<(String, bool)>; 4],
    reference: Places,
    /// The vendor knows a flow by the verification's id.
    gives_reference: bool,
    is_found_by_reference: bool,
    vendor_code: Places,
    vendor_message: Places,
    attempts_left: Places,
    retry_after: Places,
    lines: Vec<Line>,
    pub(crate) sensitive: Vec<String>,
    pub(crate) opaque: Vec<String>,
}

/// How credentials go into the header of that name.
enum Authorization {
    Basic(String, String),
    Bearer(String),
}

impl Authorization {
    fn holds(&self, name: &str) -> bool {
        match self {
            Self::Basic(user, password) => user == name || password == name,
            Self::Bearer(token) => token == name,
        }
    }
}

/// The dialect that a description makes; or what is wrong with it, and where.
pub fn described(text: &str) -> Result<Dialect, Invalid> {
    let hint = "docs/rest.md says what stands where.";
    let refuse = |what: String| Invalid::new("description", format!("the description is wrong: {what}"), hint);
    if text.len() > MAX_DESCRIPTION_BYTES || json_depth_exceeds(text.as_bytes(), MAX_DEPTH) {
        let what = format!("it is longer than {MAX_DESCRIPTION_BYTES} bytes, or deeper than {MAX_DEPTH} levels");
        return Err(refuse(what));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| refuse(format!("it is not JSON: {error}")))?;
    dialect_of(&Cursor { value: &value, path: String::new() }).map_err(refuse)
}

fn dialect_of(top: &Cursor) -> Read<Dialect> {
    let description = reader::read(top)?;
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
        max_checks: top.member("max_checks").number(1, 1000)?.map_or(BARE.max_checks, |most| most as u32),
        resend_after: seconds("resend_after", 0)?.unwrap_or(RESEND_AFTER),
        description: Some(Arc::new(description)),
        ..BARE
    })
}

impl Description {
    fn message(&self, operation: Operation) -> Option<&Message> {
        self.messages[operation as usize].as_ref()
    }

    fn field(&self, name: &str) -> Option<&DescribedField> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub fn fields(&self, operation: Operation) -> Option<Vec<AnyField<'_>>> {
        let message = self.message(operation)?;
        let takes = &self.takes[operation as usize];
        let described = |(name, in_path): &(String, bool)| Some(self.field(name)?.of(operation, *in_path));
        let mut fields: Vec<AnyField> = takes.iter().filter_map(described).collect();
        fields.extend(takes.iter().any(|(name, _)| name == "reference").then_some(REFERENCE));
        fields.extend(message.json.is_some().then(|| Field::extra(operation != Operation::Send)));
        Some(fields)
    }

    pub fn prepare(&self, dialect: &Dialect, call: &Call) -> Result<Prepared, Invalid> {
        let operation = call.operation;
        let (Some(message), Some(table)) = (self.message(operation), self.fields(operation)) else {
            return Err(no_operation(dialect, operation));
        };
        let mut filled = FilledPayload::new(dialect, call, &table, &format!("a {}", operation.as_str()))?;
        for field in table.iter().filter_map(|field| self.field(field.name)) {
            if let Some(default) = &field.default {
                filled.or_default(&field.name, default.clone());
            }
            filled.get(&field.name).map_or(Ok(()), |value| field.check_country(value))?;
        }
        let values = Values { description: self, call, filled: &filled };
        let request = values.request(message)?;
        let cancel = self.message(Operation::Cancel).filter(|_| message.cancel_first);
        let cancel_first = cancel.map(|cancel| values.request(cancel)).transpose()?;
        let mobile = filled.mobile(NumberingPlan::Any);
        let begins = matches!(operation, Operation::Send | Operation::Resend);
        let reference = match (begins, self.gives_reference) {
            (true, true) => Some(call.verification_id.to_owned()),
            (true, false) => None,
            (false, _) => filled.reference("reference"),
        };
        let find_by = if self.is_found_by_reference { FindBy::Reference } else { FindBy::Recipient };
        let mut prepared = Prepared {
            cancel_first,
            recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
            recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
            reference,
            code_lifetime: table.iter().find_map(|field| self.lifetime(field.name, &filled)),
            keeps_code: message.keeps_code,
            ..filled.prepared(request, find_by)
        };
        if let Some(Authorization::Basic(user, password)) = &self.authorization {
            let pair = call.credentials.get(user).zip(call.credentials.get(password));
            prepared.secrets.extend(pair.map(|(user, password)| Secret::basic(user, password)));
        }
        Ok(prepared)
    }

    /// How long the code lives, if the field says so.
    fn lifetime(&self, name: &str, filled: &FilledPayload) -> Option<Duration> {
        let unit = self.field(name)?.lifetime_unit?;
        let value = filled.get(name)?;
        let digits = whole(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))?;
        Some(Duration::from_secs(digits.parse::<u64>().unwrap_or(0).saturating_mul(unit)))
    }
}
