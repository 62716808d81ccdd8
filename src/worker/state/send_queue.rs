//! The queued sends of this database, by provider: the ids alone, so that a long queue takes little memory; the
//! requests stay in the table until their turn. One line for each provider, so that a slow one holds up nobody else;
//! and in a line the roles take turns, so that a role with many sends does not hold up the others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use policy::{Micros, Timestamp};
use uuid::Uuid;

use crate::{
    ipc::worker_report::QueueReport,
    store::{identity::Identity, queue::Snapshot},
};

/// How many sends of one line have their turn in one transaction, at most.
const BATCH: usize = 128;
/// How many empty lines are kept, for what is known of their providers.
const EMPTY_LINES: usize = 256;

#[derive(Default)]
pub struct SendQueue {
    lines: HashMap<Identity, Line>,
    /// The snapshot of the last look: the next look asks for what that one could not see.
    pub seen: Option<Snapshot>,
    /// What was queued before the first look is read in pages, the latest first: sends before this transaction and id
    /// are not read yet.
    pub unread: Option<(u64, Uuid)>,
}

#[derive(Default)]
struct Line {
    /// The sends of each role in this line.
    roles: BTreeMap<Identity, Share>,
    /// The role that had the last turn.
    last: Option<Identity>,
    /// No send has its turn before this time: the provider's breaker is open, or the provider is paused.
    paused_until: Option<Timestamp>,
    /// The provider's max_in_flight, as it was at the last turn; None: there was no turn yet, and one call is tried.
    places: Option<usize>,
}

#[derive(Default)]
struct Share {
    /// Sends whose turn it is as soon as there is room, the oldest first (ids are time-ordered), and when they were
    /// enqueued.
    ready: BTreeMap<Uuid, Timestamp>,
    /// Sends that wait to be tried again: when that is due, and when they were enqueued.
    waiting: BTreeMap<Uuid, (Timestamp, Timestamp)>,
    due: BTreeSet<(Timestamp, Uuid)>,
}

/// Calls under way that count for a line.
#[derive(Clone, Copy, Default)]
pub struct UnderWay {
    pub queued: usize,
    /// Calls of sessions, including those that wait for one of the provider's places.
    pub immediate: usize,
}

/// A send in line: whose it is, and since when.
#[derive(Clone, Copy)]
pub struct DueSend {
    /// A provider, or a route, and the role that enqueued, whatever they are called now.
    pub provider: Identity,
    pub role: Identity,
    pub id: Uuid,
    pub created_at: Timestamp,
}

impl SendQueue {
    pub fn knows(&self, provider: Identity, role: Identity, id: Uuid) -> bool {
        let share = self.lines.get(&provider).and_then(|line| line.roles.get(&role));
        share.is_some_and(|share| share.ready.contains_key(&id) || share.waiting.contains_key(&id))
    }

    pub fn is_empty(&self) -> bool {
        self.unread.is_none() && self.lines.values().all(|line| line.roles.is_empty())
    }

    /// Adds a send to its line; a send that is in line already stays where it is.
    pub fn add(&mut self, provider: Identity, role: Identity, id: Uuid, created_at: Timestamp) {
        if !self.knows(provider, role, id) {
            self.share(provider, role).ready.insert(id, created_at);
        }
    }

    pub fn put_back(&mut self, turn: &DueSend) {
        self.add(turn.provider, turn.role, turn.id, turn.created_at);
    }

    /// Has a send wait until `due`, to be tried again then.
    pub fn wait(&mut self, turn: &DueSend, due: Timestamp) {
        let share = self.share(turn.provider, turn.role);
        share.waiting.insert(turn.id, (due, turn.created_at));
        share.due.insert((due, turn.id));
    }

    /// Sets how many calls the provider bears at once.
    pub fn set_places(&mut self, provider: Identity, places: u32) {
        self.line(provider).places = Some(places as usize);
    }

    /// Forgets how many calls each provider bears, and which are left alone, since somebody has changed an option of a
    /// provider: the next turn shows both anew.
    pub fn options_changed(&mut self) {
        self.lines.values_mut().for_each(|line| (line.places, line.paused_until) = (None, None));
    }

    /// Leaves the provider alone until this time.
    pub fn pause(&mut self, provider: Identity, until: Timestamp) {
        self.line(provider).paused_until = Some(until);
    }

    pub fn resume(&mut self, provider: Identity) {
        if let Some(line) = self.lines.get_mut(&provider) {
            line.paused_until = None;
        }
    }

