//! A look at the record for `otp_gateway.health`: as it is now, by an index, at a bounded number of rows, whatever the
//! caller's rights, and without waiting for a lock.

use std::{collections::HashMap, ffi::CStr};

use dialect::{Operation, Outcome};
use pgrx::pg_sys;
use policy::Timestamp;

use crate::{
    pg::{
        relation::{ReadLock, of_extension},
        row::Row,
        scan::{By, Key, scan_latest, scan_table},
        uuid_time::first_id_of,
    },
    store::{
        breakers::{self, OpenBreaker},
        columns::{attempt, identity, sealing_key},
        identity::Identity,
        ranges::{self, LowConversion},
    },
};

/// Why there was no look: somebody has the table or its index locked, or has just dropped or renamed it.
pub struct IsLocked;

/// How the latest sends that have ended went.
#[derive(Default)]
pub struct RecentSends {
    /// How many sends a rule let through.
    pub made: usize,
    pub unknown: usize,
    /// How many of them the vendor refused for what they say, or for who sends them.
    pub refused: usize,
    /// Of each provider that refused one, its latest refusal.
    pub refusals: Vec<Refusal>,
    /// When the earliest of them began.
    pub since: Option<Timestamp>,
    /// Whether there are more that were not looked at.
    pub is_cut: bool,
}

/// A send that a vendor refused, with the vendor's code and words as they are on record: without numbers and secrets.
pub struct Refusal {
    pub provider: Identity,
    pub outcome: Outcome,
    pub vendor_code: Option<String>,
    pub vendor_message: Option<String>,
}

/// Returns how the sends among the `most` latest attempts went, as far as they began after `since`.
pub fn recent_sends(since: Timestamp, most: usize) -> Result<RecentSends, IsLocked> {
    let ((table, _table_lock), (index, _index_lock)) = (locked(c"attempt_record")?, locked(c"attempt_pkey")?);
    let (mut looked, mut sends) = (0, RecentSends::default());
    scan_latest(table, index, [Key::UuidFrom(attempt::ID, first_id_of(since))], |row| {
        looked += 1;
        sends.add(row);
        sends.is_cut = looked == most;
        !sends.is_cut
    });
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
        let provider = row.get(attempt::PROVIDER_ID).filter(|_| is_refused);
        // The latest come first.
        let is_first = |provider: &Identity| self.refusals.iter().all(|known| known.provider != *provider);
        if let Some(provider) = provider.filter(is_first) {
            let (vendor_code, vendor_message) = (row.get(attempt::VENDOR_CODE), row.get(attempt::VENDOR_MESSAGE));
            self.refusals.push(Refusal { provider, outcome, vendor_code, vendor_message });
        }
        self.since = row.time(attempt::STARTED_AT);
    }
}

/// Returns the breakers that have opened and not closed since, each with its server.
pub fn open_breakers() -> Result<Vec<(pg_sys::Oid, OpenBreaker)>, IsLocked> {
    let mut found = Vec::new();
    scan_all(c"breaker", |row| {
        found.extend(breakers::account(row).zip(breakers::read(row)).map(|((server, _), open)| (server, open)));
    })?;
    Ok(found)
}

/// Returns what converts too seldom, each with its provider's name, as the provider is called now.
pub fn low_conversions(now: Timestamp) -> Result<Vec<(String, LowConversion)>, IsLocked> {
    let mut found = Vec::new();
    scan_all(c"low_conversion", |row| found.extend(ranges::low_conversion(row).filter(|low| low.until > now)))?;
    let names = if found.is_empty() { HashMap::new() } else { names()? };
    Ok(found.into_iter().filter_map(|low| Some((names.get(&low.provider)?.clone(), low))).collect())
}

/// Returns what providers, routes and roles are called now; nothing is to be said of those that were dropped.
pub fn names() -> Result<HashMap<Identity, String>, IsLocked> {
    let mut names = HashMap::new();
    scan_all(c"identity", |row| {
        let is_there = row.get::<pg_sys::Oid>(identity::OBJECT).is_some();
        let named = row.get::<Identity>(identity::ID).zip(row.get::<String>(identity::NAME));
        names.extend(named.filter(|_| is_there));
    })?;
    Ok(names)
}

/// Returns the ids of the keys that this database needs.
pub fn needed_keys() -> Result<Vec<String>, IsLocked> {
    let mut needed = Vec::new();
    scan_all(c"sealing_key", |row| needed.extend(row.get::<String>(sealing_key::ID)))?;
    Ok(needed)
}

/// Calls `each` with every row of a small table.
fn scan_all(table: &CStr, each: impl FnMut(Row)) -> Result<(), IsLocked> {
    let (table, _lock) = locked(table)?;
    scan_table(table, By::Table, [], each);
    Ok(())
}

fn locked(name: &CStr) -> Result<(pg_sys::Oid, ReadLock), IsLocked> {
    let relation = of_extension(name).ok_or(IsLocked)?;
    Ok((relation, ReadLock::at_once(relation).ok_or(IsLocked)?))
}
