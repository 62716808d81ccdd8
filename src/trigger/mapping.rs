//! The trigger's second argument: which payload field is filled from where.

use std::{cell::RefCell, rc::Rc};

use pgrx::pg_sys;
use serde_json::Value;

use super::{Event, Values};
use crate::misuse::Misuse;

pub struct Mapping(Vec<(String, Source)>);

enum Source {
    Column(String),
    Constant(Value),
}

thread_local! {
    /// The last one: many rows of one statement have the same.
    static LAST: RefCell<Option<(String, Rc<Mapping>)>> = const { RefCell::new(None) };
}

impl Mapping {
    pub fn parse(text: &str) -> Result<Rc<Self>, Misuse> {
        if let Some(known) =
            LAST.with_borrow(|last| last.as_ref().filter(|(of, _)| of == text).map(|(_, mapping)| Rc::clone(mapping)))
        {
            return Ok(known);
        }
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err(Misuse::invalid(
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

    /// What the fields are for this row.
    pub fn values(&self, event: &Event, row: pg_sys::HeapTuple) -> Result<Values<'_>, Misuse> {
        let value = |source: &Source| match source {
            Source::Constant(value) => Ok::<_, Misuse>(Some(value.clone())),
            Source::Column(name) => Ok(event.value(row, event.column(name)?)),
        };
        self.0.iter().map(|(field, source)| Ok((field.as_str(), value(source)?))).collect()
    }

    /// The column that a payload field comes from; `field` may go on into an object (`msg[0].message`).
    pub fn column_of(&self, field: &str) -> Option<&str> {
        let end = field.find(['.', '[']).unwrap_or(field.len());
        self.0.iter().find_map(|(name, source)| match source {
            Source::Column(column) if name == &field[..end] => Some(column.as_str()),
            _ => None,
        })
    }
}
