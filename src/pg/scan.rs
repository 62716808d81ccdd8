//! Reading a table or a catalog row by row, whatever the caller's rights: what the caller may do with what is found is for
//! whoever asks to check.

use pgrx::{FromDatum, pg_sys};

/// The rows of a scan whose column equals the value, by the equality of the column's type.
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

/// Scans an index (none: the primary key) of a table with the latest snapshot: a REPEATABLE READ transaction must see what
/// the worker has recorded for it since it began.
pub fn scan_table<const N: usize>(
    table: pg_sys::Oid,
    index: Option<pg_sys::Oid>,
    mut keys: [pg_sys::ScanKeyData; N],
    each: impl FnMut(&TupleValues),
) {
    // SAFETY: the table is there; relation, scan and snapshot are opened and closed in order, and an error in between
    // aborts the statement, which releases them. The lock is released at once, so that a transaction that stays open does
    // not hold up DROP EXTENSION.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        let index = match index {
            Some(index) => index,
            #[cfg(not(feature = "pg18"))]
            None => pg_sys::RelationGetPrimaryKeyIndex(relation),
            #[cfg(feature = "pg18")]
            None => pg_sys::RelationGetPrimaryKeyIndex(relation, false),
        };
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let uses_index = index != pg_sys::InvalidOid;
        let scan = pg_sys::systable_beginscan(relation, index, uses_index, snapshot, N as i32, keys.as_mut_ptr());
        drain(relation, scan, each);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, lock);
    }
}

/// Every row of a catalog.
pub fn scan_catalog(catalog: pg_sys::Oid, each: impl FnMut(&TupleValues)) {
    // SAFETY: as above, in a transaction; a catalog that every version has.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(catalog, lock);
        let none = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, none, 0, std::ptr::null_mut());
        drain(relation, scan, each);
        pg_sys::table_close(relation, lock);
    }
}

/// # Safety
/// An open scan of an open relation; the scan is ended.
unsafe fn drain(relation: pg_sys::Relation, scan: pg_sys::SysScanDesc, mut each: impl FnMut(&TupleValues)) {
    // SAFETY: as the caller promises.
    unsafe {
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(&TupleValues { tuple, descriptor: (*relation).rd_att });
        }
        pg_sys::systable_endscan(scan);
    }
}

/// A row of a scan, there until the next one is asked for.
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

    /// A catalog's row as Postgres' own struct.
    ///
    /// # Safety
    /// The tuple is the scan's current one, and the struct is that catalog's.
    pub unsafe fn form<T>(&self) -> &T {
        // SAFETY: as the caller promises.
        unsafe { &*pg_sys::GETSTRUCT(self.tuple).cast::<T>() }
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
