//! Writing rows of the extension's own tables without SQL: a statement costs more than the row that it writes. Indexes
//! are kept and constraints are checked as ever; no trigger fires, nobody else's and none of ours.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::pg::{
    row::Row,
    row_array::{Columns, RowType},
    scan::{Key, scan_relation},
};

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// Inserts rows; `fill` fills the columns of each, of which those that are left out are null. The log of many has a
/// record for each page.
pub fn insert<T>(of: &RowType, rows: &[T], fill: impl Fn(&T, &mut Columns)) {
    if rows.is_empty() {
        return;
    }
    let mut columns = of.columns();
    // SAFETY: an open table, closed after the last use; each datum is of its column's type, which Columns sees to.
    unsafe {
        let mut table = Writing::open(of.relation());
        let slots = rows.iter().map(|row| {
            columns.clear(table.width());
            fill(row, &mut columns);
            let slot = table.new_slot();
            table.form(&mut columns, slot);
            slot
        });
        let slots = slots.collect();
        table.insert(slots);
        table.close();
    }
}

/// Updates the row of each id, if there is one: `change` is given its columns as they are, and says whether it has
/// changed any. The id is the first column of the primary key.
pub fn update<T>(
    of: &RowType,
    column: usize,
    rows: &[T],
    id: impl Fn(&T) -> Uuid,
    change: impl Fn(&T, &mut Columns) -> bool,
) {
    if rows.is_empty() {
        return;
    }
    let mut columns = of.columns();
    // SAFETY: as above; the old values are there as long as the scan that has found them.
    unsafe {
        let mut table = Writing::open(of.relation());
        for row in rows {
            while !table.update([Key::Uuid(column, id(row))], &mut columns, |columns| change(row, columns)) {
                // Somebody has changed the row between our look and our turn: it is looked at again.
                pgrx::check_for_interrupts!();
            }
        }
        table.close();
    }
}

/// Updates the row that stands at a place (block, and number there), if one stands there: `change` is given it and its
/// columns, and says whether it has changed any. Returns where it stands from then on. None: it was not changed, or
/// somebody else has written it meanwhile.
pub fn update_at(
    of: &RowType,
    (block, offset): (u32, u16),
    change: impl FnOnce(Row, &mut Columns) -> bool,
) -> Option<(u32, u16)> {
    let mut place = pg_sys::ItemPointerData::default();
    pgrx::itemptr::item_pointer_set_all(&mut place, block, offset);
    let mut columns = of.columns();
    let mut written = None;
    // SAFETY: as above; a place where no row stands is looked at as such.
    unsafe {
        let mut table = Writing::open(of.relation());
        let found = pg_sys::table_slot_create(table.table, std::ptr::null_mut());
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let is_there = block < pg_sys::RelationGetNumberOfBlocksInFork(table.table, pg_sys::ForkNumber::MAIN_FORKNUM);
        if is_there {
            // Room for the next version on the same page, as each scan makes it: this one is no scan.
            let page = pg_sys::ReadBuffer(table.table, block);
            pg_sys::heap_page_prune_opt(table.table, page);
            pg_sys::ReleaseBuffer(page);
        }
        if is_there && pg_sys::table_tuple_fetch_row_version(table.table, &mut place, snapshot, found) {
            let mut is_copy = false;
            let tuple = pg_sys::ExecFetchSlotHeapTuple(found, false, &mut is_copy);
            let row = Row::new(tuple, (*table.table).rd_att);
            columns.clear(table.width());
            columns.read(row);
            if change(row, &mut columns) {
                table.form(&mut columns, table.slot);
                if table.replace(place) {
                    written = Some(pgrx::itemptr::item_pointer_get_both((*table.slot).tts_tid));
                }
            }
        }
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::ExecDropSingleTupleTableSlot(found);
        table.close();
    }
    written
}

