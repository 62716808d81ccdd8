//! Rust values as the arguments of a statement: one array for each column of many rows.

use pgrx::{IntoDatum, datum::DatumWithOid, pg_sys};
use policy::Micros;
use uuid::Uuid;

/// A timestamptz by its stored value.
struct Time(Micros);

impl IntoDatum for Time {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TIMESTAMPTZOID
    }
}

fn array<T: IntoDatum>(values: impl Iterator<Item = Option<T>>, of: pg_sys::Oid) -> DatumWithOid<'static> {
    let values: Vec<Option<T>> = values.collect();
    // SAFETY: `of` is the array type of T's type, at each call below.
    unsafe { DatumWithOid::new(values, of) }
}

fn pg_uuid(id: Uuid) -> pgrx::datum::Uuid {
    pgrx::datum::Uuid::from_bytes(*id.as_bytes())
}

pub fn uuids(values: impl Iterator<Item = Uuid>) -> DatumWithOid<'static> {
    array(values.map(|id| Some(pg_uuid(id))), pg_sys::UUIDARRAYOID)
}

pub fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> DatumWithOid<'static> {
    array(values, pg_sys::TEXTARRAYOID)
}

pub fn byteas<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> DatumWithOid<'static> {
    array(values, pg_sys::BYTEAARRAYOID)
}

pub fn integers(values: impl Iterator<Item = u32>) -> DatumWithOid<'static> {
    nullable_integers(values.map(|value| Some(i32::try_from(value).unwrap_or(i32::MAX))))
}

pub fn nullable_integers(values: impl Iterator<Item = Option<i32>>) -> DatumWithOid<'static> {
    array(values, pg_sys::INT4ARRAYOID)
}

pub fn booleans(values: impl Iterator<Item = bool>) -> DatumWithOid<'static> {
    array(values.map(Some), pg_sys::BOOLARRAYOID)
}

pub fn times(values: impl Iterator<Item = Option<Micros>>) -> DatumWithOid<'static> {
    array(values.map(|value| value.map(Time)), pg_sys::TIMESTAMPTZARRAYOID)
}

pub fn uuid(value: Uuid) -> DatumWithOid<'static> {
    // SAFETY: a uuid.
    unsafe { DatumWithOid::new(pg_uuid(value), pg_sys::UUIDOID) }
}

pub fn text(value: &str) -> DatumWithOid<'static> {
    // SAFETY: a text; the datum is a copy.
    unsafe { DatumWithOid::new(value.to_owned(), pg_sys::TEXTOID) }
}

pub fn bytea(value: &[u8]) -> DatumWithOid<'static> {
    // SAFETY: a bytea; the datum is a copy.
    unsafe { DatumWithOid::new(value.to_vec(), pg_sys::BYTEAOID) }
}

pub fn time(value: Micros) -> DatumWithOid<'static> {
    // SAFETY: a timestamptz.
    unsafe { DatumWithOid::new(Time(value), pg_sys::TIMESTAMPTZOID) }
}
