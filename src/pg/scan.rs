//! Reads a table or a catalog row by row, whatever the caller's rights: the caller's code has to check what the user
//! may do with the rows.

use std::ffi::c_char;

use pgrx::{IntoDatum, pg_sys};
use policy::Timestamp;
use uuid::Uuid;

use crate::pg::{
    row::Row,
    values::{Time, pg_uuid},
};

/// What the rows of a scan have in a column.
pub enum Key<'a> {
    Uuid(usize, Uuid),
    /// This one or a later one.
    UuidFrom(usize, Uuid),
    /// Later than this.
    After(usize, Timestamp),
    Bytea(usize, &'a [u8]),
    Bigint(usize, i64),
    Oid(usize, pg_sys::Oid),
}

impl Key<'_> {
    /// Returns the key for a scan of rows of this descriptor, which must have the column, of the key's type.
    ///
    /// # Safety
    /// The descriptor is there.
    unsafe fn of(&self, descriptor: pg_sys::TupleDesc) -> pg_sys::ScanKeyData {
        let equal = pg_sys::BTEqualStrategyNumber;
        let (column, of, strategy, compares, value) = match *self {
            Self::Uuid(column, value) => {
                (column, pg_sys::UUIDOID, equal, pg_sys::F_UUID_EQ, pg_uuid(value).into_datum())
            }
            Self::UuidFrom(column, value) => {
                let from = pg_sys::BTGreaterEqualStrategyNumber;
                (column, pg_sys::UUIDOID, from, pg_sys::F_UUID_GE, pg_uuid(value).into_datum())
            }
            Self::After(column, value) => {
                let after = pg_sys::BTGreaterStrategyNumber;
                (column, pg_sys::TIMESTAMPTZOID, after, pg_sys::F_TIMESTAMPTZ_GT, Time(value).into_datum())
            }
            Self::Bytea(column, value) => (column, pg_sys::BYTEAOID, equal, pg_sys::F_BYTEAEQ, value.into_datum()),
            Self::Bigint(column, value) => (column, pg_sys::INT8OID, equal, pg_sys::F_INT8EQ, value.into_datum()),
            Self::Oid(column, value) => (column, pg_sys::OIDOID, equal, pg_sys::F_OIDEQ, value.into_datum()),
        };
        let column = i16::try_from(column).unwrap_or(0);
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: as the caller promises; the function compares values of the column's type, which is the value's.
        unsafe {
            assert!(pg_sys::SPI_gettypeid(descriptor, column.into()) == of, "a key is of its column's type");
            pg_sys::ScanKeyInit(
                &mut key,
                column,
                strategy as pg_sys::StrategyNumber,
                pg_sys::Oid::from(compares),
                value.unwrap_or(pg_sys::Datum::from(0)),
            );
        }
        key
    }
}

/// How the rows of a table are found.
#[derive(Clone, Copy)]
pub enum By {
    PrimaryKey,
    /// An index of the table.
    Index(pg_sys::Oid),
    /// By looking at every row.
    Table,
}

/// What a scan sees.
#[derive(Clone, Copy)]
pub enum Sees {
    /// What is committed by now: a REPEATABLE READ transaction must see what the worker has recorded for it since it
    /// began.
    Latest,
    /// What the statement sees that asks.
    AsStatement,
}

/// Scans a table as it is now.
pub fn scan_table<const N: usize>(table: pg_sys::Oid, by: By, keys: [Key; N], each: impl FnMut(Row)) {
    scan_table_that(Sees::Latest, table, by, keys, each);
}

/// Scans a table.
pub fn scan_table_that<const N: usize>(sees: Sees, table: pg_sys::Oid, by: By, keys: [Key; N], each: impl FnMut(Row)) {
    // SAFETY: the relation is opened and closed in order, and an error in between aborts the statement, which releases
    // it. The lock is released at once, so that a transaction that stays open does not hold up DROP EXTENSION.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        let index = match by {
            By::Index(index) => {
                assert!(pg_sys::IndexGetRelation(index, true) == table, "an index is one of its table's");
                index
            }
            By::Table => pg_sys::InvalidOid,
            #[cfg(not(feature = "pg18"))]
            By::PrimaryKey => pg_sys::RelationGetPrimaryKeyIndex(relation),
            #[cfg(feature = "pg18")]
            By::PrimaryKey => pg_sys::RelationGetPrimaryKeyIndex(relation, false),
        };
        scan_relation_that(sees, relation, index, keys, each);
        pg_sys::table_close(relation, lock);
    }
}

/// Scans an index of a relation (0: all of its rows) as it is now.
///
/// # Safety
/// The relation is open; the index is an index of the relation.
pub unsafe fn scan_relation<const N: usize>(
    relation: pg_sys::Relation,
    index: pg_sys::Oid,
    keys: [Key; N],
    each: impl FnMut(Row),
) {
    // SAFETY: as the caller promises.
    unsafe { scan_relation_that(Sees::Latest, relation, index, keys, each) };
}

