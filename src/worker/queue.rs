//! What is queued in this database, by provider: the ids alone, so that a long queue takes little memory; the letters
//! stay in the table until their turn. One line for each provider, so that a slow one holds up nobody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use policy::Micros;
use uuid::Uuid;

/// How many of one line have their turn in one transaction at most.
const BATCH: usize = 128;

#[derive(Default)]
pub struct Queue {
    lines: HashMap<String, Line>,
    /// Where the next look at the table begins: no transaction below this number can commit any more.
    pub horizon: u64,
}

#[derive(Default)]
struct Line {
    /// Those whose turn it is as soon as there is room, the oldest first (ids are time-ordered), and when they were
    /// enqueued.
    ready: BTreeMap<Uuid, Micros>,
    /// Those that wait to be tried again: when, and when they were enqueued.
    waiting: BTreeMap<Uuid, (Micros, Micros)>,
    due: BTreeSet<(Micros, Uuid)>,
    /// Nobody has a turn before: the provider's breaker is open.
    paused_until: Option<Micros>,
    /// The provider's max_in_flight, as it was at the last turn.
    places: usize,
}

impl Queue {
    pub fn knows(&self, provider: &str, id: Uuid) -> bool {
        self.lines.get(provider).is_some_and(|line| line.ready.contains_key(&id) || line.waiting.contains_key(&id))
    }

    pub fn is_empty(&self) -> bool {
        self.lines.values().all(|line| line.ready.is_empty() && line.waiting.is_empty())
    }

    /// In line; one that is there already stays where it is.
    pub fn add(&mut self, provider: &str, id: Uuid, created_at: Micros) {
        if !self.knows(provider, id) {
            self.line(provider).ready.insert(id, created_at);
        }
    }

    /// To be tried again, but not before `due`.
    pub fn wait(&mut self, provider: &str, id: Uuid, created_at: Micros, due: Micros) {
        let line = self.line(provider);
        line.waiting.insert(id, (due, created_at));
        line.due.insert((due, id));
    }

    /// How many calls the provider bears at once; until it is known, one is tried.
    pub fn set_places(&mut self, provider: &str, places: u32) {
        self.line(provider).places = places as usize;
    }

    /// Leaves the provider alone until then.
    pub fn pause(&mut self, provider: &str, until: Micros) {
        self.line(provider).paused_until = Some(until);
    }

    pub fn resume(&mut self, provider: &str) {
        if let Some(line) = self.lines.get_mut(provider) {
            line.paused_until = None;
        }
    }

    /// Takes those that have their turn now: too old ones, and of each line as many as it has room for.
    pub fn take(&mut self, now: Micros, max_age: Micros, in_flight: &HashMap<String, usize>) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (provider, line) in &mut self.lines {
            line.wake(now);
            line.paused_until.take_if(|until| *until <= now);
            let room = if line.paused_until.is_some() {
                0
            } else {
                line.places.max(1).saturating_sub(in_flight.get(provider).copied().unwrap_or(0))
            };
            for number in 0..BATCH {
                let turn = line
                    .ready
                    .first_entry()
                    .filter(|first| number < room || first.get().saturating_add(max_age) <= now);
                let Some(turn) = turn else { break };
                let (id, created_at) = turn.remove_entry();
                turns.push(Turn { provider: provider.clone(), id, created_at });
            }
        }
        self.lines.retain(|_, line| !line.ready.is_empty() || !line.waiting.is_empty());
        turns
    }

    /// When there is something to do though no call ends: the next retry, or the next one that grows too old.
    pub fn next_due(&self, max_age: Micros) -> Option<Micros> {
        let next_of = |line: &Line| {
            let retry = line.due.first().map(|(due, _)| *due);
            let too_old = line.ready.first_key_value().map(|(_, created_at)| created_at.saturating_add(max_age));
            let resumed = line.paused_until.filter(|_| !line.ready.is_empty());
            [retry, too_old, resumed].into_iter().flatten().min()
        };
        self.lines.values().filter_map(next_of).min()
    }

    fn line(&mut self, provider: &str) -> &mut Line {
        self.lines.entry(provider.to_owned()).or_default()
    }
}

impl Line {
    fn wake(&mut self, now: Micros) {
        while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.pop_first();
            if let Some((_, created_at)) = self.waiting.remove(&id) {
                self.ready.insert(id, created_at);
            }
        }
    }
}

/// One that has its turn.
pub struct Turn {
    pub provider: String,
    pub id: Uuid,
    pub created_at: Micros,
}
