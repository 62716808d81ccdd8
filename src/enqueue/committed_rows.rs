//! Just before the COMMIT, compares the rows that sends were enqueued for with the rows as they are now: the row as
//! committed gets the code, or nobody does.

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

/// Withdraws the sends whose row is gone, and enqueues anew those whose row has changed.
pub fn settle(all: Vec<Enqueued>) -> Result<(), Error> {
    let doubtful: HashSet<pg_sys::Oid> = all.iter().filter(|row| row.is_doubtful).map(|row| row.table).collect();
    // Rows that are not found by an id are looked at together: a row that was written twice is one row, whichever of
    // its two sends is in doubt.
    let is_due =
        |row: &Enqueued| row.is_doubtful || (!matches!(row.found_by, FoundBy::Id(_)) && doubtful.contains(&row.table));
    let due: Vec<Enqueued> = all.into_iter().filter(is_due).collect();
    let found: Vec<(&Enqueued, Now)> = due.iter().zip(row_lookup::look(&due)).collect();
    // Of several sends for one row one stays: the last whose values are the row's, else the last.
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
    /// Enqueues a send for the values that the row has now, for the same role and under the same id, which the row has.
    fn enqueue_as(&self, values: &Values) -> Result<(), Error> {
        let candidates = candidates(&self.provider, self.role.oid)?;
        match replace(self.id, self.role.clone(), &self.provider, &values.payload()) {
            Err(error) if values.lack(&error, &candidates) => session_writes::withdraw(&[self.id]),
            replaced => replaced.map_err(|error| self.mapping.blame(error, &candidates)),
        }
    }
}

/// Compares the enqueued sends with the rows before the COMMIT.
pub fn before_commit() {
    if transaction::has_doubtful_rows() {
        let rows = transaction::take_rows();
        with_snapshot(|| settle(rows).unwrap_or_else(|error| error.raise()));
    }
}
