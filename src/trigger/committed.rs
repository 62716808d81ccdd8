//! Just before the COMMIT: what was enqueued for rows is compared with the rows as they are by now. The row as committed
//! gets the code, or nobody.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
};

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    enqueue::{
        account, replace,
        row_exists::{self, Place},
    },
    error::Misuse,
    pg::{fingerprint::Fingerprint, roles::Role},
    store::session_writes,
    trigger::mapping::{Mapping, Values},
};

/// A row that a send was enqueued for.
pub struct Enqueued {
    pub id: Uuid,
    pub trigger: pg_sys::Oid,
    pub table: pg_sys::Oid,
    pub is_partition: bool,
    pub found_by: FoundBy,
    /// What its mapped columns were.
    pub print: Fingerprint,
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

    fn is_as(&self, values: &Values) -> bool {
        values.print() == self.print
    }
}

/// Takes back what is of no row, and enqueues anew what is of a row that has changed.
pub fn settle(all: Vec<Enqueued>) -> Result<(), Misuse> {
    let doubtful: HashSet<pg_sys::Oid> = all.iter().filter(|row| row.is_doubtful).map(|row| row.table).collect();
    // A row that was written twice is one row, whichever of the two is in doubt.
    let is_due =
        |row: &Enqueued| row.is_doubtful || (!matches!(row.found_by, FoundBy::Id(_)) && doubtful.contains(&row.table));
    let due: Vec<Enqueued> = all.into_iter().filter(is_due).collect();
    let found: Vec<(&Enqueued, Now)> = due.iter().zip(row_exists::look(&due)).collect();
    // Of several sends for one row one is left: the last of those that are right, else the last.
    let mut left: HashMap<(pg_sys::Oid, Place), (Uuid, bool)> = HashMap::new();
    for (row, now) in &found {
        let Now::As(values, Some(place)) = now else { continue };
        let is_right = row.is_as(values);
        match left.entry((row.trigger, *place)) {
            Entry::Occupied(mut best) if is_right || !best.get().1 => drop(best.insert((row.id, is_right))),
            Entry::Occupied(_) => {}
            Entry::Vacant(best) => drop(best.insert((row.id, is_right))),
        }
    }
    let is_left = |row: &Enqueued, place| left.get(&(row.trigger, place)).is_some_and(|(id, _)| *id == row.id);
    let mut gone = Vec::new();
    let mut changed = Vec::new();
    for (row, now) in found {
        match now {
            Now::Gone => gone.push(row.id),
            Now::As(_, Some(place)) if !is_left(row, place) => gone.push(row.id),
            Now::As(values, _) if row.is_as(&values) => {}
            Now::As(..) if row.is_foreign => gone.push(row.id),
            Now::As(values, _) => changed.push((row, values)),
            Now::Left => {}
        }
    }
    if !gone.is_empty() {
        session_writes::take_back(&gone)?;
    }
    changed.iter().try_for_each(|(row, values)| row.enqueue_as(values).map_err(|misuse| misuse.at(&row.at)))
}

impl Enqueued {
    /// For the same role, under the same id, which the row has.
    fn enqueue_as(&self, values: &Values) -> Result<(), Misuse> {
        let account = account(&self.provider, self.role.oid)?;
        match replace(self.id, self.role.clone(), &self.provider, &values.payload()) {
            Err(misuse) if values.lack(&misuse, &account) => session_writes::take_back(&[self.id]),
            replaced => replaced.map_err(|misuse| self.mapping.blame(misuse, &account)),
        }
    }
}
