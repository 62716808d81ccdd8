//! The worker's end of the statistics: only the worker writes its database's numbers.

use std::{
    collections::HashMap,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use dialect::Operation;
use policy::{Micros, Timestamp, is_fault};

use super::{DatabaseSlot, Kind, ProviderSlot, ProviderState, TAKEN, add, key, statistics};
use crate::{
    pg::clock::clock,
    store::{
        counted::{BOUNDS, EndedAttempt},
        identity::Identity,
    },
};

pub struct Counters {
    database: u32,
    own: Option<&'static DatabaseSlot>,
    providers: HashMap<Identity, &'static ProviderSlot>,
    /// The OIDs of the foreign servers, as far as they are known.
    servers: HashMap<Identity, u32>,
}

impl Counters {
    /// Returns the counters of a database, with what earlier workers have counted.
    pub fn open(database: u32) -> Self {
        let slots = statistics().map_or(&[][..], |statistics| &statistics.providers);
        let own = slots.iter().filter(|slot| slot.database.load(Acquire) == database);
        let providers = own.map(|slot| (slot.provider.load(Relaxed), slot)).collect();
        Self { database, own: None, providers, servers: HashMap::new() }
    }

    /// Counts that a worker begins.
    pub fn begin(&mut self) {
        if let Some(own) = self.own() {
            own.version.write(|| add(&own.starts, 1));
        }
    }

    /// Returns the slot of the database as a whole; None if there is no place.
    fn own(&mut self) -> Option<&'static DatabaseSlot> {
        if self.own.is_none() {
            let slots = statistics().map_or(&[][..], |statistics| &statistics.databases);
            let found = slots.iter().find(|slot| slot.database.load(Acquire) == self.database);
            self.own = found.or_else(|| {
                let slot = slots.iter().find(|slot| take(&slot.database))?;
                slot.version.write(|| {
                    slot.clear(clock());
                    slot.database.store(self.database, Release);
                });
                Some(slot)
            });
        }
        self.own
    }

    fn provider(&mut self, provider: Identity) -> Option<&'static ProviderSlot> {
        if let Some(known) = self.providers.get(&provider) {
            return Some(known);
        }
        let slots = statistics().map_or(&[][..], |statistics| &statistics.providers);
        let slot = slots.iter().find(|slot| take(&slot.database))?;
        let server = self.servers.get(&provider).copied();
        slot.version.write(|| {
            slot.clear(clock());
            slot.stand(&ProviderState::default());
            slot.provider.store(provider, Relaxed);
            slot.server.store(server.unwrap_or(0), Relaxed);
            slot.database.store(self.database, Release);
        });
        self.providers.insert(provider, slot);
        Some(slot)
    }

    /// Learns the foreign servers of providers and routes.
    pub fn learn(&mut self, servers: impl Iterator<Item = (Identity, u32)>) {
        self.servers.extend(servers);
        for (provider, slot) in &self.providers {
            slot.server.store(self.servers.get(provider).copied().unwrap_or(0), Relaxed);
        }
    }

    /// Counts attempts whose end is on record.
    pub fn count(&mut self, ended: &[EndedAttempt]) {
        for attempt in ended {
            let slot = self.provider(attempt.begun.provider_id);
            let mut has_place = false;
            if let Some(slot) = slot {
                slot.version.write(|| has_place = slot.count(attempt));
            }
            if let Some(own) = self.own().filter(|_| !has_place) {
                own.version.write(|| {
                    add(&own.other_attempts, 1);
                    add(&own.other_time, attempt.took.unwrap_or(0).cast_unsigned());
                });
            }
        }
    }

    /// Writes the present state of each provider and route; those that `states` does not name have nothing under way.
    pub fn stand(&mut self, states: &HashMap<Identity, ProviderState>) {
        let has_something = |state: &ProviderState| state.in_flight + state.queue.ready + state.queue.parked > 0;
        for (provider, _) in states.iter().filter(|(_, state)| has_something(state)) {
            self.provider(*provider);
        }
        for (provider, slot) in &self.providers {
            let state = states.get(provider).copied().unwrap_or_default();
            slot.version.write(|| slot.stand(&state));
        }
    }

    /// Counts the attempts that an earlier worker left in flight and that have become `unknown`.
    pub fn recovered(&mut self, attempts: usize) {
        if let Some(own) = self.own().filter(|_| attempts > 0) {
            own.version.write(|| add(&own.recovered, attempts as u64));
        }
    }

    /// Sets the numbers to zero: all (None), or those of these providers.
    pub fn reset(&mut self, providers: Option<&[Identity]>) {
        let now = clock();
        for (_, slot) in self.providers.iter().filter(|(of, _)| providers.is_none_or(|some| some.contains(of))) {
            slot.version.write(|| slot.clear(now));
        }
        if let Some(own) = self.own().filter(|_| providers.is_none()) {
            own.version.write(|| own.clear(now));
        }
    }

    /// Gives back the places of providers that are no more.
    pub fn retain(&mut self, is_there: impl Fn(Identity) -> bool) {
        self.providers.retain(|provider, slot| {
            let stays = is_there(*provider);
            if !stays {
                slot.free();
            }
            stays
        });
    }

    /// Gives back all places, because the extension is dropped.
    pub fn give_up(&mut self) {
        self.retain(|_| false);
        if let Some(own) = self.own.take() {
            own.free();
        }
    }
}

