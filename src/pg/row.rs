//! A row of a table, while it is being read: values by the number of their column, each read as its column's type.

use std::{
    ffi::{CStr, CString},
    marker::PhantomData,
};

use pgrx::{FromDatum, IntoDatum, pg_sys};
use policy::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::pg::values::Time;

#[derive(Clone, Copy)]
pub struct Row<'a> {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    is_there: PhantomData<&'a ()>,
}

impl Row<'_> {
    /// # Safety
    /// The tuple is of the descriptor's type, and both live as long as the row.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        Self { tuple, descriptor, is_there: PhantomData }
    }

    /// Returns the number of a column; None if there is no such column.
    pub fn column(&self, name: &str) -> Option<i32> {
        let name = CString::new(name).ok()?;
        // SAFETY: the descriptor is there, as new() was promised; the name is a C string.
        let number = unsafe { pg_sys::SPI_fnumber(self.descriptor, name.as_ptr()) };
        (number > 0).then_some(number)
    }

    /// Returns the type of a column; 0 if there is no such column, or it was dropped.
    pub fn type_of(&self, column: i32) -> pg_sys::Oid {
        // SAFETY: the descriptor is there, as new() was promised; SPI_gettypeid checks the number.
        unsafe { pg_sys::SPI_gettypeid(self.descriptor, column) }
    }

    /// Returns the value of a column; None if it is NULL, or if the column is neither of T's type nor of a domain over
    /// it.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        let column = i32::try_from(column).ok()?;
        let of = self.type_of(column);
        let is_of = |of| T::is_compatible_with(of);
        // SAFETY: a look-up in the catalog.
        if of == pg_sys::InvalidOid || !is_of(of) && !is_of(unsafe { pg_sys::getBaseType(of) }) {
            return None;
        }
        let mut is_null = false;
        // SAFETY: tuple and descriptor are there, as new() was promised; the column is one of theirs, for it has a
        // type, which is T's.
        unsafe {
            let datum = pg_sys::heap_getattr(self.tuple, column, self.descriptor, &mut is_null);
            T::from_datum(datum, is_null)
        }
    }

    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.get::<pgrx::datum::Uuid>(column).map(|id| Uuid::from_bytes(*id.as_bytes()))
    }

    /// The value of a column of type name.
    pub fn name(&self, column: usize) -> Option<String> {
        self.get::<&CStr>(column).map(|name| name.to_string_lossy().into_owned())
    }

    pub fn time(&self, column: usize) -> Option<Timestamp> {
        self.get::<Time>(column).map(|time| time.0)
    }

    /// Returns the value of a column as a payload takes it; None for NULL.
    pub fn json(&self, column: i32) -> Option<Value> {
        // SAFETY: tuple and descriptor are there, as new() was promised; SPI_getvalue checks the number, and its text
        // is a C string that is freed with the caller's memory context.
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

    /// The values of all columns, which are there as long as the row is.
    pub fn columns_into(&self, values: &mut [pg_sys::Datum], nulls: &mut [bool]) {
        // SAFETY: tuple and descriptor are there, as new() was promised; there is room for each column.
        unsafe {
            let width = (*self.descriptor).natts as usize;
            assert!(values.len() == width && nulls.len() == width, "there is a place for each column");
            pg_sys::heap_deform_tuple(self.tuple, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
    }

    /// Returns whether this very transaction, or a subtransaction of it, wrote the row.
    pub fn is_of_this_transaction(&self) -> bool {
        // SAFETY: the tuple is there, as new() was promised. A frozen row is left out: its number may have come round
        // again.
        unsafe {
            let header = &*(*self.tuple).t_data;
            let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
            header.t_infomask & frozen != frozen
                && pg_sys::TransactionIdIsCurrentTransactionId(header.t_choice.t_heap.t_xmin)
        }
    }

    /// Returns whether anybody has changed, deleted or locked the row since it was written, or tried to.
    pub fn is_written_again(&self) -> bool {
        // SAFETY: the tuple is there, as new() was promised.
        unsafe { u32::from((*(*self.tuple).t_data).t_infomask) & pg_sys::HEAP_XMAX_INVALID == 0 }
    }

    /// Returns where the row stands in its table.
    pub fn tid(&self) -> pg_sys::ItemPointerData {
        // SAFETY: the tuple is there, as new() was promised.
        unsafe { (*self.tuple).t_self }
    }

    /// Returns the row as Postgres' own struct.
    ///
    /// # Safety
    /// The row is a catalog's, whose rows begin with this struct.
    pub unsafe fn form<T>(&self) -> &T {
        // SAFETY: as the caller promises; the tuple is there, as new() was promised.
        unsafe { &*pg_sys::GETSTRUCT(self.tuple).cast::<T>() }
    }
}
