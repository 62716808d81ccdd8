//! A worker's report on itself in shared memory, for `otp_gateway.health`: written by the worker alone, and read
//! without a lock and without asking the worker.

use std::sync::atomic::{
    AtomicI64,
    Ordering::{Relaxed, SeqCst},
};

use policy::{Micros, Timestamp};

use crate::pg::{
    clock::{SinceBoot, clock, since_boot},
    process::pid,
};

/// The report in a database's entry of the registry. If all of it is zero, nothing is reported.
#[repr(C)]
pub struct Report {
    /// When the worker came up, by Postgres' clock.
    began_at: AtomicI64,
    /// Since when, by [`since_boot`], the worker has been at work on one round; 0: it sleeps.
    busy_since: AtomicI64,
    /// Since when, by [`since_boot`], there is something that the worker cannot put on record; 0: there is nothing.
    held_up_since: AtomicI64,
    /// Since when, by [`since_boot`], calls are refused because nothing can be put on record, 0: they are not; below,
    /// when the last one was.
    refuses_since: AtomicI64,
    refused_at: AtomicI64,
    /// How many queued sends may go now; below, how many wait for another try or for their provider.
    ready: AtomicI64,
    parked: AtomicI64,
    /// When the oldest of those that may go was enqueued; 0: there is none.
    oldest_ready_at: AtomicI64,
    /// When the oldest verification on record began; 0: the worker has not looked.
    oldest_kept_at: AtomicI64,
    /// When the oldest verification is to be deleted.
    purge_due_at: AtomicI64,
    pid: AtomicI64,
    /// How many calls are under way; below, how many ends are not on record yet.
    in_flight: AtomicI64,
    unrecorded: AtomicI64,
    /// When the worker last put something on record.
    committed_at: AtomicI64,
    /// The place of the worker's long chore in [`Chore::ALL`] plus 1; 0: it is at none. Below, how much of the chore is
    /// done, since when, and when its last part was.
    chore: AtomicI64,
    chore_done: AtomicI64,
    chore_since: AtomicI64,
    chore_at: AtomicI64,
}

/// A piece of work that takes long, and is done in parts between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// The worker looks for what an earlier worker left in flight.
    Recovery,
    /// The worker reads what was queued before.
    Queue,
    /// The worker looks at what is sealed, and when it is to be erased.
    Seals,
    Purge,
    Forget,
    Reseal,
}

impl Chore {
    pub const ALL: [Self; 6] = [Self::Recovery, Self::Queue, Self::Seals, Self::Purge, Self::Forget, Self::Reseal];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Queue => "reading the queue",
            Self::Seals => "reading seals",
            Self::Purge => "purge",
            Self::Forget => "forget",
            Self::Reseal => "resealing",
        }
    }
}

/// If the last part of a chore was longer ago than this, nobody goes on with it.
const ABANDONED: Micros = 10_000_000;
/// If the last call that was refused was longer ago than this, nobody knows whether the next one would be.
const FORGOTTEN: Micros = 60_000_000;

/// The queued sends of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    pub ready: usize,
    pub parked: usize,
    pub oldest_ready_at: Option<Timestamp>,
}

impl QueueReport {
    /// Adds the sends of another line.
    pub fn and(self, other: Self) -> Self {
        Self {
            ready: self.ready + other.ready,
            parked: self.parked + other.parked,
            oldest_ready_at: [self.oldest_ready_at, other.oldest_ready_at].into_iter().flatten().min(),
        }
    }
}

impl Report {
    // Written by the worker.

    /// Notes that the worker has come up, and knows nothing yet.
    pub fn begin(&self) {
        for field in [
            &self.held_up_since,
            &self.refuses_since,
            &self.ready,
            &self.parked,
            &self.oldest_ready_at,
            &self.oldest_kept_at,
            &self.purge_due_at,
            &self.in_flight,
            &self.unrecorded,
            &self.committed_at,
            &self.chore,
            &self.chore_at,
        ] {
            field.store(0, Relaxed);
        }
        self.pid.store(pid().into(), Relaxed);
        self.began_at.store(clock().0, Relaxed);
        self.works();
    }

    /// Notes that the worker begins another round.
    pub fn works(&self) {
        self.busy_since.store(since_boot().0, SeqCst);
    }

    pub fn sleeps(&self) {
        self.busy_since.store(0, SeqCst);
    }

    /// Notes whether a lock, or a full disk, keeps something from being put on record.
    pub fn is_held_up(&self, held_up: bool) {
        match (held_up, self.held_up_since.load(Relaxed)) {
            (false, _) => self.held_up_since.store(0, Relaxed),
            (true, 0) => self.held_up_since.store(since_boot().0, Relaxed),
            (true, _) => {}
        }
    }

