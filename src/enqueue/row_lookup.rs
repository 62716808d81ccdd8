//! What rows are by now, looked for just before the COMMIT. Not by SQL: it would run code of the table's owner (casts,
//! operators, policies) with rights that are not theirs.

use std::collections::{HashMap, HashSet};

use pgrx::{FromDatum, IntoDatum, PgList, pg_sys};
use uuid::Uuid;

use crate::{
    enqueue::enqueued_row::{Enqueued, FoundBy, Now, Place},
    pg::{
        fingerprint::Fingerprint,
        row::Row,
        scan::{equal, is_of_this_transaction},
    },
};

// Exported by every version, but not among pgrx's bindings; called with its guard.
unsafe extern "C-unwind" {
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// What each of them is.
pub fn look(rows: &[Enqueued]) -> Vec<Now> {
    let mut now: Vec<Now> = rows.iter().map(|_| Now::Gone).collect();
    let tables: HashSet<pg_sys::Oid> = rows.iter().map(|row| row.table).collect();
    // SAFETY: look-ups in the catalog and scans of tables, in a transaction that is about to commit; an error in
    // between aborts it, which closes what is open.
    unsafe {
        pg_sys::CommandCounterIncrement();
        for table in tables {
            if pg_sys::get_rel_relkind(table) == 0 {
                // Dropped by this very transaction, and its rows with it.
                continue;
            }
            let mut by_id: HashMap<i32, Vec<usize>> = HashMap::new();
            let mut by_values = Vec::new();
            let relation = pg_sys::relation_open(table, LOCK);
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.table == table) {
                match row.found_by {
                    FoundBy::Id(column) => by_id.entry(column).or_default().push(index),
                    FoundBy::Place(place) if place.file == (*(*relation).rd_rel).relfilenode => {
                        now[index] = at(relation, place, row);
                    }
                    FoundBy::Place(_) if row.is_emptied => {}
                    FoundBy::Place(_) | FoundBy::Values => by_values.push(index),
                }
            }
            pg_sys::relation_close(relation, LOCK);
            for (column, those) in by_id {
                find_by_id(table, column, rows, &those, &mut now);
            }
            if !by_values.is_empty() {
                find_by_values(table, rows, &by_values, &mut now);
            }
        }
    }
    now
}

