//! Whether rows are there, looked for by their verification ids just before the COMMIT. Not by SQL: it would run code
//! of the table's owner (casts, operators, policies) with rights that are not theirs.

use std::collections::HashSet;

use pgrx::{FromDatum, IntoDatum, PgList, pg_sys};
use uuid::Uuid;

// Exported by every version, but not among pgrx's bindings; called with its guard.
unsafe extern "C-unwind" {
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// Those of `ids` that no row has in this column of the table, or of the partitioned table that it belongs to.
pub fn missing(table: pg_sys::Oid, column: i32, ids: &[Uuid]) -> Vec<Uuid> {
    let mut missing: HashSet<Uuid> = ids.iter().copied().collect();
    // SAFETY: look-ups in the catalog and scans of tables, in a transaction that is about to commit; an error in
    // between aborts it, which closes what is open.
    unsafe {
        pg_sys::CommandCounterIncrement();
        if pg_sys::get_rel_relkind(table) == 0 {
            // Dropped by this very transaction, and its rows with it.
            return ids.to_vec();
        }
        if pg_sys::get_atttype(table, column as i16) != pg_sys::UUIDOID {
            // The column was dropped, or is another one now: nobody can tell, and nothing is taken back.
            return Vec::new();
        }
        let name = pg_sys::get_attname(table, column as i16, false);
        let root = pgrx::direct_function_call::<pg_sys::Oid>(pg_sys::pg_partition_root, &[table.into_datum()]);
        let root = root.unwrap_or(table);
        let tables = pg_sys::ffi::pg_guard_ffi_boundary(|| find_all_inheritors(root, LOCK, std::ptr::null_mut()));
        for table in PgList::<pg_sys::Oid>::from_pg(tables).iter_oid() {
            let column = pg_sys::get_attnum(table, name);
            let is_plain = pg_sys::get_rel_relkind(table) == pg_sys::RELKIND_RELATION as std::ffi::c_char;
            if is_plain && column > 0 && pg_sys::get_atttype(table, column) == pg_sys::UUIDOID {
                strike_out(table, column, &mut missing);
            }
        }
    }
    missing.into_iter().collect()
}

/// Takes those out that a row of this table has.
///
/// # Safety
/// The column is one of the table's, of type uuid.
unsafe fn strike_out(table: pg_sys::Oid, column: i16, missing: &mut HashSet<Uuid>) {
    // SAFETY: as the caller promises; relation, snapshot and scans are closed in order.
    unsafe {
        let relation = pg_sys::relation_open(table, LOCK);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        match index_on(relation, column) {
            Some(index) => {
                for id in missing.clone() {
                    let key = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
                    let mut scan_key = pg_sys::ScanKeyData::default();
                    pg_sys::ScanKeyInit(
                        &mut scan_key,
                        column,
                        pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                        pg_sys::Oid::from(pg_sys::F_UUID_EQ),
                        key.unwrap_or(pg_sys::Datum::from(0)),
                    );
                    let scan = pg_sys::systable_beginscan(relation, index, true, snapshot, 1, &mut scan_key);
                    if !pg_sys::systable_getnext(scan).is_null() {
                        missing.remove(&id);
                    }
                    pg_sys::systable_endscan(scan);
                }
            }
            None => {
                let none = std::ptr::null_mut();
                let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, snapshot, 0, none);
                while !missing.is_empty() {
                    let row = pg_sys::systable_getnext(scan);
                    if row.is_null() {
                        break;
                    }
                    let mut is_null = false;
                    let value = pg_sys::heap_getattr(row, i32::from(column), (*relation).rd_att, &mut is_null);
                    if let Some(id) = pgrx::datum::Uuid::from_datum(value, is_null) {
                        missing.remove(&Uuid::from_bytes(*id.as_bytes()));
                    }
                }
                pg_sys::systable_endscan(scan);
            }
        }
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::relation_close(relation, LOCK);
    }
}

/// A btree of all rows that begins with this column.
///
/// # Safety
/// The relation is open.
unsafe fn index_on(relation: pg_sys::Relation, column: i16) -> Option<pg_sys::Oid> {
    // SAFETY: as the caller promises; each index is closed again.
    unsafe {
        let indexes = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        indexes.iter_oid().find(|oid| {
            let index = pg_sys::index_open(*oid, LOCK);
            let form = (*index).rd_index;
            let is_btree = (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID;
            let begins_with_it = (*form).indkey.values.as_slice(1)[0] == column;
            let fits =
                is_btree && (*form).indisvalid && begins_with_it && pg_sys::RelationGetIndexPredicate(index).is_null();
            pg_sys::index_close(index, LOCK);
            fits
        })
    }
}