    /// Takes the sends that have their turn now: those that are too old, and, unless all is paused, of each line as
    /// many as it has room for.
    pub fn take(
        &mut self,
        now: Timestamp,
        max_age: Micros,
        is_paused: bool,
        under_way: impl Fn(Identity) -> UnderWay,
    ) -> Vec<DueSend> {
        let mut turns = Vec::new();
        for (&provider, line) in &mut self.lines {
            line.roles.values_mut().for_each(|share| share.wake(now));
            line.paused_until.take_if(|until| *until <= now);
            let mut room = if is_paused || line.paused_until.is_some() { 0 } else { line.room(under_way(provider)) };
            for _ in 0..BATCH {
                let Some((role, id, created_at)) = line.next(room > 0, now - max_age) else { break };
                room = room.saturating_sub(1);
                turns.push(DueSend { provider, role, id, created_at });
            }
        }
        let mut empty = 0;
        self.lines.retain(|_, line| {
            empty += usize::from(line.roles.is_empty());
            !line.roles.is_empty() || empty <= EMPTY_LINES
        });
        turns
    }

    /// Returns how many sends stand in line, for whoever looks from outside. The sends of a provider that is left alone
    /// count as parked, and while all is paused, all.
    pub fn reports(&self, is_paused: bool) -> impl Iterator<Item = (Identity, QueueReport)> {
        self.lines.iter().map(move |(provider, line)| (*provider, line.report(is_paused)))
    }

    /// Returns when there is something to do though no call ends: the next retry, the end of a pause, or the next send
    /// that grows too old.
    pub fn next_due(&self, max_age: Micros) -> Option<Timestamp> {
        let next_of = |line: &Line| {
            let of_share = |share: &Share| {
                let retry = share.due.first().map(|(due, _)| *due);
                let too_old = share.ready.first_key_value().map(|(_, created_at)| *created_at + max_age);
                let resumed = line.paused_until.filter(|_| !share.ready.is_empty());
                [retry, too_old, resumed].into_iter().flatten().min()
            };
            line.roles.values().filter_map(of_share).min()
        };
        self.lines.values().filter_map(next_of).min()
    }

    fn line(&mut self, provider: Identity) -> &mut Line {
        self.lines.entry(provider).or_default()
    }

    fn share(&mut self, provider: Identity, role: Identity) -> &mut Share {
        self.line(provider).roles.entry(role).or_default()
    }
}

impl Line {
    fn report(&self, is_paused: bool) -> QueueReport {
        let mut report = QueueReport::default();
        for share in self.roles.values() {
            report.parked += share.waiting.len();
            if is_paused || self.paused_until.is_some() {
                report.parked += share.ready.len();
                continue;
            }
            report.ready += share.ready.len();
            let oldest = share.ready.first_key_value().map(|(_, created_at)| *created_at);
            report.oldest_ready_at = [report.oldest_ready_at, oldest].into_iter().flatten().min();
        }
        report
    }

    /// Returns how many sends may go: as many as places are free; and, however many sessions wait for a place, as many
    /// as fill half of the places (at least one). The HTTP client gives places in the order in which they were asked
    /// for, so that neither starves the other.
    fn room(&self, under_way: UnderWay) -> usize {
        let Some(places) = self.places else { return usize::from(under_way.queued == 0) };
        let free = places.saturating_sub(under_way.queued + under_way.immediate);
        free.max(places.div_ceil(2).saturating_sub(under_way.queued))
    }

    /// Takes the next send of the role whose turn it is, if there is room, else one that was enqueued by `too_old`.
    fn next(&mut self, has_room: bool, too_old: Timestamp) -> Option<(Identity, Uuid, Timestamp)> {
        let may = |share: &Share| {
            share.ready.first_key_value().is_some_and(|(_, created_at)| has_room || *created_at <= too_old)
        };
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut round = self.roles.range((after, Bound::Unbounded)).chain(&self.roles);
        let role = round.find(|(_, share)| may(share)).map(|(role, _)| *role)?;
        let share = self.roles.get_mut(&role)?;
        let (id, created_at) = share.ready.pop_first()?;
        if share.ready.is_empty() && share.waiting.is_empty() {
            self.roles.remove(&role);
        }
        if has_room {
            self.last = Some(role);
        }
        Some((role, id, created_at))
    }
}

impl Share {
    fn wake(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.pop_first();
            if let Some((_, created_at)) = self.waiting.remove(&id) {
                self.ready.insert(id, created_at);
            }
        }
    }
}
