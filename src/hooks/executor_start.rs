//! Sees, where the executor starts a statement, what a row trigger does not see. INSERT ... ON CONFLICT fires BEFORE
//! triggers also for rows that it then does not insert; and a row that a send was enqueued for may be changed or
//! deleted later in the transaction.

use std::cell::RefCell;

use pgrx::{PgList, pg_sys};

use crate::hooks::row_watch;

static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

thread_local! {
    /// The tables of this transaction's INSERT ... ON CONFLICT.
    static TABLES: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

// Postgres' own function, without pgrx's guard: every statement of the cluster comes through it, errors included.
unsafe extern "C-unwind" {
    #[link_name = "standard_ExecutorStart"]
    fn standard_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
}

pub fn init() {
    // SAFETY: in _PG_init of the postmaster, single-threaded.
    unsafe {
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: the arguments are Postgres' own and are passed on as they came.
    unsafe {
        let plan = (*query).plannedstmt;
        if !plan.is_null() {
            let command = (*plan).commandType;
            let changes = command != pg_sys::CmdType::CMD_SELECT && command != pg_sys::CmdType::CMD_INSERT;
            if command == pg_sys::CmdType::CMD_INSERT || (*plan).hasModifyingCTE || (changes && row_watch::is_on()) {
                note(plan);
            }
        }
        match PREVIOUS {
            Some(next) => next(query, flags),
            None => standard_start(query, flags),
        }
    }
}

/// # Safety
/// `plan` is a planned statement that writes.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn note(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: as the caller promises; a node's tag says which struct it is, and the numbers are of the range table.
    unsafe {
        let tables = PgList::<pg_sys::RangeTblEntry>::from_pg((*plan).rtable);
        // A WITH that writes is a subplan.
        let subplans = PgList::<pg_sys::Plan>::from_pg((*plan).subplans);
        for part in std::iter::once((*plan).planTree).chain(subplans.iter_ptr()) {
            if part.is_null() || (*part.cast::<pg_sys::Node>()).type_ != pg_sys::NodeTag::T_ModifyTable {
                continue;
            }
            let part = part.cast::<pg_sys::ModifyTable>();
            let inserts = (*part).operation == pg_sys::CmdType::CMD_INSERT;
            let leaves_out = (*part).onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE;
            if inserts && !leaves_out {
                continue;
            }
            for number in PgList::<i32>::from_pg((*part).resultRelations).iter_int() {
                let Some(entry) = tables.get_ptr((number - 1) as usize) else { continue };
                let table = (*entry).relid;
                row_watch::writes(table);
                if !leaves_out {
                    continue;
                }
                TABLES.with_borrow_mut(|seen| {
                    if !seen.contains(&table) {
                        seen.push(table);
                    }
                });
            }
        }
    }
}

/// Returns whether this transaction may have left out rows of the table. For a partition, any table with ON CONFLICT
/// may be the one that it belongs to.
pub fn may_leave_out_rows(table: pg_sys::Oid, is_partition: bool) -> bool {
    TABLES.with_borrow(|seen| seen.contains(&table) || (is_partition && !seen.is_empty()))
}

/// Forgets the tables at the end of a transaction. Cannot fail.
pub fn forget() {
    TABLES.with(|tables| {
        if let Ok(mut tables) = tables.try_borrow_mut() {
            tables.clear();
        }
    });
}
