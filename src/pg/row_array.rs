//! The row type of a table or view, and rows of it: to be written, as an array, or as a function's result.

use std::ffi::CString;

use pgrx::{IntoDatum, pg_sys};
use policy::{Micros, Timestamp};
use uuid::Uuid;

use crate::pg::{
    row::Row,
    values::{Interval, Time, Transaction, pg_uuid},
};

/// The columns of a table or view.
pub struct RowType {
    relation: pg_sys::Oid,
    /// Of each column; of a domain, what that is over.
    types: Vec<pg_sys::Oid>,
}

impl RowType {
    /// Of a relation, which is there: an error of Postgres' where it is not.
    pub fn of(relation: pg_sys::Oid) -> Self {
        // SAFETY: look-ups in the catalog; the copy is freed with the memory of whoever asks.
        let types = unsafe {
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(pg_sys::get_rel_type_id(relation), -1);
            (1..=(*descriptor).natts)
                .map(|column| pg_sys::SPI_gettypeid(descriptor, column))
                // The types that Postgres itself is made of are over none.
                .map(|of| if of.to_u32() < pg_sys::FirstGenbkiObjectId { of } else { pg_sys::getBaseType(of) })
                .collect()
        };
        Self { relation, types }
    }

    pub fn relation(&self) -> pg_sys::Oid {
        self.relation
    }

    /// Room for one row.
    pub fn columns(&self) -> Columns<'_> {
        Columns::of(&self.types)
    }

    /// Rows as an array, each with its columns filled; a column that is left out is null.
    pub fn array<T>(&self, rows: &[T], fill: impl Fn(&T, &mut Columns)) -> pg_sys::Datum {
        let mut columns = self.columns();
        // SAFETY: each datum is of its column's type, which Columns checks; the arrays have the descriptor's length.
        unsafe {
            let row_type = pg_sys::get_rel_type_id(self.relation);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(row_type, -1);
            let mut records: Vec<pg_sys::Datum> = rows
                .iter()
                .map(|row| {
                    columns.clear(self.types.len());
                    fill(row, &mut columns);
                    pg_sys::HeapTupleHeaderGetDatum((*columns.form(descriptor)).t_data)
                })
                .collect();
            let count = records.len() as i32;
            let array = pg_sys::construct_array(records.as_mut_ptr(), count, row_type, -1, false, b'd' as _);
            pg_sys::Datum::from(array)
        }
    }
}

/// The row that a function returns, of a composite type that is found through the function itself, not through
/// search_path. Nothing of it is looked up again, so that a call during which the extension is dropped still returns
/// its row.
pub struct ReturnedRow {
    descriptor: pg_sys::TupleDesc,
    types: &'static [pg_sys::Oid],
}

impl ReturnedRow {
    /// None if the function does not return rows of these types: somebody may have changed them.
    ///
    /// # Safety
    /// `fcinfo` is Postgres' own record of a call that is under way.
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo, types: &'static [pg_sys::Oid]) -> Option<Self> {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        // SAFETY: as the caller promises; a descriptor that is there has natts columns.
        unsafe {
            let class = pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            let fits = class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
                && !descriptor.is_null()
                && usize::try_from((*descriptor).natts) == Ok(types.len())
                && (1..).zip(types).all(|(number, of)| pg_sys::SPI_gettypeid(descriptor, number) == *of);
            fits.then(|| Self { descriptor: pg_sys::BlessTupleDesc(descriptor), types })
        }
    }

    /// The row with its columns filled; a column that is left out is null.
    pub fn filled(&self, fill: impl FnOnce(&mut Columns)) -> pg_sys::Datum {
        let mut columns = Columns::of(self.types);
        fill(&mut columns);
        // SAFETY: each datum is of its column's type, which Columns checks, and the descriptor has these types.
        unsafe { pg_sys::HeapTupleHeaderGetDatum((*columns.form(self.descriptor)).t_data) }
    }
}

/// The columns of one row, by their numbers.
pub struct Columns<'a> {
    types: &'a [pg_sys::Oid],
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(types: &'a [pg_sys::Oid]) -> Self {
        Self { types, values: vec![pg_sys::Datum::from(0); types.len()], nulls: vec![true; types.len()] }
    }

    /// All null. A table may have more columns than its row type had, which are left so.
    pub fn clear(&mut self, width: usize) {
        self.values.resize(width, pg_sys::Datum::from(0));
        self.nulls.clear();
        self.nulls.resize(width, true);
    }

    /// Those of a row, which has to be there as long as these are used.
    pub fn read(&mut self, row: Row) {
        row.columns_into(&mut self.values, &mut self.nulls);
    }

    /// The row that they make, palloc'ed.
    ///
    /// # Safety
    /// The descriptor is that of the table, or row type, that they are of.
    pub unsafe fn form(&mut self, descriptor: pg_sys::TupleDesc) -> pg_sys::HeapTuple {
        // SAFETY: as the caller promises; there is a value for each column.
        unsafe {
            assert!((*descriptor).natts as usize == self.values.len(), "there is a value for each column");
            pg_sys::heap_form_tuple(descriptor, self.values.as_mut_ptr(), self.nulls.as_mut_ptr())
        }
    }

    pub fn is_null(&self, column: usize) -> bool {
        self.nulls[column - 1]
    }

    /// Sets a column to a datum of this type, or leaves it NULL.
    fn set(&mut self, column: usize, of: pg_sys::Oid, datum: Option<pg_sys::Datum>) {
        assert!(self.types[column - 1] == of, "a value is of its column's type");
        self.nulls[column - 1] = datum.is_none();
        self.values[column - 1] = datum.unwrap_or(pg_sys::Datum::from(0));
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

    pub fn interval(&mut self, column: usize, value: Option<Micros>) {
        self.set(column, pg_sys::INTERVALOID, value.map(Interval).into_datum());
    }

    pub fn transaction(&mut self, column: usize, value: Transaction) {
        self.set(column, pg_sys::XID8OID, value.into_datum());
    }

    pub fn bigint(&mut self, column: usize, value: Option<i64>) {
        self.set(column, pg_sys::INT8OID, value.into_datum());
    }

    pub fn bigints(&mut self, column: usize, values: &[i64]) {
        self.set(column, pg_sys::INT8ARRAYOID, values.to_vec().into_datum());
    }

    pub fn oid(&mut self, column: usize, value: u32) {
        self.set(column, pg_sys::OIDOID, pg_sys::Oid::from(value).into_datum());
    }

    /// Sets a jsonb column from JSON text.
    pub fn json(&mut self, column: usize, json: Option<&str>) {
        let text = json.and_then(|json| CString::new(json).ok());
        // SAFETY: jsonb_in reads a C string.
        let datum = text.and_then(|text| unsafe {
            pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()])
        });
        self.set(column, pg_sys::JSONBOID, datum);
    }
}