    /// Notes since when calls are refused because nothing can be put on record, and when the last one was.
    pub fn refuses(&self, times: Option<(SinceBoot, SinceBoot)>) {
        let (since, last) = times.map_or((0, 0), |(since, last)| (since.0, last.0));
        self.refused_at.store(last, SeqCst);
        self.refuses_since.store(since, SeqCst);
    }

    pub fn queue(&self, queue: QueueReport) {
        self.ready.store(queue.ready as i64, Relaxed);
        self.parked.store(queue.parked as i64, Relaxed);
        self.oldest_ready_at.store(queue.oldest_ready_at.map_or(0, |at| at.0), Relaxed);
    }

    pub fn calls(&self, in_flight: usize, unrecorded: usize) {
        self.in_flight.store(in_flight as i64, Relaxed);
        self.unrecorded.store(unrecorded as i64, Relaxed);
    }

    pub fn commits(&self, at: Timestamp) {
        self.committed_at.store(at.0, Relaxed);
    }

    /// Notes that a part of a chore is done, and how much more of it.
    pub fn works_at(&self, chore: Chore, done: u64) {
        let (place, now) =
            (Chore::ALL.iter().position(|one| *one == chore).map_or(0, |place| place as i64 + 1), clock());
        if self.chore.swap(place, Relaxed) != place || now.since(Timestamp(self.chore_at.load(Relaxed))) > ABANDONED {
            self.chore_done.store(0, Relaxed);
            self.chore_since.store(now.0, Relaxed);
        }
        self.chore_done.fetch_add(done.cast_signed(), Relaxed);
        self.chore_at.store(now.0, Relaxed);
    }

    /// Notes that a chore is done.
    pub fn is_done_with(&self, chore: Chore) {
        if self.chore().is_some_and(|(at, ..)| at == chore) {
            self.chore.store(0, Relaxed);
        }
    }

    pub fn oldest_kept(&self, at: Timestamp, kept_for: Micros) {
        self.oldest_kept_at.store(at.0, Relaxed);
        self.purge_due_at.store((at + kept_for).0, Relaxed);
    }

    // Read by others.

    pub fn pid(&self) -> i64 {
        self.pid.load(Relaxed)
    }

    /// Returns how many calls are under way, and how many ends are not on record yet.
    pub fn call_counts(&self) -> (i64, i64) {
        (self.in_flight.load(Relaxed), self.unrecorded.load(Relaxed))
    }

    pub fn committed_at(&self) -> Option<Timestamp> {
        time(&self.committed_at)
    }

    /// Returns the worker's chore, how much of it is done, and since when; None if it is at none.
    pub fn chore(&self) -> Option<(Chore, i64, Timestamp)> {
        let place = usize::try_from(self.chore.load(Relaxed)).ok()?.checked_sub(1)?;
        let chore = Chore::ALL.get(place).copied()?;
        let is_abandoned = clock().since(time(&self.chore_at)?) > ABANDONED;
        (!is_abandoned).then(|| (chore, self.chore_done.load(Relaxed), time(&self.chore_since).unwrap_or_default()))
    }

    pub fn began_at(&self) -> Option<Timestamp> {
        time(&self.began_at)
    }

    pub fn busy_since(&self) -> Option<SinceBoot> {
        instant(&self.busy_since)
    }

    pub fn held_up_since(&self) -> Option<SinceBoot> {
        instant(&self.held_up_since)
    }

    /// Returns since when calls are refused because nothing can be put on record.
    pub fn refuses_since(&self) -> Option<SinceBoot> {
        let since = instant(&self.refuses_since)?;
        instant(&self.refused_at).filter(|last| since_boot().since(*last) < FORGOTTEN).map(|_| since)
    }

    pub fn queued(&self) -> QueueReport {
        let count = |of: &AtomicI64| usize::try_from(of.load(Relaxed)).unwrap_or(0);
        QueueReport {
            ready: count(&self.ready),
            parked: count(&self.parked),
            oldest_ready_at: time(&self.oldest_ready_at),
        }
    }

    /// Returns when the oldest verification on record began, and when it is to be deleted.
    pub fn oldest_kept_at(&self) -> Option<(Timestamp, Timestamp)> {
        time(&self.oldest_kept_at).zip(time(&self.purge_due_at))
    }
}

fn time(of: &AtomicI64) -> Option<Timestamp> {
    Some(of.load(Relaxed)).filter(|at| *at != 0).map(Timestamp)
}

fn instant(of: &AtomicI64) -> Option<SinceBoot> {
    Some(of.load(SeqCst)).filter(|at| *at != 0).map(SinceBoot)
}
