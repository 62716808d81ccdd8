//! Looks for rows of a user's table. Not by SQL, which would run code of the table's owner (casts, operators, policies)
//! with rights that the owner does not have.

use std::marker::PhantomData;

use pgrx::{IntoDatum, PgList, pg_sys};
use uuid::Uuid;

use crate::pg::{
    row::Row,
    scan::{Key, scan_relation},
};

// Exported by every version, but not among pgrx's bindings; called with pgrx's guard.
unsafe extern "C-unwind" {
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// Where a version of a row stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The table's file. A table that was emptied or rewritten has another file.
    file: pg_sys::Oid,
    block: (u16, u16),
    offset: u16,
}

impl Place {
    /// # Safety
    /// The relation is open.
    pub unsafe fn of(relation: pg_sys::Relation, tid: pg_sys::ItemPointerData) -> Self {
        // SAFETY: as the caller promises.
        let file = unsafe { (*(*relation).rd_rel).relfilenode };
        Self { file, block: (tid.ip_blkid.bi_hi, tid.ip_blkid.bi_lo), offset: tid.ip_posid }
    }

    fn tid(&self) -> pg_sys::ItemPointerData {
        let (bi_hi, bi_lo) = self.block;
        pg_sys::ItemPointerData { ip_blkid: pg_sys::BlockIdData { bi_hi, bi_lo }, ip_posid: self.offset }
    }
}