/// Gives back the places of databases that are no more; nobody is connected to them.
pub fn free_dropped(is_there: impl Fn(u32) -> bool) {
    let Some(statistics) = statistics() else { return };
    // The workers of all databases hear of a drop at once, and one alone gives back a place.
    let is_mine_to_free = |of: &AtomicU32| {
        let database = of.load(Acquire);
        database != 0
            && database != TAKEN
            && !is_there(database)
            && of.compare_exchange(database, TAKEN, AcqRel, Relaxed).is_ok()
    };
    statistics.providers.iter().filter(|slot| is_mine_to_free(&slot.database)).for_each(ProviderSlot::free);
    statistics.databases.iter().filter(|slot| is_mine_to_free(&slot.database)).for_each(DatabaseSlot::free);
}

fn take(database: &AtomicU32) -> bool {
    database.load(Relaxed) == 0 && database.compare_exchange(0, TAKEN, AcqRel, Relaxed).is_ok()
}

impl DatabaseSlot {
    fn clear(&self, now: Timestamp) {
        for count in [&self.other_attempts, &self.other_time, &self.starts, &self.recovered] {
            count.store(0, Relaxed);
        }
        self.reset_at.store(now.0, Relaxed);
    }

    fn free(&self) {
        self.version.write(|| self.database.store(TAKEN, Relaxed));
        self.database.store(0, Release);
    }
}

impl ProviderSlot {
    /// Sets what was counted to zero; the slot stays its provider's.
    fn clear(&self, now: Timestamp) {
        let zero = |of: &AtomicU64| of.store(0, Relaxed);
        self.latency.iter().flatten().for_each(zero);
        self.latency_time.iter().for_each(zero);
        [&self.consecutive_failures, &self.verifications, &self.converted].into_iter().for_each(zero);
        for at in [&self.last_success_at, &self.last_failure_at, &self.failing_since, &self.certificate_ends_at] {
            at.store(0, Relaxed);
        }
        self.last_failure.store(0, Relaxed);
        self.code.put(None);
        self.words.put(None);
        for kind in &self.kinds {
            kind.key.store(0, Relaxed);
        }
        self.reset_at.store(now.0, Relaxed);
    }

    fn free(&self) {
        self.version.write(|| self.database.store(TAKEN, Relaxed));
        self.database.store(0, Release);
    }

    fn stand(&self, state: &ProviderState) {
        self.in_flight.store(state.in_flight as u64, Relaxed);
        self.ready.store(state.queue.ready as u64, Relaxed);
        self.parked.store(state.queue.parked as u64, Relaxed);
        self.oldest_ready_at.store(state.queue.oldest_ready_at.map_or(0, |at| at.0), Relaxed);
        self.limit_used.store(state.limit_used.map_or(0, |used| 1 + (used * 1e6) as u64), Relaxed);
    }

    /// Returns the place of attempts of this kind; None if there are too many kinds.
    fn kind(&self, key: u32) -> Option<&Kind> {
        let place = self.kinds.iter().find(|kind| [0, key].contains(&kind.key.load(Relaxed)))?;
        if place.key.load(Relaxed) == 0 {
            place.count.store(0, Relaxed);
            place.time.store(0, Relaxed);
            place.key.store(key, Relaxed);
        }
        Some(place)
    }

    /// Counts an attempt, within a `Version::write`. Returns false if it has no place here.
    fn count(&self, attempt: &EndedAttempt) -> bool {
        let operation = attempt.begun.operation;
        let Some(kind) = self.kind(key(operation, attempt.outcome, attempt.begun.reason)) else { return false };
        add(&kind.count, 1);
        kind.last_at.store(attempt.ended_at.0, Relaxed);
        if let Some(took) = attempt.took {
            add(&kind.time, took.cast_unsigned());
            self.took(operation, took);
        }
        if attempt.begun.cohort.is_counted {
            add(&self.verifications, attempt.sends_first_code().into());
            add(&self.converted, attempt.converts().into());
        }
        if let Some(at) = attempt.certificate_ends_at {
            self.certificate_ends_at.store(at.0, Relaxed);
        }
        if attempt.tells_of_provider {
            self.hear(attempt);
        }
        true
    }

    fn took(&self, operation: Operation, took: Micros) {
        let Some(place) = Operation::ALL.iter().position(|one| *one == operation) else { return };
        add(&self.latency[place][BOUNDS.partition_point(|bound| *bound < took)], 1);
        add(&self.latency_time[place], took.cast_unsigned());
    }

    /// Notes what an attempt tells of the provider.
    fn hear(&self, attempt: &EndedAttempt) {
        let at = attempt.ended_at.0;
        if !is_fault(attempt.outcome) {
            self.last_success_at.store(at, Relaxed);
            self.failing_since.store(0, Relaxed);
            self.consecutive_failures.store(0, Relaxed);
            return;
        }
        self.last_failure_at.store(at, Relaxed);
        add(&self.consecutive_failures, 1);
        if self.failing_since.load(Relaxed) == 0 {
            self.failing_since.store(at, Relaxed);
        }
        self.last_failure.store(key(Operation::Send, attempt.outcome, None) >> 8, Relaxed);
        let (code, words) =
            attempt.words.as_ref().map_or((None, None), |(code, words)| (code.as_deref(), words.as_deref()));
        self.code.put(code);
        self.words.put(words);
    }
}
