//! Reading the record as it is now, whatever the caller's snapshot and rights: what the caller may do with what is
//! found is for whoever asks to check.

use std::ffi::CStr;

use pgrx::{FromDatum, IntoDatum, pg_sys};

use crate::error::Error;

pub fn equal(column: usize, function: u32, value: Option<pg_sys::Datum>) -> pg_sys::ScanKeyData {
    let mut key = pg_sys::ScanKeyData::default();
    // SAFETY: the function is the equality of the column's type.
    unsafe {
        pg_sys::ScanKeyInit(
            &mut key,
            column as i16,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(function),
            value.unwrap_or(pg_sys::Datum::from(0)),
        );
    }
    key
}

/// Scans an index (none: the primary key) of a table of ours with the latest snapshot: a REPEATABLE READ transaction
/// must see what the worker has recorded for it since it began.
pub fn scan<const N: usize>(
    table: &CStr,
    index: Option<&CStr>,
    mut keys: [pg_sys::ScanKeyData; N],
    mut each: impl FnMut(&TupleValues),
) -> Result<(), Error> {
    // SAFETY: relation, scan and snapshot are opened and closed in order; an error in between aborts the statement,
    // which releases them. Values are copied out before the scan ends. The lock is released at once, so that a
    // transaction that stays open does not hold up DROP EXTENSION.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"otp_gateway".as_ptr(), true);
        let table = pg_sys::get_relname_relid(table.as_ptr(), schema);
        // Tables of an older version lack columns that are asked for.
        if table == pg_sys::InvalidOid || !is_of_this_version() {
            return Err(Error::not_installed());
        }
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        let index = match index {
            Some(name) => pg_sys::get_relname_relid(name.as_ptr(), schema),
            #[cfg(not(feature = "pg18"))]
            None => pg_sys::RelationGetPrimaryKeyIndex(relation),
            #[cfg(feature = "pg18")]
            None => pg_sys::RelationGetPrimaryKeyIndex(relation, false),
        };
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let uses_index = index != pg_sys::InvalidOid;
        let scan = pg_sys::systable_beginscan(relation, index, uses_index, snapshot, N as i32, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(&TupleValues { tuple, descriptor: (*relation).rd_att });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, lock);
        Ok(())
    }
}

/// Whether the extension is of the library's version in this database.
fn is_of_this_version() -> bool {
    let mut is_null = true;
    let mut version = None;
    // SAFETY: a scan of a catalog in a transaction, by its index on the name; what it yields is copied before it ends.
    unsafe {
        let name = c"otp_gateway".into_datum();
        let mut keys = [equal(pg_sys::Anum_pg_extension_extname as usize, pg_sys::F_NAMEEQ, name)];
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let index = pg_sys::Oid::from(pg_sys::ExtensionNameIndexId);
        let scan = pg_sys::systable_beginscan(relation, index, true, std::ptr::null_mut(), 1, keys.as_mut_ptr());
        let tuple = pg_sys::systable_getnext(scan);
        if !tuple.is_null() {
            let number = pg_sys::Anum_pg_extension_extversion as i32;
            let datum = pg_sys::heap_getattr(tuple, number, (*relation).rd_att, &mut is_null);
            version = String::from_datum(datum, is_null);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    version.as_deref() == Some(env!("CARGO_PKG_VERSION"))
}

/// A row of a scan.
pub struct TupleValues {
    pub tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl TupleValues {
    /// # Safety
    /// The tuple is the scan's current one.
    pub unsafe fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: as the caller promises.
        let datum = unsafe { pg_sys::heap_getattr(self.tuple, column as i32, self.descriptor, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// # Safety
    /// The tuple is the scan's current one, and the column is of a type that T reads and copies.
    pub unsafe fn value<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: as the caller promises.
        unsafe { T::from_datum(self.datum(column)?, false) }
    }
}

/// Whether this very transaction, or a subtransaction of it, wrote the row.
///
/// # Safety
/// The tuple is a scan's current one.
pub unsafe fn is_of_this_transaction(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: as the caller promises. The number of a frozen row may have come round again.
    unsafe {
        let header = &*(*tuple).t_data;
        let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
        header.t_infomask & frozen != frozen
            && pg_sys::TransactionIdIsCurrentTransactionId(header.t_choice.t_heap.t_xmin)
    }
}
