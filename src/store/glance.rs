//! A look at the record for `otp_gateway.health`: of now, by an index, of so many rows at most, whatever the caller's
//! rights, and without waiting for who has a table locked.

use std::collections::HashMap;

use dialect::{Operation, Outcome};
use pgrx::pg_sys;
use policy::Timestamp;

use crate::{
    pg::{
        relation::of_extension,
        row::Row,
        unlocked_scan::{IsLocked, scan_latest_unlocked, scan_unlocked},
        uuid_time::first_id_of,
    },
    store::columns::{attempt, breaker, identity, low_conversion, sealing_key},
};

/// How the latest sends that have ended went.
#[derive(Default)]
pub struct RecentSends {
    /// Those that a rule let through.
    pub made: usize,
    pub unknown: usize,
    /// What the vendor refused for what it was, or for whom it was from.
    pub refused: usize,
    /// When the earliest of them began.
    pub since: Option<Timestamp>,
}

/// Of the `most` latest attempts, the sends that began after `since`.
pub fn recent_sends(since: Timestamp, most: usize) -> Result<RecentSends, IsLocked> {
    let (table, index) = (relation(c"attempt_record")?, relation(c"attempt_pkey")?);
    let (mut looked, mut sends) = (0, RecentSends::default());
    scan_latest_unlocked(table, index, (attempt::ID, first_id_of(since)), |row| {
        looked += 1;
        sends.add(row);
        looked < most
    })?;
    Ok(sends)
}

impl RecentSends {
    fn add(&mut self, row: Row) {
        let operation = row.get::<String>(attempt::OPERATION);
        let is_send = [Operation::Send, Operation::Resend].iter().any(|of| operation.as_deref() == Some(of.as_str()));
        let outcome = row.get::<String>(attempt::OUTCOME).and_then(|label| Outcome::from_label(&label));
        let Some(outcome) = outcome.filter(|outcome| is_send && *outcome != Outcome::Blocked) else { return };
        self.made += 1;
        self.unknown += usize::from(outcome == Outcome::Unknown);
        let is_refused = matches!(outcome, Outcome::InvalidRequest | Outcome::AuthFailed | Outcome::Refused);
        self.refused += usize::from(is_refused);
        self.since = row.time(attempt::STARTED_AT);
    }
}

/// A breaker that has opened and not closed since.
pub struct SeenBreaker {
    pub server: pg_sys::Oid,
    pub opened_at: Timestamp,
    pub open_until: Timestamp,
    pub outcome: String,
    pub vendor_code: Option<String>,
}

pub fn breakers() -> Result<Vec<SeenBreaker>, IsLocked> {
    let mut found = Vec::new();
    scan_unlocked(relation(c"breaker")?, |row| {
        found.extend(row.get(breaker::SERVER).map(|server| SeenBreaker {
            server,
            opened_at: row.time(breaker::OPENED_AT).unwrap_or_default(),
            open_until: row.time(breaker::OPEN_UNTIL).unwrap_or_default(),
            outcome: row.get(breaker::OUTCOME).unwrap_or_default(),
            vendor_code: row.get(breaker::VENDOR_CODE),
        }));
    })?;
    Ok(found)
}

/// A range whose codes are not typed in; without one, a provider.
pub struct SeenLowConversion {
    /// As it is called now, or was last.
    pub provider: String,
    pub range: String,
    pub since: Timestamp,
    pub sends: i32,
    pub converted: i32,
    pub usual: f64,
    pub is_enforced: bool,
    pub blocked: i64,
}

pub fn low_conversions(now: Timestamp) -> Result<Vec<SeenLowConversion>, IsLocked> {
    let (mut found, mut names) = (Vec::new(), HashMap::new());
    scan_unlocked(relation(c"low_conversion")?, |row| {
        if row.time(low_conversion::UNTIL).is_none_or(|until| until <= now) {
            return;
        }
        found.push((
            row.get::<i64>(low_conversion::PROVIDER_ID),
            SeenLowConversion {
                provider: String::new(),
                range: row.get(low_conversion::RANGE).unwrap_or_default(),
                since: row.time(low_conversion::SINCE).unwrap_or_default(),
                sends: row.get(low_conversion::SENDS).unwrap_or(0),
                converted: row.get(low_conversion::CONVERTED).unwrap_or(0),
                usual: row.get(low_conversion::USUAL).unwrap_or(0.0),
                is_enforced: row.get(low_conversion::IS_ENFORCED).unwrap_or(false),
                blocked: row.get(low_conversion::BLOCKED).unwrap_or(0),
            },
        ));
    })?;
    if !found.is_empty() {
        scan_unlocked(relation(c"identity")?, |row| {
            // Of one that was dropped nothing is to be said.
            let is_there = row.get::<pg_sys::Oid>(identity::OBJECT).is_some();
            let named = row.get::<i64>(identity::ID).zip(row.get::<String>(identity::NAME));
            names.extend(named.filter(|_| is_there));
        })?;
    }
    let named = |(id, low): (Option<i64>, SeenLowConversion)| {
        Some(SeenLowConversion { provider: names.get(&id?)?.clone(), ..low })
    };
    Ok(found.into_iter().filter_map(named).collect())
}

/// The ids of the keys that this database needs.
pub fn needed_keys() -> Result<Vec<String>, IsLocked> {
    let mut needed = Vec::new();
    scan_unlocked(relation(c"sealing_key")?, |row| needed.extend(row.get::<String>(sealing_key::ID)))?;
    Ok(needed)
}

/// One that has been renamed cannot be looked at, either.
fn relation(name: &std::ffi::CStr) -> Result<pg_sys::Oid, IsLocked> {
    of_extension(name).ok_or(IsLocked)
}
