//! The trigger's second argument: which payload field is filled from where.

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

/// What the fields are for a row; None: NULL.
#[derive(PartialEq)]
pub struct Values(Vec<(String, Option<Value>)>);

thread_local! {
    /// The last one: many rows of one statement have the same.
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

    /// The columns that it names.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(_, source)| match source {
            Source::Column(column) => Some(column.as_str()),
            Source::Constant(_) => None,
        })
    }

    /// What the fields are for this row. None: a column is not there.
    pub fn values(&self, row: Row) -> Option<Values> {
        let value = |source: &Source| match source {
            Source::Constant(value) => Some(Some(value.clone())),
            Source::Column(name) => Some(row.json(row.column(name)?)),
        };
        self.0.iter().map(|(field, source)| Some((field.clone(), value(source)?))).collect::<Option<_>>().map(Values)
    }

    /// An error with the columns that are to blame for it, if any are.
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
    /// What is NULL is left out.
    pub fn payload(&self) -> Map<String, Value> {
        self.0.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// Whether something was refused for want of a field that is NULL here: then there is nothing to send.
    pub fn lack(&self, error: &Error, candidates: &Candidates) -> bool {
        let is_null =
            |field: &String| self.0.iter().any(|(name, value)| value.is_none() && is_field(name, field, candidates));
        error.fields().iter().any(is_null)
    }

    /// By which they are compared later: no number is kept.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut builder = FingerprintBuilder::of("values");
        for (name, value) in &self.0 {
            builder.add(Some(name.as_bytes()));
            builder.add(value.as_ref().map(|value| value.to_string()).as_ref().map(String::as_bytes));
        }
        builder.finish()
    }
}

/// Whether a field that an error names, which may go on into an object (`msg[0].message`), is the one of that name:
/// ours, or the vendor's.
pub fn is_field(name: &str, field: &str, candidates: &Candidates) -> bool {
    let field = &field[..field.find(['.', '[']).unwrap_or(field.len())];
    name == field
        || candidates.members.iter().any(|member| {
            let fields = member.dialect.fields(Operation::Send).unwrap_or_default();
            fields.iter().any(|one| one.is_called(field) && one.is_called(name))
        })
}
