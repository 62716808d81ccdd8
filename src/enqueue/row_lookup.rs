//! Looks, just before the COMMIT, for the rows that sends were enqueued for.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    enqueue::enqueued_row::{Enqueued, FoundBy, Now},
    pg::{
        fingerprint::Fingerprint,
        row::Row,
        table::{self, OpenTable},
    },
};

/// Returns the state of each row. In a transaction that is about to commit.
pub fn look(rows: &[Enqueued]) -> Vec<Now> {
    let mut now: Vec<Now> = rows.iter().map(|_| Now::Gone).collect();
    let tables: HashSet<pg_sys::Oid> = rows.iter().map(|row| row.table).collect();
    table::see_own_writes();
    // A table that is missing was dropped by this very transaction, and its rows with it.
    for table in tables.into_iter().filter(|table| table::is_there(*table)) {
        let mut by_id: HashMap<i32, Vec<usize>> = HashMap::new();
        let mut by_values = Vec::new();
        table::with_open(table, |open| {
            for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.table == table) {
                match row.found_by {
                    FoundBy::Id(column) => by_id.entry(column).or_default().push(index),
                    FoundBy::Place(place) if open.has_file_of(place) => {
                        let found = open.latest(place, |there| row.mapping.values(there));
                        now[index] = match found {
                            None => Now::Gone,
                            Some((None, _)) => Now::Left,
                            Some((Some(values), place)) => Now::As(values, Some(place)),
                        };
                    }
                    FoundBy::Place(_) if row.is_emptied => {}
                    FoundBy::Place(_) | FoundBy::Values => by_values.push(index),
                }
            }
        });
        for (column, those) in by_id {
            find_by_id(table, column, rows, &those, &mut now);
        }
        if !by_values.is_empty() {
            find_by_values(table, rows, &by_values, &mut now);
        }
    }
    now
}

/// Looks for rows by the column that has the verification's id.
fn find_by_id(table: pg_sys::Oid, column: i32, rows: &[Enqueued], those: &[usize], now: &mut [Now]) {
    let Some(name) = table::uuid_column(table, column) else {
        // The column was dropped, or it is another column now.
        those.iter().for_each(|index| now[*index] = Now::Left);
        return;
    };
    let mut wanted: HashMap<Uuid, usize> = those.iter().map(|index| (rows[*index].id, *index)).collect();
    table::each_related(table, |open: OpenTable| {
        let Some(column) = open.uuid_column(&name) else { return };
        // The search for an id ends at a row that is as it was: a row that has changed may not be the only one of its
        // id.
        let mut see = |row: Row, wanted: &mut HashMap<Uuid, usize>| {
            let Some(id) = row.uuid(column as usize) else { return };
            let Some(index) = wanted.get(&id).copied() else { return };
            let values = rows[index].mapping.values(row);
            if values.as_ref().is_none_or(|values| values.fingerprint() == rows[index].fingerprint) {
                wanted.remove(&id);
            }
            now[index] = values.map_or(Now::Left, |values| Now::As(values, None));
        };
        match open.index_on(column) {
            Some(index) => {
                for id in wanted.keys().copied().collect::<Vec<_>>() {
                    open.each_of_id(&index, id, |row| see(row, &mut wanted));
                }
            }
            None => open.each_written(|row| {
                see(row, &mut wanted);
                !wanted.is_empty()
            }),
        }
    });
}

/// Looks for rows by their values. A send stays if this transaction wrote a row with its values: of equal sends, as
/// many stay as there are such rows, the last ones.
fn find_by_values(table: pg_sys::Oid, rows: &[Enqueued], those: &[usize], now: &mut [Now]) {
    let mut there: HashMap<(pg_sys::Oid, Fingerprint), usize> = HashMap::new();
    // One send of each trigger stands for all: they have the same mapping.
    let triggers: HashMap<pg_sys::Oid, usize> = those.iter().map(|index| (rows[*index].trigger, *index)).collect();
    let mut left = HashSet::new();
    table::each_related(table, |open: OpenTable| {
        open.each_written(|row| {
            for (trigger, index) in triggers.iter().filter(|_| row.is_of_this_transaction()) {
                match rows[*index].mapping.values(row) {
                    Some(values) => *there.entry((*trigger, values.fingerprint())).or_default() += 1,
                    None => drop(left.insert(*trigger)),
                }
            }
            true
        });
    });
    for index in those.iter().rev() {
        let row = &rows[*index];
        let count = there.get_mut(&(row.trigger, row.fingerprint)).filter(|count| **count > 0);
        if left.contains(&row.trigger) || count.map(|count| *count -= 1).is_some() {
            now[*index] = Now::Left;
        }
    }
}
