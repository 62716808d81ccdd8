//! What a worker says of itself in shared memory, for `otp_gateway.health`: written by the worker alone, read without a
//! lock and without asking it.

use std::sync::atomic::{
    AtomicI64,
    Ordering::{Relaxed, SeqCst},
};

use policy::{Micros, Timestamp};

use crate::pg::clock::{SinceBoot, clock, since_boot};

/// In a database's entry of the registry. All-zero says nothing.
#[repr(C)]
pub struct Report {
    /// When it came up (by Postgres' clock).
    began_at: AtomicI64,
    /// Since when (by [`since_boot`]) it has been at work on one round; 0: it sleeps.
    busy_since: AtomicI64,
    /// Since when (by [`since_boot`]) there is something that it cannot put on record; 0: there is nothing.
    held_up_since: AtomicI64,
    /// How many queued sends may go now, and how many wait for another try or for their provider.
    ready: AtomicI64,
    parked: AtomicI64,
    /// When the oldest of those that may go was enqueued; 0: there is none.
    oldest_ready_at: AtomicI64,
    /// When the oldest verification on record began; 0: it has not looked.
    oldest_kept_at: AtomicI64,
    /// When that one is to be deleted.
    purge_due_at: AtomicI64,
}

/// What stands in line in a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    pub ready: usize,
    pub parked: usize,
    pub oldest_ready_at: Option<Timestamp>,
}

impl Report {
    // The worker's part.

    /// It has come up, and knows nothing yet.
    pub fn begin(&self) {
        for field in [
            &self.held_up_since,
            &self.ready,
            &self.parked,
            &self.oldest_ready_at,
            &self.oldest_kept_at,
            &self.purge_due_at,
        ] {
            field.store(0, Relaxed);
        }
        self.began_at.store(clock().0, Relaxed);
        self.works();
    }

    /// It begins another round.
    pub fn works(&self) {
        self.busy_since.store(since_boot().0, SeqCst);
    }

    pub fn sleeps(&self) {
        self.busy_since.store(0, SeqCst);
    }

    /// Whether a lock, or a full disk, keeps something from being put on record.
    pub fn is_held_up(&self, held_up: bool) {
        match (held_up, self.held_up_since.load(Relaxed)) {
            (false, _) => self.held_up_since.store(0, Relaxed),
            (true, 0) => self.held_up_since.store(since_boot().0, Relaxed),
            (true, _) => {}
        }
    }

    pub fn queue(&self, queue: QueueReport) {
        self.ready.store(queue.ready as i64, Relaxed);
        self.parked.store(queue.parked as i64, Relaxed);
        self.oldest_ready_at.store(queue.oldest_ready_at.map_or(0, |at| at.0), Relaxed);
    }

    pub fn oldest_kept(&self, at: Timestamp, kept_for: Micros) {
        self.oldest_kept_at.store(at.0, Relaxed);
        self.purge_due_at.store((at + kept_for).0, Relaxed);
    }

    // The reader's.

    pub fn began_at(&self) -> Option<Timestamp> {
        time(&self.began_at)
    }

    pub fn busy_since(&self) -> Option<SinceBoot> {
        instant(&self.busy_since)
    }

    pub fn held_up_since(&self) -> Option<SinceBoot> {
        instant(&self.held_up_since)
    }

    pub fn queued(&self) -> QueueReport {
        let count = |of: &AtomicI64| usize::try_from(of.load(Relaxed)).unwrap_or(0);
        QueueReport {
            ready: count(&self.ready),
            parked: count(&self.parked),
            oldest_ready_at: time(&self.oldest_ready_at),
        }
    }

    /// When the oldest verification on record began, and when it is to be deleted.
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