/// The latest version of a row that stood there.
///
/// # Safety
/// The relation is open, and has not been emptied or rewritten since.
unsafe fn at(relation: pg_sys::Relation, place: Place, row: &Enqueued) -> Now {
    // SAFETY: as the caller promises; slot, scan and snapshot are closed in order.
    unsafe {
        let mut tid = place.tid();
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = pg_sys::table_beginscan_tid(relation, snapshot);
        let mut now = Now::Gone;
        if pg_sys::table_tuple_tid_valid(scan, &mut tid) {
            pg_sys::table_tuple_get_latest_tid(scan, &mut tid);
            if pg_sys::table_tuple_fetch_row_version(relation, &mut tid, snapshot, slot) {
                let mut is_copy = false;
                let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut is_copy);
                let values = row.mapping.values(Row { tuple, descriptor: (*relation).rd_att });
                now = values.map_or(Now::Left, |values| Now::As(values, Some(Place::of(relation, tid))));
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::UnregisterSnapshot(snapshot);
        now
    }
}

/// Every table that may have a row of this one by now: those of the partitioned table that it belongs to.
///
/// # Safety
/// In a transaction.
pub unsafe fn related(table: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> Vec<pg_sys::Oid> {
    // SAFETY: look-ups in the catalog.
    unsafe {
        let root = pgrx::direct_function_call::<pg_sys::Oid>(pg_sys::pg_partition_root, &[table.into_datum()]);
        let root = root.unwrap_or(table);
        let tables = pg_sys::ffi::pg_guard_ffi_boundary(|| find_all_inheritors(root, lock, std::ptr::null_mut()));
        let is_plain =
            |table: &pg_sys::Oid| pg_sys::get_rel_relkind(*table) == pg_sys::RELKIND_RELATION as std::ffi::c_char;
        PgList::<pg_sys::Oid>::from_pg(tables).iter_oid().filter(is_plain).collect()
    }
}

/// Those that the column of the verification's id tells.
///
/// # Safety
/// The table is there.
unsafe fn find_by_id(table: pg_sys::Oid, column: i32, rows: &[Enqueued], those: &[usize], now: &mut [Now]) {
    // SAFETY: as the caller promises.
    unsafe {
        if pg_sys::get_atttype(table, column as i16) != pg_sys::UUIDOID {
            // The column was dropped, or is another one now.
            those.iter().for_each(|index| now[*index] = Now::Left);
            return;
        }
        let name = pg_sys::get_attname(table, column as i16, false);
        let mut wanted: HashMap<Uuid, usize> = those.iter().map(|index| (rows[*index].id, *index)).collect();
        for table in related(table, LOCK) {
            let column = pg_sys::get_attnum(table, name);
            if column <= 0 || pg_sys::get_atttype(table, column) != pg_sys::UUIDOID {
                continue;
            }
            let relation = pg_sys::relation_open(table, LOCK);
            let index = index_on(relation, column);
            // One that is as it was is found; of one that is not, another row may have the same id.
            let mut see = |row: Row, wanted: &mut HashMap<Uuid, usize>| {
                let id = row.datum(i32::from(column)).and_then(|id| pgrx::datum::Uuid::from_datum(id, false));
                let Some(id) = id.map(|id| Uuid::from_bytes(*id.as_bytes())) else { return };
                let Some(index) = wanted.get(&id).copied() else { return };
                let values = rows[index].mapping.values(row);
                if values.as_ref().is_none_or(|values| values.fingerprint() == rows[index].fingerprint) {
                    wanted.remove(&id);
                }
                now[index] = values.map_or(Now::Left, |values| Now::As(values, None));
            };
            match index {
                Some(index) => {
                    for id in wanted.keys().copied().collect::<Vec<_>>() {
                        let key = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
                        let key = equal(column as usize, pg_sys::F_UUID_EQ, key);
                        each_by(relation, index, key, |row| see(row, &mut wanted));
                    }
                }
                None => each_written(relation, |row| {
                    see(row, &mut wanted);
                    !wanted.is_empty()
                }),
            }
            pg_sys::relation_close(relation, LOCK);
        }
    }
}

/// Those of which a row that this transaction wrote has the values: as many as there are such rows, the last.
///
/// # Safety
/// The table is there.
unsafe fn find_by_values(table: pg_sys::Oid, rows: &[Enqueued], those: &[usize], now: &mut [Now]) {
    let mut there: HashMap<(pg_sys::Oid, Fingerprint), usize> = HashMap::new();
    // One for each trigger.
    let triggers: HashMap<pg_sys::Oid, usize> = those.iter().map(|index| (rows[*index].trigger, *index)).collect();
    let mut left = HashSet::new();
    // SAFETY: as the caller promises; the tuple is the scan's current one.
    unsafe {
        for table in related(table, LOCK) {
            let relation = pg_sys::relation_open(table, LOCK);
            each_written(relation, |row| {
                if is_of_this_transaction(row.tuple) {
                    for (trigger, index) in &triggers {
                        match rows[*index].mapping.values(row) {
                            Some(values) => *there.entry((*trigger, values.fingerprint())).or_default() += 1,
                            None => drop(left.insert(*trigger)),
                        }
                    }
                }
                true
            });
            pg_sys::relation_close(relation, LOCK);
        }
    }
    for index in those.iter().rev() {
        let row = &rows[*index];
        let count = there.get_mut(&(row.trigger, row.fingerprint)).filter(|count| **count > 0);
        if left.contains(&row.trigger) || count.map(|count| *count -= 1).is_some() {
            now[*index] = Now::Left;
        }
    }
}

/// The rows that an index has of a key.
///
/// # Safety
/// The relation is open; the index is one of its.
unsafe fn each_by(
    relation: pg_sys::Relation,
    index: pg_sys::Oid,
    mut key: pg_sys::ScanKeyData,
    mut see: impl FnMut(Row),
) {
    // SAFETY: as the caller promises; snapshot and scan are closed in order.
    unsafe {
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan(relation, index, true, snapshot, 1, &mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            see(Row { tuple, descriptor: (*relation).rd_att });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
    }
}

/// The rows that this transaction wrote, among others, until there are enough: they stand on no block that is visible
/// to all, which spares the most of a table that is large.
///
/// # Safety
/// The relation is open.
unsafe fn each_written(relation: pg_sys::Relation, mut wants_more: impl FnMut(Row) -> bool) {
    // SAFETY: as the caller promises; snapshot, scans and the buffer of the map are given back.
    unsafe {
        let has_map = (*(*relation).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID;
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        let mut map = pg_sys::InvalidBuffer as pg_sys::Buffer;
        let mut is_for_all = |block| {
            let status = pg_sys::visibilitymap_get_status(relation, block, &mut map);
            u32::from(status) & pg_sys::VISIBILITYMAP_ALL_VISIBLE != 0
        };
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let mut block = 0;
        let mut wants = true;
        while wants && block < blocks {
            let first = block;
            while block < blocks && !(has_map && is_for_all(block)) {
                block += 1;
            }
            if first == block {
                block += 1;
                continue;
            }
            let scan = pg_sys::table_beginscan_strat(relation, snapshot, 0, std::ptr::null_mut(), true, false);
            if has_map {
                pg_sys::heap_setscanlimits(scan, first, block - first);
            }
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            while wants && pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
                let mut is_copy = false;
                let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut is_copy);
                wants = wants_more(Row { tuple, descriptor: (*relation).rd_att });
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::table_endscan(scan);
        }
        if map != pg_sys::InvalidBuffer as pg_sys::Buffer {
            pg_sys::ReleaseBuffer(map);
        }
        pg_sys::UnregisterSnapshot(snapshot);
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
