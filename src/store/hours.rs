//! The hours, which otp_gateway.stat_hourly shows: what became of the flows that began in one hour. They are written in
//! the transaction that puts an attempt's end on record, so that they never differ from the record. Only the worker
//! writes them. It knows the place of each row in the table: while a long transaction keeps the versions of a row that
//! is written a thousand times a second, an index would lead to each of the versions.

use std::collections::HashMap;

use dialect::{Operation, Outcome};
use pgrx::{datum::DatumWithOid, pg_sys};
use policy::{Micros, Timestamp};

use crate::{
    pg::{
        row::Row,
        table_write,
        values::{self, argument, number, numbers},
    },
    store::{
        StoreTransaction,
        columns::hourly,
        counted::{BOUNDS, EndedAttempt},
        identity::Identity,
        prepared::statements,
        rows,
        transaction::Failure,
    },
};

statements! {
    find_hour(pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::INT4OID)
      "SELECT ctid, counts FROM otp_gateway_internal.hourly_record
       WHERE hour OPERATOR(pg_catalog.=) $1 AND provider_id OPERATOR(pg_catalog.=) $2
         AND role_id OPERATOR(pg_catalog.=) $3 AND route_id OPERATOR(pg_catalog.=) $4
         AND country OPERATOR(pg_catalog.=) $5"

    insert_hour(
        pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::INT4OID, pg_sys::INT8ARRAYOID
    )
      "INSERT INTO otp_gateway_internal.hourly_record (hour, provider_id, role_id, route_id, country, counts)
       VALUES ($1, $2, $3, $4, $5, $6) RETURNING ctid"

    delete_hours(pg_sys::TIMESTAMPTZOID)
      "DELETE FROM otp_gateway_internal.hourly_record WHERE hour OPERATOR(pg_catalog.<) $1"
}

const HOUR: Micros = 3_600_000_000;
/// How long hours are kept: a year can be compared with the one before.
const KEPT_FOR: Micros = 400 * 24 * HOUR;
/// How many rows are known by their place; other rows are looked for.
const MOST_KNOWN: usize = 4096;

/// What is counted, by its place in the column `counts`; how many sends took how long comes last. An update logs all
/// from the first count that it changes to the last one: what grows together stands together.
#[derive(Clone, Copy)]
enum Count {
    Unknown,
    Blocked,
    WouldBlock,
    InvalidCodes,
    Verifies,
    Converted,
    Sends,
    Sent,
    Verifications,
    Time,
}

const FIRST_BUCKET: usize = Count::Time as usize + 1;
const COUNTS: usize = FIRST_BUCKET + BOUNDS.len();

type Counts = [i64; COUNTS];

/// The key of a row: attempts with one key are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct HourKey {
    hour: i64,
    provider: Identity,
    role: Identity,
    /// 0: no route.
    route: Identity,
    country: i32,
}

/// A row, and its place in the table.
#[derive(Clone, Copy)]
struct HourRow {
    place: (u32, u16),
    counts: Counts,
}

/// The rows that this worker has written last.
#[derive(Default)]
pub struct KnownHours {
    rows: HashMap<HourKey, HourRow>,
    /// Rows written in a transaction that has not ended.
    fresh: Vec<(HourKey, HourRow)>,
    /// The hour at whose first row the rows that are too old were last deleted.
    swept: i64,
}

impl KnownHours {
    /// Ends a transaction: keeps the rows that it wrote if it was committed, else forgets them.
    pub fn settle(&mut self, committed: bool) {
        let fresh = std::mem::take(&mut self.fresh);
        if committed {
            if self.rows.len() + fresh.len() > MOST_KNOWN {
                self.rows.clear();
            }
            self.rows.extend(fresh);
        }
    }
}

impl HourKey {
    /// Returns the key of the row that counts an attempt; None if it is not counted.
    fn of(attempt: &EndedAttempt) -> Option<Self> {
        let cohort = attempt.begun.cohort;
        cohort.is_counted.then(|| Self {
            hour: cohort.begun_at.0.div_euclid(HOUR),
            provider: attempt.begun.provider_id,
            role: cohort.role_id,
            route: cohort.route_id.unwrap_or(0),
            country: cohort.country.unwrap_or(0),
        })
    }

    /// As a row has it.
    fn read(row: Row) -> Option<Self> {
        Some(Self {
            hour: row.time(hourly::HOUR)?.0.div_euclid(HOUR),
            provider: row.get(hourly::PROVIDER_ID)?,
            role: row.get(hourly::ROLE_ID)?,
            route: row.get(hourly::ROUTE_ID)?,
            country: row.get(hourly::COUNTRY)?,
        })
    }

    fn arguments(self) -> [DatumWithOid<'static>; 5] {
        [
            values::time(Timestamp(self.hour * HOUR)),
            number(self.provider),
            number(self.role),
            number(self.route),
            argument(self.country, pg_sys::INT4OID),
        ]
    }
}

