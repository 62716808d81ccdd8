//! Reading a table without ever waiting for who has it locked: for those who are to say how things are while they are
//! bad.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::pg::{
    row::Row,
    scan::{Key, scan_open_latest},
};

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// Somebody has the table or its index locked, or has dropped it just now.
pub struct IsLocked;

/// Every row of a small table, with the latest snapshot.
pub fn scan_unlocked(table: pg_sys::Oid, mut each: impl FnMut(Row)) -> Result<(), IsLocked> {
    let table = Held::of(table)?;
    // SAFETY: the relation is open as long as it is held; scan and snapshot are ended in order, and an error in between
    // aborts the statement, which releases them.
    unsafe {
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let none = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(table.relation, pg_sys::InvalidOid, false, snapshot, 0, none);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(Row::new(tuple, (*table.relation).rd_att));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
    }
    Ok(())
}

/// The rows whose `column`, the first of a btree of the table's, is `from` or later, the latest first, as long as
/// `wants_more`; with the latest snapshot.
pub fn scan_latest_unlocked(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    (column, from): (usize, Uuid),
    wants_more: impl FnMut(Row) -> bool,
) -> Result<(), IsLocked> {
    let table = Held::of(table)?;
    let index = Held::of(index)?;
    // SAFETY: both are open as long as they are held.
    unsafe { scan_open_latest(table.relation, index.relation, [Key::UuidFrom(column, from)], wants_more) };
    Ok(())
}

/// A table or an index, open and locked against its drop; both until it goes out of scope.
struct Held {
    relation: pg_sys::Relation,
}

impl Held {
    fn of(relation: pg_sys::Oid) -> Result<Self, IsLocked> {
        // SAFETY: an OID that may be nobody's any more: then there is nothing to open, and the lock is given back.
        unsafe {
            if !pg_sys::ConditionalLockRelationOid(relation, LOCK) {
                return Err(IsLocked);
            }
            let open = pg_sys::try_relation_open(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            if open.is_null() {
                pg_sys::UnlockRelationOid(relation, LOCK);
                return Err(IsLocked);
            }
            Ok(Self { relation: open })
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // On an error's way out the abort of the transaction closes it.
        if !std::thread::panicking() {
            // SAFETY: opened and locked above, once.
            unsafe { pg_sys::relation_close(self.relation, LOCK) };
        }
    }
}
