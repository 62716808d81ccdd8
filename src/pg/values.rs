//! Rust values as the arguments of a statement.

use std::ffi::CStr;

use pgrx::{
    IntoDatum,
    datum::{DatumWithOid, TimestampWithTimeZone},
    pg_sys,
};
use policy::{Micros, Timestamp};
use uuid::Uuid;

pub fn pg_uuid(id: Uuid) -> pgrx::datum::Uuid {
    pgrx::datum::Uuid::from_bytes(*id.as_bytes())
}

/// Returns a value as an argument of a statement; fails an assertion if T is not the parameter's type.
pub fn argument<T: IntoDatum>(value: T, of: pg_sys::Oid) -> DatumWithOid<'static> {
    assert!(T::type_oid() == of, "an argument is of its parameter's type");
    // SAFETY: `of` is T's type; the datum is a copy.
    unsafe { DatumWithOid::new(value, of) }
}

/// Returns a name as SQL takes it: in quotes if it needs them.
pub fn quoted(name: &str) -> String {
    std::ffi::CString::new(name).map_or_else(
        |_| String::new(),
        // SAFETY: on the main thread; a C string in, one out: the same or a palloc'ed copy.
        |name| unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) }.to_string_lossy().into_owned(),
    )
}

pub fn null(of: pg_sys::Oid) -> DatumWithOid<'static> {
    DatumWithOid::null_oid(of)
}

pub fn uuids(values: &[Uuid]) -> DatumWithOid<'static> {
    argument(values.iter().copied().map(pg_uuid).collect::<Vec<_>>(), pg_sys::UUIDARRAYOID)
}

pub fn uuid(value: Uuid) -> DatumWithOid<'static> {
    argument(pg_uuid(value), pg_sys::UUIDOID)
}

pub fn text(value: &str) -> DatumWithOid<'static> {
    argument(value.to_owned(), pg_sys::TEXTOID)
}

pub fn number(value: i64) -> DatumWithOid<'static> {
    argument(value, pg_sys::INT8OID)
}

pub fn numbers(values: &[i64]) -> DatumWithOid<'static> {
    argument(values.to_vec(), pg_sys::INT8ARRAYOID)
}

pub fn byteas(values: &[Vec<u8>]) -> DatumWithOid<'static> {
    argument(values.to_vec(), pg_sys::BYTEAARRAYOID)
}

pub fn time(value: Timestamp) -> DatumWithOid<'static> {
    argument(Time(value), pg_sys::TIMESTAMPTZOID)
}

/// Returns a time as this session shows a timestamptz.
pub fn shown_time(value: Timestamp) -> String {
    TimestampWithTimeZone::try_from(value.0).map_or_else(|_| "infinity".to_owned(), |time| time.to_string())
}

pub fn transaction(value: u64) -> DatumWithOid<'static> {
    argument(Transaction(value), pg_sys::XID8OID)
}

/// A timestamptz by its stored value.
pub struct Time(pub Timestamp);

impl IntoDatum for Time {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TIMESTAMPTZOID
    }
}

impl pgrx::FromDatum for Time {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then(|| Self(Timestamp(datum.value() as i64)))
    }
}

/// An interval of so many microseconds, without days and months.
pub struct Interval(pub Micros);

impl IntoDatum for Interval {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // SAFETY: palloc'ed, and zeroed but for the time.
        unsafe {
            let interval = pg_sys::palloc0(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
            (*interval).time = self.0;
            Some(pg_sys::Datum::from(interval))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::INTERVALOID
    }
}

/// An xid8 by its stored value.
pub struct Transaction(pub u64);

impl Transaction {
    /// Returns the number of this top-level transaction, and assigns one if it has none yet.
    pub fn current() -> Self {
        // SAFETY: within a statement; an error of Postgres' where the transaction may have no number.
        Self(unsafe { pg_sys::GetTopFullTransactionId() }.value)
    }
}

impl IntoDatum for Transaction {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::XID8OID
    }
}

impl pgrx::FromDatum for Transaction {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then(|| Self(datum.value() as u64))
    }
}
