//! The fields of a vendor's payload, for people: the rows of the view `otp_gateway.payload_field`. They are made of the
//! tables that payloads are checked by, so that the two cannot differ.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use crate::{
    call::{Call, Prepared},
    dialect::Dialect,
    operation::Operation,
    payload::{field::AnyField, rule::Rule},
};

/// A field of one operation, as the view shows it.
#[derive(Debug)]
pub struct PayloadField<'a> {
    pub operation: Operation,
    /// Our name.
    pub field: &'a str,
    /// The vendor's own name; None for `extra`, whose members go by their own names.
    pub vendor_name: Option<&'a str>,
    /// `yes`; `no`; or `kept`: needed, and known from the send, so that only a flow begun elsewhere has to give it.
    /// After it, what can stand in for the field, and the variants of the operation that this holds for, if not for
    /// all.
    pub required: String,
    /// The rule in words, with the unit.
    pub rule: String,
    pub example: Value,
}

/// Returns the fields of every operation that the vendor has, in the order of its tables.
pub fn payload_fields(dialect: &Dialect) -> Vec<PayloadField<'_>> {
    let of = |operation| fields_of(dialect, operation);
    Operation::ALL.into_iter().flat_map(of).collect()
}

fn fields_of(dialect: &Dialect, operation: Operation) -> Vec<PayloadField<'_>> {
    let table = dialect.fields(operation).unwrap_or_default();
    let sent = dialect.fields(Operation::Send).unwrap_or_default();
    let variants = distinct(table.iter().filter_map(|field| field.variant));
    // Each row with the variants that it holds for.
    let mut rows: Vec<(PayloadField<'_>, Vec<&'static str>)> = Vec::new();
    for field in &table {
        let row = row(operation, field, &sent);
        let is_same = |other: &PayloadField| {
            (other.field, other.vendor_name, &other.required, &other.rule)
                == (row.field, row.vendor_name, &row.required, &row.rule)
        };
        match rows.iter_mut().find(|(other, _)| is_same(other)) {
            Some((_, of)) => of.extend(field.variant),
            None => rows.push((row, Vec::from_iter(field.variant))),
        }
    }
    let mut fields = Vec::new();
    for (mut row, of) in rows {
        if of.len() < variants.len() {
            row.required = format!("{} ({})", row.required, of.join(", "));
        }
        fields.push(row);
    }
    // All rows of one field are put where its first row is.
    let places = distinct(fields.iter().map(|row| row.field));
    fields.sort_by_key(|row| places.iter().position(|name| *name == row.field));
    fields
}

fn row<'a>(operation: Operation, field: &AnyField<'a>, sent: &[AnyField]) -> PayloadField<'a> {
    let is_needed = field.required || field.instead.is_some();
    let required = match is_needed {
        false => "no",
        true if is_kept(operation, field, sent) => "kept",
        true => "yes",
    };
    let instead = field.instead.map_or_else(String::new, |instead| format!(", or {instead}"));
    PayloadField {
        operation,
        field: field.name,
        vendor_name: (!matches!(field.rule, Rule::Extra)).then_some(field.wire),
        required: format!("{required}{instead}"),
        rule: [Some(field.rule.describe().as_str()), field.note].into_iter().flatten().collect::<Vec<_>>().join("; "),
        example: field.example(),
    }
}

/// Returns whether a later call knows the field from the send: the send had to give it, or it is the reference that the
/// send brought. A resend brings a reference of its own.
fn is_kept(operation: Operation, field: &AnyField, sent: &[AnyField]) -> bool {
    let is_given = |sent: &AnyField| {
        sent.name == field.name
            && sent.variant == field.variant
            && (sent.required || sent.instead.is_some())
            && !sent.once
    };
    match (operation, field.name) {
        (Operation::Send, _) | (Operation::Resend, "reference") => false,
        (_, "reference") => true,
        _ => sent.iter().any(is_given),
    }
}

fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    words.fold(Vec::new(), |mut all, word| {
        if !all.contains(&word) {
            all.push(word);
        }
        all
    })
}

/// What the server option `defaults` sets for every code that is sent under it.
#[derive(Debug, Default)]
pub struct DefaultsInForce {
    pub code_lifetime: Option<Duration>,
    pub max_checks: Option<u32>,
    /// As [`Prepared::has_no_life`]: the vendor's page does not say how long such a code lives.
    pub has_no_life: bool,
    /// Whether no vendor is called: the sandbox.
    pub is_local: bool,
}

/// Returns what holds for a send that gives only what it must, as the dialect prepares it from the fields' examples.
/// `options`: as in [`Call::options`].
pub fn defaults_in_force(
    dialect: &Dialect,
    options: &BTreeMap<String, String>,
    defaults: &Map<String, Value>,
) -> DefaultsInForce {
    let prepared = |is_given: fn(&AnyField) -> bool| prepared(dialect, options, defaults, is_given);
    let whole = prepared(|_| true);
    DefaultsInForce {
        // Required fields alone: where another field can stand in, the lifetime in this one's example is nobody's.
        code_lifetime: prepared(|field| field.instead.is_none()).and_then(|send| send.code_lifetime),
        max_checks: whole.as_ref().and_then(|send| send.max_checks),
        has_no_life: whole.as_ref().is_some_and(|send| send.has_no_life),
        is_local: whole.is_some_and(|send| send.local_outcome.is_some()),
    }
}

/// Returns the fields that each send needs, that may be the same for all sends, and that the defaults do not give.
pub fn missing_defaults<'a>(dialect: &'a Dialect, defaults: &Map<String, Value>) -> Vec<&'a str> {
    let table = dialect.fields(Operation::Send).unwrap_or_default();
    let is_needed = |name: &str| table.iter().filter(|field| field.name == name).all(|field| field.required);
    let is_default = |field: &AnyField| defaults.keys().any(|key| field.is_called(key));
    let lasting = table.iter().filter(|field| !field.personal && is_needed(field.name) && !is_default(field));
    distinct(lasting.map(|field| field.name))
}

/// Prepares a send from the examples of those needed fields that the defaults do not give.
fn prepared(
    dialect: &Dialect,
    options: &BTreeMap<String, String>,
    defaults: &Map<String, Value>,
    is_given: fn(&AnyField) -> bool,
) -> Option<Prepared> {
    let table = dialect.fields(Operation::Send).unwrap_or_default();
    let is_needed = |field: &&AnyField| (field.required || field.instead.is_some()) && is_given(field);
    let is_default = |field: &AnyField| defaults.keys().any(|key| field.is_called(key));
    let needed = table.iter().filter(is_needed).filter(|field| !is_default(field));
    let payload = needed.map(|field| (field.name.to_owned(), field.example())).collect();
    let nothing = Map::new();
    let call = Call {
        operation: Operation::Send,
        payload: &payload,
        defaults,
        retained_before: &nothing,
        options,
        credentials: &BTreeMap::new(),
        code: None,
        verification_id: "",
        attempt_id: "",
        code_lifetime: None,
    };
    dialect.prepare(&call).ok()
}
