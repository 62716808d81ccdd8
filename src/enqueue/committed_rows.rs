//! Just before the COMMIT: what was enqueued for rows is compared with the rows as they are by now. The row as
//! committed gets the code, or nobody.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    enqueue::{
        enqueued_row::{Enqueued, FoundBy, Now},
        mapping::Values,
        replace, row_lookup,
        transaction::{self, candidates},
    },
    error::Error,
    pg::{table::Place, transaction::with_snapshot},
    store::session_writes,
};

/// Takes back what is of no row, and enqueues anew what is of a row that has changed.
pub fn settle(all: Vec<Enqueued>) -> Result<(), Error> {
    let doubtful: HashSet<pg_sys::Oid> = all.iter().filter(|row| row.is_doubtful).map(|row| row.table).collect();
    // A row that was written twice is one row, whichever of the two is in doubt.
    let is_due =
        |row: &Enqueued| row.is_doubtful || (!matches!(row.found_by, FoundBy::Id(_)) && doubtful.contains(&row.table));
    let due: Vec<Enqueued> = all.into_iter().filter(is_due).collect();
    let found: Vec<(&Enqueued, Now)> = due.iter().zip(row_lookup::look(&due)).collect();
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
        session_writes::withdraw(&gone)?;
    }
    changed.iter().try_for_each(|(row, values)| row.enqueue_as(values).map_err(|error| error.of_trigger(&row.at)))
}

impl Enqueued {
    /// For the same role, under the same id, which the row has.
    fn enqueue_as(&self, values: &Values) -> Result<(), Error> {
        let candidates = candidates(&self.provider, self.role.oid)?;
        match replace(self.id, self.role.clone(), &self.provider, &values.payload()) {
            Err(error) if values.lack(&error, &candidates) => session_writes::withdraw(&[self.id]),
            replaced => replaced.map_err(|error| self.mapping.blame(error, &candidates)),
        }
    }
}

/// Before the COMMIT: what was enqueued for rows is compared with the rows that stay.
pub fn before_commit() {
    if transaction::has_doubtful_rows() {
        let rows = transaction::take_rows();
        with_snapshot(|| settle(rows).unwrap_or_else(|error| error.raise()));
    }
}