/// # Safety
/// The relation is open; the index is one of its.
unsafe fn scan_relation_that<const N: usize>(
    sees: Sees,
    relation: pg_sys::Relation,
    index: pg_sys::Oid,
    keys: [Key; N],
    each: impl FnMut(Row),
) {
    // SAFETY: as the caller promises; scan and snapshot are ended in order, and an error in between aborts the
    // statement, which releases them.
    unsafe {
        let mut keys = keys.map(|key| key.of((*relation).rd_att));
        let snapshot = pg_sys::RegisterSnapshot(match sees {
            // A parallel plan has one snapshot, and takes no other.
            Sees::Latest if pg_sys::IsInParallelMode() => pg_sys::GetActiveSnapshot(),
            Sees::Latest => pg_sys::GetLatestSnapshot(),
            Sees::AsStatement => pg_sys::GetActiveSnapshot(),
        });
        let uses_index = index != pg_sys::InvalidOid;
        let scan = pg_sys::systable_beginscan(relation, index, uses_index, snapshot, N as i32, keys.as_mut_ptr());
        drain(relation, scan, each);
        pg_sys::UnregisterSnapshot(snapshot);
    }
}

/// The rows that a btree of a table has of these keys, with the latest snapshot, in its order from the end, as long as
/// `wants_more`.
pub fn scan_latest<const N: usize>(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    keys: [Key; N],
    mut wants_more: impl FnMut(Row) -> bool,
) {
    // SAFETY: relations, scan and snapshot are ended in order, and an error in between aborts the statement, which
    // releases them; the keys are of their columns' types, and the index is one of the table's.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(table, lock);
        let index = pg_sys::index_open(index, lock);
        assert!((*(*index).rd_index).indrelid == (*table).rd_id, "an index is one of its table's");
        let mut keys = keys.map(|key| key.of((*table).rd_att));
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan_ordered(table, index, snapshot, N as i32, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::BackwardScanDirection);
            if tuple.is_null() || !wants_more(Row::new(tuple, (*table).rd_att)) {
                break;
            }
        }
        pg_sys::systable_endscan_ordered(scan);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::index_close(index, lock);
        pg_sys::table_close(table, lock);
    }
}

/// A struct of Postgres' that a catalog's rows begin with.
///
/// # Safety
/// The rows of the catalog begin with this struct.
pub unsafe trait CatalogRow {
    const CATALOG: pg_sys::Oid;
}

// SAFETY: by Postgres' own definition.
unsafe impl CatalogRow for pg_sys::FormData_pg_foreign_server {
    const CATALOG: pg_sys::Oid = pg_sys::ForeignServerRelationId;
}

// SAFETY: by Postgres' own definition.
unsafe impl CatalogRow for pg_sys::FormData_pg_user_mapping {
    const CATALOG: pg_sys::Oid = pg_sys::UserMappingRelationId;
}

// SAFETY: by Postgres' own definition.
unsafe impl CatalogRow for pg_sys::FormData_pg_extension {
    const CATALOG: pg_sys::Oid = pg_sys::ExtensionRelationId;
}

// SAFETY: by Postgres' own definition.
unsafe impl CatalogRow for pg_sys::FormData_pg_database {
    const CATALOG: pg_sys::Oid = pg_sys::DatabaseRelationId;
}

// SAFETY: by Postgres' own definition.
unsafe impl CatalogRow for pg_sys::FormData_pg_trigger {
    const CATALOG: pg_sys::Oid = pg_sys::TriggerRelationId;
}

/// The beginning of a row of pg_subscription_rel, which is not among pgrx's bindings.
#[repr(C)]
pub struct SubscriptionRel {
    pub subscription: pg_sys::Oid,
    pub table: pg_sys::Oid,
}

// SAFETY: by Postgres' own definition; the catalog has the same OID in every version.
unsafe impl CatalogRow for SubscriptionRel {
    const CATALOG: pg_sys::Oid = pg_sys::Oid::from_u32(6102);
}

/// Scans every row of a catalog, each as its struct and with its columns. In a transaction.
pub fn scan_catalog<T: CatalogRow>(mut each: impl FnMut(&T, Row)) {
    // SAFETY: a catalog that every version has, whose rows begin with T; relation and scan are ended in order.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(T::CATALOG, lock);
        let none = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, none, 0, std::ptr::null_mut());
        drain(relation, scan, |row| each(row.form::<T>(), row));
        pg_sys::table_close(relation, lock);
    }
}

/// Scans those rows of a catalog that have these keys in an index. In a transaction.
pub fn scan_catalog_by<T: CatalogRow, const N: usize>(index: pg_sys::Oid, keys: [Key; N], mut each: impl FnMut(&T)) {
    // SAFETY: the rows of the catalog begin with T.
    scan_table(T::CATALOG, By::Index(index), keys, |row| each(unsafe { row.form::<T>() }));
}

/// Returns a name of the catalog as text.
pub fn name(data: &pg_sys::NameData) -> String {
    let bytes: Vec<u8> = data.data.iter().map(|byte: &c_char| *byte as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Safety
/// `scan` is an open scan of the open relation; it is ended here.
unsafe fn drain(relation: pg_sys::Relation, scan: pg_sys::SysScanDesc, mut each: impl FnMut(Row)) {
    // SAFETY: as the caller promises; no row outlives the call that it is given to.
    unsafe {
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(Row::new(tuple, (*relation).rd_att));
        }
        pg_sys::systable_endscan(scan);
    }
}
