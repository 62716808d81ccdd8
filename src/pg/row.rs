//! A row of a table of the user's, and what a payload takes of it.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use serde_json::Value;

#[derive(Clone, Copy)]
pub struct Row {
    pub tuple: pg_sys::HeapTuple,
    pub descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// The number of a column.
    pub fn column(&self, name: &str) -> Option<i32> {
        let name = CString::new(name).ok()?;
        // SAFETY: the descriptor is the tuple's, which lives as long as this is used.
        let number = unsafe { pg_sys::SPI_fnumber(self.descriptor, name.as_ptr()) };
        (number > 0).then_some(number)
    }

    pub fn type_of(&self, column: i32) -> pg_sys::Oid {
        // SAFETY: as above.
        unsafe { pg_sys::SPI_gettypeid(self.descriptor, column) }
    }

    pub fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: as above.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, column, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// A column's value as a payload takes it; None: NULL.
    pub fn value(&self, column: i32) -> Option<Value> {
        // SAFETY: as above; the text is a C string that is freed with the memory of whoever asks.
        let text = unsafe {
            let text = pg_sys::SPI_getvalue(self.tuple, self.descriptor, column);
            if text.is_null() {
                return None;
            }
            CStr::from_ptr(text).to_string_lossy()
        };
        Some(match self.type_of(column) {
            pg_sys::BOOLOID => Value::Bool(text == "t"),
            pg_sys::JSONOID | pg_sys::JSONBOID => serde_json::from_str(&text).unwrap_or(Value::Null),
            pg_sys::BPCHAROID => Value::String(text.trim_end_matches(' ').to_owned()),
            _ => Value::String(text.into_owned()),
        })
    }
}