/// Returns what an attempt adds to its hour.
fn counts_of(attempt: &EndedAttempt) -> Counts {
    let mut counts = [0; COUNTS];
    let mut add = |count: Count, is_so: bool| counts[count as usize] += i64::from(is_so);
    let (operation, outcome) = (attempt.begun.operation, attempt.outcome);
    let is_blocked = outcome == Outcome::Blocked;
    match operation {
        Operation::Send | Operation::Resend => {
            add(Count::Sends, !is_blocked);
            add(Count::Sent, outcome == Outcome::Sent);
            add(Count::Unknown, outcome == Outcome::Unknown);
            add(Count::Blocked, is_blocked);
            add(Count::WouldBlock, !is_blocked && attempt.begun.reason.is_some());
            add(Count::Verifications, attempt.sends_first_code());
            if let Some(took) = attempt.took {
                counts[Count::Time as usize] += took;
                if let Some(bucket) = BOUNDS.iter().position(|bound| took <= *bound) {
                    counts[FIRST_BUCKET + bucket] += 1;
                }
            }
        }
        Operation::Verify => {
            add(Count::Verifies, !is_blocked);
            add(Count::InvalidCodes, outcome == Outcome::InvalidCode);
            add(Count::Converted, attempt.converts());
        }
        Operation::Cancel => {}
    }
    counts
}

/// Returns counts as a row has them; an earlier version may have had fewer.
fn as_counts(stored: Option<Vec<i64>>) -> Counts {
    let stored = stored.unwrap_or_default();
    std::array::from_fn(|place| stored.get(place).copied().unwrap_or(0))
}

fn plus(a: &Counts, b: &Counts) -> Counts {
    std::array::from_fn(|place| a[place] + b[place])
}

impl StoreTransaction<'_, '_> {
    /// Adds the attempts that end with this transaction to their hours.
    pub fn count_hours(&mut self) -> Result<(), Failure> {
        let mut hours: Vec<(HourKey, Counts)> = Vec::new();
        for attempt in &self.ended {
            let Some(key) = HourKey::of(attempt) else { continue };
            let counts = counts_of(attempt);
            match hours.iter_mut().find(|(known, _)| *known == key) {
                Some((_, sum)) => *sum = plus(sum, &counts),
                None if counts == [0; COUNTS] => {}
                None => hours.push((key, counts)),
            }
        }
        hours.into_iter().try_for_each(|(key, counts)| self.add_to_hour(key, &counts))
    }

    fn add_to_hour(&mut self, key: HourKey, counts: &Counts) -> Result<(), Failure> {
        let known = self.store.hours.borrow().rows.get(&key).copied();
        let mut written = known.and_then(|row| self.update_hour(key, row, counts));
        if written.is_none() {
            // The row's place is not known, or the row is no longer there: another worker has written it, or somebody
            // has moved it.
            written = match self.find_hour(key)? {
                Some(row) => self.update_hour(key, row, counts),
                None => Some(self.insert_hour(key, counts)?),
            };
        }
        // None: somebody else has changed the row just now.
        let row = written.ok_or(Failure::Busy)?;
        self.store.hours.borrow_mut().fresh.push((key, row));
        Ok(())
    }

    /// None: somebody has changed or moved it.
    fn update_hour(&mut self, key: HourKey, row: HourRow, counts: &Counts) -> Option<HourRow> {
        let counts = plus(&row.counts, counts);
        let place = table_write::update_at(&self.store.hourly, row.place, |found, columns| {
            // Where it stood, it may be another row by now, or one that somebody has corrected.
            let is_it = HourKey::read(found) == Some(key) && as_counts(found.get(hourly::COUNTS)) == row.counts;
            if is_it {
                columns.bigints(hourly::COUNTS, &counts);
            }
            is_it
        });
        place.map(|place| HourRow { place, counts })
    }

    fn find_hour(&mut self, key: HourKey) -> Result<Option<HourRow>, Failure> {
        let found = self.client.update(&self.store.hour_statements.find_hour, None, &key.arguments())?;
        let row =
            found.map(|row| Ok(HourRow { place: rows::place(&row, 1)?, counts: as_counts(rows::value(&row, 2)?) }));
        row.take(1).next().transpose()
    }

    fn insert_hour(&mut self, key: HourKey, counts: &Counts) -> Result<HourRow, Failure> {
        let statements = &self.store.hour_statements;
        if self.store.hours.borrow().swept < key.hour {
            let before = values::time(Timestamp(key.hour * HOUR - KEPT_FOR));
            self.client.update(&statements.delete_hours, None, &[before])?;
            self.store.hours.borrow_mut().swept = key.hour;
        }
        let [hour, provider, role, route, country] = key.arguments();
        let arguments = [hour, provider, role, route, country, numbers(counts)];
        let place = self.client.update(&statements.insert_hour, None, &arguments)?;
        let place = place.map(|row| rows::place(&row, 1)).next().transpose()?;
        Ok(HourRow { place: place.unwrap_or_default(), counts: *counts })
    }
}
