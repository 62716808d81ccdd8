//! A row that a send was enqueued for, and its state at the COMMIT.

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
    /// The fingerprint of the mapped columns' values when the send was enqueued.
    pub fingerprint: Fingerprint,
    pub mapping: Rc<Mapping>,
    pub provider: String,
    pub role: Role,
    /// The trigger and its table, for errors.
    pub at: String,
    /// Whether the row may have changed or be gone, so that it is looked for before the COMMIT.
    pub is_doubtful: bool,
    pub is_emptied: bool,
    /// Whether a role that cannot act for `role` may have changed the row: what it wrote is not sent in the name of
    /// `role`.
    pub is_foreign: bool,
}

/// How the row is found again.
#[derive(Clone, Copy)]
pub enum FoundBy {
    /// By the column that has the verification's id.
    Id(i32),
    /// By the place where it stood.
    Place(Place),
    /// By its values alone: a BEFORE trigger does not know where the row will stand.
    Values,
}

/// The state of a row before the COMMIT.
pub enum Now {
    Gone,
    /// The row is there as it was, or nobody can tell, because the table's columns have changed. Its send stays.
    Left,
    As(Values, Option<Place>),
}

impl Enqueued {
    /// Notes that a statement changes rows of this table.
    pub fn doubt(&mut self, table: pg_sys::Oid) {
        // The row may have moved to another partition by then.
        if self.table == table || self.is_partition {
            self.is_doubtful = true;
            self.is_foreign |= !has_privileges_of(current_user(), self.role.oid);
        }
    }

    /// Notes that this table was emptied, or dropped.
    pub fn empty(&mut self, table: pg_sys::Oid) {
        self.doubt(table);
        self.is_emptied |= self.table == table;
    }

    pub fn is_as(&self, values: &Values) -> bool {
        values.fingerprint() == self.fingerprint
    }
}
