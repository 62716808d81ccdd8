//! A row that a send was enqueued for, and what has become of it by the COMMIT.

use std::rc::Rc;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    enqueue::mapping::{Mapping, Values},
    pg::{fingerprint::Fingerprint, roles::Role},
};

/// Where a version of a row stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// A table that was emptied or rewritten has another.
    pub file: pg_sys::Oid,
    pub block: (u16, u16),
    pub offset: u16,
}

impl Place {
    /// # Safety
    /// The relation is open.
    pub unsafe fn of(relation: pg_sys::Relation, tid: pg_sys::ItemPointerData) -> Self {
        // SAFETY: as the caller promises.
        let file = unsafe { (*(*relation).rd_rel).relfilenode };
        Self { file, block: (tid.ip_blkid.bi_hi, tid.ip_blkid.bi_lo), offset: tid.ip_posid }
    }

    pub fn tid(&self) -> pg_sys::ItemPointerData {
        let (bi_hi, bi_lo) = self.block;
        pg_sys::ItemPointerData { ip_blkid: pg_sys::BlockIdData { bi_hi, bi_lo }, ip_posid: self.offset }
    }
}

/// A row that a send was enqueued for.
pub struct Enqueued {
    pub id: Uuid,
    pub trigger: pg_sys::Oid,
    pub table: pg_sys::Oid,
    pub is_partition: bool,
    pub found_by: FoundBy,
    /// What its mapped columns were.
    pub fingerprint: Fingerprint,
    pub mapping: Rc<Mapping>,
    pub provider: String,
    pub role: Role,
    /// The trigger and its table, for errors.
    pub at: String,
    /// It may have become another row, or none: it is looked for.
    pub is_doubtful: bool,
    pub is_emptied: bool,
    /// Somebody may have changed it who cannot act for the role: what they wrote is not sent in its name.
    pub is_foreign: bool,
}

/// How it is found again.
#[derive(Clone, Copy)]
pub enum FoundBy {
    /// By the column that has the verification's id.
    Id(i32),
    /// By where it stood.
    Place(Place),
    /// By its values alone: a BEFORE trigger does not know where the row will stand.
    Values,
}

/// What a row is by now.
pub enum Now {
    Gone,
    /// It is there as it was, or nobody can tell: its columns are others now. Nothing is taken back.
    Left,
    As(Values, Option<Place>),
}

impl Enqueued {
    /// A statement changes rows of this table.
    pub fn doubt(&mut self, table: pg_sys::Oid) {
        // The row may be in another partition by then.
        if self.table == table || self.is_partition {
            self.is_doubtful = true;
            // SAFETY: look-ups in the catalog, within a statement.
            self.is_foreign |= unsafe { !pg_sys::has_privs_of_role(pg_sys::GetUserId(), self.role.oid) };
        }
    }

    /// This table was emptied, or dropped.
    pub fn empty(&mut self, table: pg_sys::Oid) {
        self.doubt(table);
        self.is_emptied |= self.table == table;
    }

    pub fn is_as(&self, values: &Values) -> bool {
        values.fingerprint() == self.fingerprint
    }
}