/// A table that is written to, with its indexes.
struct Writing {
    table: pg_sys::Relation,
    indexes: *mut pg_sys::ResultRelInfo,
    state: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Writing {
    /// # Safety
    /// In a transaction that writes, whose abort gives back what an error leaves open.
    unsafe fn open(table: pg_sys::Oid) -> Self {
        // SAFETY: as the caller promises; a ResultRelInfo is plain data, which is initialised here. Its number among
        // the tables of a query is 0: it is of none.
        unsafe {
            let table = pg_sys::table_open(table, LOCK);
            let state = pg_sys::CreateExecutorState();
            let indexes = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(indexes, table, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(indexes, false);
            let mut writing = Self { table, indexes, state, slot: std::ptr::null_mut() };
            writing.slot = writing.new_slot();
            writing
        }
    }

    /// A place for a row of the table.
    fn new_slot(&self) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the table is open, and has a descriptor.
        unsafe { pg_sys::MakeSingleTupleTableSlot((*self.table).rd_att, &raw const pg_sys::TTSOpsHeapTuple) }
    }

    /// How many columns the table has.
    fn width(&self) -> usize {
        // SAFETY: the table is open.
        unsafe { (*(*self.table).rd_att).natts as usize }
    }

    /// Inserts the rows that are in these slots, and drops the slots.
    ///
    /// # Safety
    /// The rows are of this table.
    unsafe fn insert(&mut self, mut slots: Vec<*mut pg_sys::TupleTableSlot>) {
        // SAFETY: as the caller promises; each slot then says where its row stands.
        unsafe {
            let command = pg_sys::GetCurrentCommandId(true);
            let none = std::ptr::null_mut();
            match slots[..] {
                [slot] => pg_sys::table_tuple_insert(self.table, slot, command, 0, none),
                _ => {
                    let count = slots.len() as i32;
                    pg_sys::table_multi_insert(self.table, slots.as_mut_ptr(), count, command, 0, none);
                }
            }
            for slot in slots {
                self.insert_into_indexes(slot, false);
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
        }
    }

    /// Returns false if somebody else was faster.
    ///
    /// # Safety
    /// The keys are of the primary key, and the columns are of this table.
    unsafe fn update(
        &mut self,
        keys: [Key; 1],
        columns: &mut Columns,
        change: impl FnOnce(&mut Columns) -> bool,
    ) -> bool {
        let mut change = Some(change);
        let mut is_done = true;
        // SAFETY: as the caller promises; the scan ends after the row that it has found is written anew.
        unsafe {
            #[cfg(not(feature = "pg18"))]
            let primary_key = pg_sys::RelationGetPrimaryKeyIndex(self.table);
            #[cfg(feature = "pg18")]
            let primary_key = pg_sys::RelationGetPrimaryKeyIndex(self.table, false);
            scan_relation(self.table, primary_key, keys, |row| {
                let Some(change) = change.take() else { return };
                columns.clear(self.width());
                columns.read(row);
                if change(columns) {
                    self.form(columns, self.slot);
                    is_done = self.replace(row.tid());
                }
            });
        }
        is_done
    }

    /// Puts the row in the slot into the place of the one that stands there.
    ///
    /// # Safety
    /// A row of this table stands there.
    unsafe fn replace(&mut self, mut place: pg_sys::ItemPointerData) -> bool {
        let mut failure = pg_sys::TM_FailureData::default();
        let mut lock = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let mut moved = false;
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let mut moved = pg_sys::TU_UpdateIndexes::TU_None;
        // SAFETY: as the caller promises; everything that is written to lives here. Waits for who has the row locked.
        let outcome = unsafe {
            let command = pg_sys::GetCurrentCommandId(true);
            let none = std::ptr::null_mut();
            let snapshot = pg_sys::GetActiveSnapshot();
            pg_sys::table_tuple_update(
                self.table,
                &mut place,
                self.slot,
                command,
                snapshot,
                none,
                true,
                &mut failure,
                &mut lock,
                &mut moved,
            )
        };
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let only_summarizing = false;
        // A BRIN index asks for its entry though the row has stayed on its page: no other index may get one then.
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let (moved, only_summarizing) =
            (moved != pg_sys::TU_UpdateIndexes::TU_None, moved == pg_sys::TU_UpdateIndexes::TU_Summarizing);
        match outcome {
            pg_sys::TM_Result::TM_Ok => {
                if moved {
                    // SAFETY: the slot has the row as it was written.
                    unsafe { self.insert_into_indexes(self.slot, only_summarizing) };
                }
                true
            }
            // Deleted, it is not there any more when it is looked for again. What this very command has written is seen
            // by the next one.
            pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted | pg_sys::TM_Result::TM_SelfModified => {
                // SAFETY: in a transaction that writes.
                unsafe { pg_sys::CommandCounterIncrement() };
                false
            }
            _ => pgrx::error!("otp_gateway: a row of the record could not be updated: {outcome}"),
        }
    }

    /// Puts the columns into a slot, and asks the table's constraints.
    ///
    /// # Safety
    /// The columns are of this table.
    unsafe fn form(&self, columns: &mut Columns, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: as the caller promises; the slot frees the row.
        unsafe {
            let row = columns.form((*self.table).rd_att);
            pg_sys::ExecStoreHeapTuple(row, slot, true);
            if !(*(*self.table).rd_att).constr.is_null() {
                pg_sys::ExecConstraints(self.indexes, slot, self.state);
            }
        }
    }

    /// # Safety
    /// The slot has a row that has just been written.
    unsafe fn insert_into_indexes(&self, slot: *mut pg_sys::TupleTableSlot, only_summarizing: bool) {
        let none = std::ptr::null_mut();
        // SAFETY: as the caller promises.
        unsafe {
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            assert!(!only_summarizing, "there is no such update");
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            pg_sys::ExecInsertIndexTuples(self.indexes, slot, self.state, false, false, none, std::ptr::null_mut());
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            pg_sys::ExecInsertIndexTuples(
                self.indexes,
                slot,
                self.state,
                false,
                false,
                none,
                std::ptr::null_mut(),
                only_summarizing,
            );
        }
    }

    /// What was written is seen by what comes after it.
    ///
    /// # Safety
    /// It is open; the lock is kept until the end of the transaction.
    unsafe fn close(self) {
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::ExecCloseIndices(self.indexes);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::FreeExecutorState(self.state);
            pg_sys::table_close(self.table, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::CommandCounterIncrement();
        }
    }
}
