//! Rows as one argument: an array of a table's row type.

use std::ffi::{CStr, CString};

use pgrx::{IntoDatum, datum::DatumWithOid, pg_sys};
use policy::Timestamp;
use uuid::Uuid;

use crate::pg::{
    relation::of_extension,
    values::{Time, pg_uuid},
};

/// A table's row type, looked up where the statements are prepared.
pub struct RowType {
    row: pg_sys::Oid,
    rows: pg_sys::Oid,
    descriptor: pg_sys::TupleDesc,
    /// Of each column; of a domain, what that is over.
    types: Vec<pg_sys::Oid>,
}

/// The type of an array of a table's rows.
pub fn rows_of(table: &CStr) -> pg_sys::Oid {
    // SAFETY: look-ups in the catalog, in a transaction that holds a lock on the extension's tables.
    unsafe { pg_sys::get_array_type(row_of(table)) }
}

fn row_of(table: &CStr) -> pg_sys::Oid {
    // SAFETY: as above.
    unsafe { pg_sys::get_rel_type_id(of_extension(table).unwrap_or(pg_sys::InvalidOid)) }
}

impl RowType {
    pub fn of(table: &CStr) -> Self {
        // SAFETY: as above; the copy lives as long as the worker.
        unsafe {
            let row = row_of(table);
            let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(row, -1);
            pg_sys::MemoryContextSwitchTo(before);
            let types = (1..=(*descriptor).natts)
                .map(|column| pg_sys::SPI_gettypeid(descriptor, column))
                .map(|of| if of == pg_sys::InvalidOid { of } else { pg_sys::getBaseType(of) })
                .collect();
            Self { row, rows: pg_sys::get_array_type(row), descriptor, types }
        }
    }

    /// The rows, each with its columns filled by their order in the install script; a column that is left out is null.
    pub fn array<T>(&self, rows: &[T], fill: impl Fn(&T, &mut Columns)) -> DatumWithOid<'static> {
        // SAFETY: each datum is of its column's type, which Columns sees to; the arrays have the descriptor's length.
        unsafe {
            let width = self.types.len();
            let (values, nulls) = (vec![pg_sys::Datum::from(0); width], vec![true; width]);
            let mut columns = Columns { types: &self.types, values, nulls };
            let mut records: Vec<pg_sys::Datum> = rows
                .iter()
                .map(|row| {
                    columns.nulls.fill(true);
                    fill(row, &mut columns);
                    let tuple = pg_sys::heap_form_tuple(
                        self.descriptor,
                        columns.values.as_mut_ptr(),
                        columns.nulls.as_mut_ptr(),
                    );
                    pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
                })
                .collect();
            let array =
                pg_sys::construct_array(records.as_mut_ptr(), records.len() as i32, self.row, -1, false, b'd' as _);
            DatumWithOid::new(RowArray(pg_sys::Datum::from(array)), self.rows)
        }
    }
}

/// An array of rows, as it is.
struct RowArray(pg_sys::Datum);

impl IntoDatum for RowArray {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::RECORDARRAYOID
    }
}

/// The columns of one row, by their numbers.
pub struct Columns<'a> {
    types: &'a [pg_sys::Oid],
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Columns<'_> {
    /// A datum, or NULL, of this type.
    fn set(&mut self, column: usize, of: pg_sys::Oid, datum: Option<pg_sys::Datum>) {
        assert!(self.types[column - 1] == of, "a value is of its column's type");
        if let Some(datum) = datum {
            self.values[column - 1] = datum;
            self.nulls[column - 1] = false;
        }
    }

    pub fn uuid(&mut self, column: usize, value: Uuid) {
        self.set(column, pg_sys::UUIDOID, pg_uuid(value).into_datum());
    }

    pub fn text(&mut self, column: usize, value: Option<&str>) {
        self.set(column, pg_sys::TEXTOID, value.into_datum());
    }

    pub fn name(&mut self, column: usize, value: &str) {
        // A name with bytes that are no UTF-8 grew when it was read, and is cut; the last byte is a zero.
        let mut end = value.len().min(pg_sys::NAMEDATALEN as usize - 1);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let mut name = value.as_bytes()[..end].to_vec();
        // SAFETY: a name is a block of fixed length, filled up with zeros.
        unsafe {
            name.resize(pg_sys::NAMEDATALEN as usize, 0);
            let copy = pg_sys::palloc(name.len());
            std::ptr::copy_nonoverlapping(name.as_ptr(), copy.cast(), name.len());
            self.set(column, pg_sys::NAMEOID, Some(pg_sys::Datum::from(copy)));
        }
    }

    pub fn bytea(&mut self, column: usize, value: Option<&[u8]>) {
        self.set(column, pg_sys::BYTEAOID, value.into_datum());
    }

    pub fn boolean(&mut self, column: usize, value: bool) {
        self.set(column, pg_sys::BOOLOID, value.into_datum());
    }

    pub fn time(&mut self, column: usize, value: Option<Timestamp>) {
        self.set(column, pg_sys::TIMESTAMPTZOID, value.map(Time).into_datum());
    }

    pub fn count(&mut self, column: usize, value: u32) {
        self.integer(column, Some(i32::try_from(value).unwrap_or(i32::MAX)));
    }

    pub fn integer(&mut self, column: usize, value: Option<i32>) {
        self.set(column, pg_sys::INT4OID, value.into_datum());
    }

    pub fn bigint(&mut self, column: usize, value: Option<i64>) {
        self.set(column, pg_sys::INT8OID, value.into_datum());
    }

    pub fn oid(&mut self, column: usize, value: u32) {
        self.set(column, pg_sys::OIDOID, pg_sys::Oid::from(value).into_datum());
    }

    /// Sets a jsonb column from JSON text.
    pub fn json(&mut self, column: usize, json: Option<&str>) {
        let Some(json) = json.and_then(|json| CString::new(json).ok()) else { return };
        // SAFETY: jsonb_in reads a C string.
        let datum = unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[json.as_c_str().into_datum()]) };
        self.set(column, pg_sys::JSONBOID, datum);
    }
}
