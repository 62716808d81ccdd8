//! A row that a send was enqueued for, and what has become of it by the COMMIT.

use std::rc::Rc;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    enqueue::mapping::{Mapping, Values},
    pg::{
        fingerprint::Fingerprint,
        roles::{Role, current_user, has_privileges_of},
        table::Place,
    },
};

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
            self.is_foreign |= !has_privileges_of(current_user(), self.role.oid);
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