/// Makes what this transaction has written so far visible to its reads from now on.
pub fn see_own_writes() {
    // SAFETY: on the main thread, in a transaction that writes.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Returns whether there is a relation of that OID.
pub fn is_there(table: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { pg_sys::get_rel_relkind(table) != 0 }
}

/// Returns the name of a column of type uuid; None if there is no such column, or it is of another type.
pub fn uuid_column(table: pg_sys::Oid, column: i32) -> Option<String> {
    let column = i16::try_from(column).ok()?;
    // SAFETY: look-ups in the catalog; a column that has a type has a name, which is a C string.
    unsafe {
        if pg_sys::get_atttype(table, column) != pg_sys::UUIDOID {
            return None;
        }
        let name = pg_sys::get_attname(table, column, false);
        Some(std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Returns every table that a row of this table may have moved to: the partitions of the same partitioned table. They
/// are not locked.
pub fn related(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    related_locked(table, pg_sys::NoLock as pg_sys::LOCKMODE)
}

fn related_locked(table: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> Vec<pg_sys::Oid> {
    // SAFETY: look-ups in the catalog; a list of OIDs.
    unsafe {
        let root = pgrx::direct_function_call::<pg_sys::Oid>(pg_sys::pg_partition_root, &[table.into_datum()]);
        let root = root.unwrap_or(table);
        let tables = pg_sys::ffi::pg_guard_ffi_boundary(|| find_all_inheritors(root, lock, std::ptr::null_mut()));
        let is_plain =
            |table: &pg_sys::Oid| pg_sys::get_rel_relkind(*table) == pg_sys::RELKIND_RELATION as std::ffi::c_char;
        PgList::<pg_sys::Oid>::from_pg(tables).iter_oid().filter(is_plain).collect()
    }
}

/// Runs `look` on each of the tables that a row of this table may have moved to.
pub fn each_related(table: pg_sys::Oid, mut look: impl FnMut(OpenTable)) {
    for table in related_locked(table, LOCK) {
        with_open(table, &mut look);
    }
}

/// Opens a table, which must exist, for `look` alone. An error aborts the transaction, which closes the table.
pub fn with_open<R>(table: pg_sys::Oid, look: impl FnOnce(OpenTable) -> R) -> R {
    // SAFETY: opened here, with an error if it is not there, and closed after the last use.
    unsafe {
        let relation = pg_sys::relation_open(table, LOCK);
        let result = look(OpenTable { relation, is_open: PhantomData });
        pg_sys::relation_close(relation, LOCK);
        result
    }
}

/// A table, as long as it is open.
#[derive(Clone, Copy)]
pub struct OpenTable<'a> {
    relation: pg_sys::Relation,
    is_open: PhantomData<&'a ()>,
}

impl OpenTable<'_> {
    /// Returns whether the table still has the file that a row stood in.
    pub fn has_file_of(&self, place: Place) -> bool {
        // SAFETY: the relation is open.
        unsafe { (*(*self.relation).rd_rel).relfilenode == place.file }
    }

    /// Returns the number of a column of type uuid; None if there is no such column, or it is of another type.
    pub fn uuid_column(&self, name: &str) -> Option<i16> {
        // SAFETY: the relation is open, and its descriptor is there as long as the relation is.
        let (number, of) = unsafe {
            let name = std::ffi::CString::new(name).ok()?;
            let number = pg_sys::SPI_fnumber((*self.relation).rd_att, name.as_ptr());
            (number, pg_sys::SPI_gettypeid((*self.relation).rd_att, number))
        };
        i16::try_from(number).ok().filter(|number| *number > 0 && of == pg_sys::UUIDOID)
    }

    /// Returns the latest version of the row that stood at a place, and where that version stands. Returns None if the
    /// row is gone, or if the table has another file.
    pub fn latest<R>(&self, place: Place, read: impl FnOnce(Row) -> R) -> Option<(R, Place)> {
        if !self.has_file_of(place) {
            return None;
        }
        // SAFETY: the relation is open; slot, scan and snapshot are ended in order.
        unsafe {
            let mut tid = place.tid();
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let slot = pg_sys::table_slot_create(self.relation, std::ptr::null_mut());
            let scan = pg_sys::table_beginscan_tid(self.relation, snapshot);
            let mut found = None;
            if pg_sys::table_tuple_tid_valid(scan, &mut tid) {
                pg_sys::table_tuple_get_latest_tid(scan, &mut tid);
                if pg_sys::table_tuple_fetch_row_version(self.relation, &mut tid, snapshot, slot) {
                    let row = self.row_in(slot);
                    found = Some((read(row), Place::of(self.relation, tid)));
                }
            }
            pg_sys::table_endscan(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::UnregisterSnapshot(snapshot);
            found
        }
    }

    /// # Safety
    /// The slot holds a row of this table, and keeps it as long as the row is used.
    unsafe fn row_in(&self, slot: *mut pg_sys::TupleTableSlot) -> Row<'_> {
        let mut is_copy = false;
        // SAFETY: as the caller promises.
        unsafe {
            let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut is_copy);
            Row::new(tuple, (*self.relation).rd_att)
        }
    }

    /// Returns a btree that begins with this column and indexes every row of the table; None if there is none.
    pub fn index_on(&self, column: i16) -> Option<Index> {
        // SAFETY: the relation is open; each index is closed again.
        unsafe {
            let indexes = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(self.relation));
            indexes
                .iter_oid()
                .find(|oid| {
                    let index = pg_sys::index_open(*oid, LOCK);
                    let form = (*index).rd_index;
                    let is_btree = (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID;
                    let begins_with_it = (*form).indkey.values.as_slice(1)[0] == column;
                    let fits = is_btree
                        && (*form).indisvalid
                        && begins_with_it
                        && pg_sys::RelationGetIndexPredicate(index).is_null();
                    pg_sys::index_close(index, LOCK);
                    fits
                })
                .map(|oid| Index { oid, table: (*self.relation).rd_id, column })
        }
    }

    /// Calls `see` with each row that an index of this table has for an id.
    pub fn each_of_id(&self, index: &Index, id: Uuid, see: impl FnMut(Row)) {
        // SAFETY: the relation is open; that the index is one of its indexes is asserted.
        unsafe {
            assert!(index.table == (*self.relation).rd_id, "an index is one of its table's");
            scan_relation(self.relation, index.oid, [Key::Uuid(index.column as usize, id)], see);
        }
    }

    /// Passes the rows that this transaction wrote to `wants_more`, among other rows, until it wants no more. Only
    /// blocks that are not visible to all are read, which spares most of a large table.
    pub fn each_written(&self, mut wants_more: impl FnMut(Row) -> bool) {
        let relation = self.relation;
        // SAFETY: the relation is open, and has rows of its own; snapshot, scans and the buffer of the map are given
        // back.
        unsafe {
            assert!((*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION, "a table has rows");
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
                    wants = wants_more(self.row_in(slot));
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
}

/// A btree that begins with a column and indexes every row of its table.
pub struct Index {
    oid: pg_sys::Oid,
    table: pg_sys::Oid,
    column: i16,
}
