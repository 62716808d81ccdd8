//! The trigger's second argument: which payload field is filled from which column or constant.

use std::{cell::RefCell, rc::Rc};

use dialect::Operation;
use serde_json::{Map, Value};

use crate::{
    error::Error,
    pg::{
        fingerprint::{Fingerprint, FingerprintBuilder},
        row::Row,
    },
    provider::candidates::Candidates,
};

pub struct Mapping(Vec<(String, Source)>);

pub enum Source {
    Column(String),
    Constant(Value),
}

/// The values of the fields for one row; None is NULL.
#[derive(PartialEq)]
pub struct Values(Vec<(String, Option<Value>)>);

thread_local! {
    /// The mapping that was parsed last: the rows of one statement have the same.
    static LAST: RefCell<Option<(String, Rc<Mapping>)>> = const { RefCell::new(None) };
}

impl Mapping {
    pub fn parse(text: &str) -> Result<Rc<Self>, Error> {
        if let Some(known) =
            LAST.with_borrow(|last| last.as_ref().filter(|(of, _)| of == text).map(|(_, mapping)| Rc::clone(mapping)))
        {
            return Ok(known);
        }
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err(Error::invalid_parameter(
                "its second argument is not a JSON object",
                r#"It maps payload fields to columns: '{"mobile": "phone", "template_id": "=login"}'."#,
            ));
        };
        let source = |value: Value| match value {
            Value::String(text) => match text.strip_prefix('=') {
                Some(constant) => Source::Constant(Value::String(constant.to_owned())),
                None => Source::Column(text),
            },
            other => Source::Constant(other),
        };
        let mapping = Rc::new(Self(fields.into_iter().map(|(field, value)| (field, source(value))).collect()));
        LAST.set(Some((text.to_owned(), Rc::clone(&mapping))));
        Ok(mapping)
    }

    /// Returns the columns that the mapping names.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(_, source)| match source {
            Source::Column(column) => Some(column.as_str()),
            Source::Constant(_) => None,
        })
    }

    /// Returns the values of the fields for this row; None if a column is missing.
    pub fn values(&self, row: Row) -> Option<Values> {
        let value = |source: &Source| match source {
            Source::Constant(value) => Some(Some(value.clone())),
            Source::Column(name) => Some(row.json(row.column(name)?)),
        };
        self.0.iter().map(|(field, source)| Some((field.clone(), value(source)?))).collect::<Option<_>>().map(Values)
    }

    /// Returns the error with the columns that are to blame for it, if any are.
    pub fn blame(&self, error: Error, candidates: &Candidates) -> Error {
        let is_of_column = |field: &String| {
            let is_of_field = |(name, source): &(String, Source)| {
                matches!(source, Source::Column(_)) && is_field(name, field, candidates)
            };
            self.0.iter().any(is_of_field)
        };
        let error = if error.fields().iter().all(is_of_column) { error } else { error.of_constants() };
        let is_to_blame = |name: &str| error.fields().iter().any(|field| is_field(name, field, candidates));
        let mut columns: Vec<&str> = Vec::new();
        for (name, source) in &self.0 {
            if let Source::Column(column) = source
                && is_to_blame(name)
                && !columns.contains(&column.as_str())
            {
                columns.push(column);
            }
        }
        match columns.len() {
            0 => error,
            1 => error.at(&format!("column {}", columns[0])),
            _ => error.at(&format!("columns {}", columns.join(", "))),
        }
    }
}

impl Values {
    /// Returns the payload; a field that is NULL is left out.
    pub fn payload(&self) -> Map<String, Value> {
        self.0.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// Returns whether a payload was refused for want of a field that is NULL here: then there is nothing to send.
    pub fn lack(&self, error: &Error, candidates: &Candidates) -> bool {
        let is_null =
            |field: &String| self.0.iter().any(|(name, value)| value.is_none() && is_field(name, field, candidates));
        error.fields().iter().any(is_null)
    }

    /// Returns the fingerprint by which the values are compared later, so that no number has to be kept.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut builder = FingerprintBuilder::of("values");
        for (name, value) in &self.0 {
            builder.add(Some(name.as_bytes()));
            builder.add(value.as_ref().map(|value| value.to_string()).as_ref().map(String::as_bytes));
        }
        builder.finish()
    }
}

/// Returns whether a field of an error (which may go on into an object: `msg[0].message`) is the field of that name,
/// ours or the vendor's.
pub fn is_field(name: &str, field: &str, candidates: &Candidates) -> bool {
    let field = &field[..field.find(['.', '[']).unwrap_or(field.len())];
    name == field
        || candidates.members.iter().any(|member| {
            let fields = member.dialect.fields(Operation::Send).unwrap_or_default();
            fields.iter().any(|one| one.is_called(field) && one.is_called(name))
        })
}
