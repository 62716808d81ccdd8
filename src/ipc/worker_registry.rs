//! The registry: which databases have a worker, or want one. A session that finds no worker asks the launcher for one;
//! a worker that leaves says when it is needed next, and a worker that dies says why, so that whoever waits for it
//! hears of that.

use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicI64, AtomicU32, Ordering::SeqCst},
};

use pgrx::pg_sys;
use policy::{Micros, Timestamp};

use crate::{
    ipc::{segment::Part, slot, spin_lock::SpinLock, worker_report::Report},
    pg::{
        clock::{SinceBoot, since_boot},
        database,
        process::ProcessNumber,
    },
};

/// The state of a database's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WorkerState {
    /// There is no worker, and none was asked for.
    Free = 0,
    /// A session, or a commit, asks the launcher for a worker.
    Wanted = 1,
    /// The launcher has registered a worker.
    Starting = 2,
    /// The worker is connected to its database.
    Running = 3,
    /// A worker is wanted, and there is no place for it: the launcher tries again.
    NoPlace = 4,
    /// The worker ended by an error; the launcher starts another after a pause.
    Crashed = 5,
    /// The worker left for want of work; the launcher notes when there will be work again.
    Left = 6,
}

/// Why a worker has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitReason {
    /// Somebody renames, moves or copies the database.
    Database = 1,
    /// The database or the extension is dropped, and the record with it: nothing is worth waiting for.
    Dropped = 2,
    /// Another database needs the worker's place; the worker leaves only if it is idle.
    Idle = 3,
}

/// The longest text, in bytes, that says why there is no worker.
pub const REASON: usize = 240;

#[repr(C)]
pub struct Entry {
    database: AtomicU32,
    state: AtomicU32,
    process: AtomicU32,
    /// Tells one start from the next: a worker that comes up late finds out that another one is meant.
    start: AtomicU32,
    /// Why the worker has to let go of the database; 0: it need not.
    leave: AtomicU32,
    /// Whether a transaction that enqueued has committed since the worker looked last.
    queued: AtomicU32,
    /// Since when, by [`since_boot`], the first of these transactions waits for the worker to look; 0: none does.
    queued_since: AtomicI64,
    /// Whether a key was added since the worker looked last.
    new_key: AtomicU32,
    /// Whether a server or role was renamed or dropped since the worker looked last.
    identities: AtomicU32,
    /// How many times in a row the worker has died.
    crashes: AtomicU32,
    /// Whether somebody has asked for a worker since the launcher last started one.
    asked: AtomicU32,
    reason_length: AtomicU32,
    /// Since when, by [`since_boot`], the worker has had nothing to do; 0: it has something.
    idle_since: AtomicI64,
    /// When, by Postgres' clock, the worker that left has something to do again; 0: never.
    due: AtomicI64,
    reason: UnsafeCell<[u8; REASON]>,
    /// The worker's report on itself.
    report: Report,
}

#[repr(C)]
pub struct Registry {
    lock: SpinLock,
    /// The launcher's process number plus 1; 0: there is no launcher.
    launcher: AtomicU32,
    /// How many times in a row a launcher has begun soon after the one before.
    launches: AtomicU32,
    /// Whether every database is to be visited once.
    visit: AtomicU32,
    /// Whether a database waits for a place.
    awaited: AtomicU32,
    /// When, by [`since_boot`], the latest launcher began; 0: none ever did.
    launched_at: AtomicI64,
    entries: [Entry; ENTRIES],
}

// SAFETY: the cells are read and written under the registry's lock alone, the rest is atomic.
unsafe impl Sync for Registry {}

/// The most databases that can have a worker at once: more make no sense with any sensible max_worker_processes.
pub const ENTRIES: usize = 256;

/// Where the registry is in shared memory.
pub static REGISTRY: Part = Part::new(size_of::<Registry>);

pub fn registry() -> &'static Registry {
    // SAFETY: the memory is ours for the life of the server, zeroed at first, which is the empty state of all of it.
    unsafe { &*REGISTRY.base().cast::<Registry>() }
}

impl Entry {
    fn state(&self) -> WorkerState {
        match self.state.load(SeqCst) {
            1 => WorkerState::Wanted,
            2 => WorkerState::Starting,
            3 => WorkerState::Running,
            4 => WorkerState::NoPlace,
            5 => WorkerState::Crashed,
            6 => WorkerState::Left,
            _ => WorkerState::Free,
        }
    }

    fn put(&self, state: WorkerState) {
        self.state.store(state as u32, SeqCst);
    }

    fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.database.load(SeqCst))
    }

    /// Sets the text that says why there is no worker. Under the registry's lock.
    fn set_reason(&self, reason: &str) {
        let mut end = reason.len().min(REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        // SAFETY: the caller holds the lock.
        unsafe { (&mut *self.reason.get())[..end].copy_from_slice(&reason.as_bytes()[..end]) };
        self.reason_length.store(end as u32, SeqCst);
    }
}

pub fn find(database: pg_sys::Oid) -> Option<&'static Entry> {
    registry().entries.iter().find(|entry| entry.state() != WorkerState::Free && entry.oid() == database)
}

/// Returns the entry of a database, a new one if it has none. Returns None if the registry is full. Under the
/// registry's lock.
pub fn entry(database: pg_sys::Oid) -> Option<&'static Entry> {
    if let Some(found) = find(database) {
        return Some(found);
    }
    let new = registry().entries.iter().find(|entry| entry.state() == WorkerState::Free)?;
    new.database.store(database.to_u32(), SeqCst);
    for field in [&new.leave, &new.queued, &new.new_key, &new.crashes, &new.asked, &new.reason_length] {
        field.store(0, SeqCst);
    }
    new.queued_since.store(0, SeqCst);
    new.idle_since.store(0, SeqCst);
    new.due.store(0, SeqCst);
    Some(new)
}

/// Returns the state of a database's worker.
pub fn state_of(database: pg_sys::Oid) -> WorkerState {
    find(database).map_or(WorkerState::Free, Entry::state)
}

/// Returns whether a worker is connected to the database, or may be about to be.
pub fn is_there(database: pg_sys::Oid) -> bool {
    matches!(state_of(database), WorkerState::Starting | WorkerState::Running)
}

/// Returns the report of a database's worker; while there is none, the last report of the worker before. Returns None
/// if the database has no entry.
pub fn report_of(database: pg_sys::Oid) -> Option<&'static Report> {
    find(database).map(|entry| &entry.report)
}

/// Puts a database into a state, in a new entry if it has none. Returns false if the registry is full.
pub fn set(database: pg_sys::Oid, state: WorkerState) -> bool {
    let _held = registry().lock.hold();
    let Some(entry) = entry(database) else { return false };
    entry.leave.store(0, SeqCst);
    entry.put(state);
    true
}

/// Returns every database that has a worker, or wants one.
pub fn known() -> Vec<pg_sys::Oid> {
    registry().entries.iter().filter(|entry| entry.state() != WorkerState::Free).map(Entry::oid).collect()
}

/// Returns every database in that state.
pub fn at(state: WorkerState) -> Vec<pg_sys::Oid> {
    registry().entries.iter().filter(|entry| entry.state() == state).map(Entry::oid).collect()
}

/// The status of a database that has no worker.
pub struct WorkerStatus {
    pub state: WorkerState,
    /// How many times in a row its worker has died.
    pub crashes: u32,
    /// Why there is no worker, as far as somebody said so.
    pub reason: String,
}

pub fn status_of(database: pg_sys::Oid) -> WorkerStatus {
    let _held = registry().lock.hold();
    let Some(entry) = find(database) else {
        return WorkerStatus { state: WorkerState::Free, crashes: 0, reason: String::new() };
    };
    let length = (entry.reason_length.load(SeqCst) as usize).min(REASON);
    // SAFETY: under the lock.
    let reason = unsafe { &(&*entry.reason.get())[..length] };
    WorkerStatus {
        state: entry.state(),
        crashes: entry.crashes.load(SeqCst),
        reason: String::from_utf8_lossy(reason).into_owned(),
    }
}

// Called by the launcher.

/// Notes that the launcher registers a worker, and returns the number by which the worker will know that it is meant.
/// Returns None if the registry is full.
pub fn starting(database: pg_sys::Oid) -> Option<u32> {
    let _held = registry().lock.hold();
    let entry = entry(database)?;
    entry.leave.store(0, SeqCst);
    entry.asked.store(0, SeqCst);
    entry.idle_since.store(0, SeqCst);
    entry.put(WorkerState::Starting);
    Some(entry.start.fetch_add(1, SeqCst).wrapping_add(1))
}

/// Notes that there is no place for a worker now.
pub fn no_place(database: pg_sys::Oid, reason: &str) {
    let _held = registry().lock.hold();
    if let Some(entry) = entry(database) {
        entry.set_reason(reason);
        entry.put(WorkerState::NoPlace);
    }
}

/// Returns how many times in a row the worker of a database has died, and whether somebody has asked for one since the
/// last start.
pub fn crashes(database: pg_sys::Oid) -> (u32, bool) {
    find(database).map_or((0, false), |entry| (entry.crashes.load(SeqCst), entry.asked.load(SeqCst) != 0))
}

/// Returns the databases whose worker has left, and when each is due; their entries are free afterwards.
pub fn take_left() -> Vec<(pg_sys::Oid, Option<Timestamp>)> {
    let _held = registry().lock.hold();
    let left = registry().entries.iter().filter(|entry| entry.state() == WorkerState::Left);
    left.map(|entry| {
        let due = entry.due.load(SeqCst);
        entry.put(WorkerState::Free);
        (entry.oid(), Some(due).filter(|due| *due != 0).map(Timestamp))
    })
    .collect()
}

/// Asks the workers that have been idle for longest to leave: `most` of them, less those that have been asked already.
/// Returns how many leave.
pub fn request_idle_exit(most: usize) -> usize {
    let running = || registry().entries.iter().filter(|entry| entry.state() == WorkerState::Running);
    let leaving = running().filter(|entry| entry.leave.load(SeqCst) != 0).count();
    let mut idle: Vec<(i64, &Entry)> = running()
        .filter(|entry| entry.leave.load(SeqCst) == 0)
        .map(|entry| (entry.idle_since.load(SeqCst), entry))
        .filter(|(since, _)| *since != 0)
        .collect();
    idle.sort_by_key(|(since, _)| *since);
    idle.truncate(most.saturating_sub(leaving));
    for (_, entry) in &idle {
        // The request of somebody who needs the database is not overwritten.
        let _ = entry.leave.compare_exchange(0, ExitReason::Idle as u32, SeqCst, SeqCst);
        wake(entry.oid());
    }
    leaving + idle.len()
}

/// Notes whether a database waits for a place, which a worker that becomes idle could give up.
pub fn await_place(awaited: bool) {
    registry().awaited.store(u32::from(awaited), SeqCst);
}

/// Returns whether every database is to be visited, and resets that.
pub fn take_visit_notice() -> bool {
    registry().visit.swap(0, SeqCst) != 0
}

/// Registers this process as the launcher. Returns how many launchers before it, in a row, lived for less than `soon`.
pub fn launcher_starts(soon: Micros) -> u32 {
    let now = since_boot();
    let before = registry().launched_at.swap(now.0, SeqCst);
    let is_soon = before != 0 && now.since(SinceBoot(before)) < soon;
    let launches = if is_soon { registry().launches.load(SeqCst).saturating_add(1) } else { 0 };
    registry().launches.store(launches, SeqCst);
    registry().launcher.store(ProcessNumber::mine().0 + 1, SeqCst);
    launches
}

/// Notes that the launcher ends.
pub fn launcher_leaves() {
    registry().launcher.store(0, SeqCst);
}

/// Returns whether the launcher is there.
pub fn has_launcher() -> bool {
    registry().launcher.load(SeqCst) != 0
}

/// Returns whether a launcher has ever been there since the server started.
pub fn had_launcher() -> bool {
    registry().launched_at.load(SeqCst) != 0
}

// Called by the worker.

/// Registers this process as the worker that the launcher started by this number. Returns false if another worker is
/// meant.
pub fn claim(database: pg_sys::Oid, start: u32) -> bool {
    let _held = registry().lock.hold();
    let Some(entry) = find(database) else { return false };
    let is_meant = entry.state() == WorkerState::Starting && entry.start.load(SeqCst) == start;
    if is_meant {
        entry.process.store(ProcessNumber::mine().0, SeqCst);
    }
    is_meant
}

/// Notes that the worker is connected, and takes requests.
pub fn runs(database: pg_sys::Oid) {
    let _held = registry().lock.hold();
    if let Some(entry) = find(database) {
        entry.asked.store(0, SeqCst);
        entry.report.begin();
        entry.put(WorkerState::Running);
    }
}

/// Notes since when the worker has had nothing to do; None: it has something. If somebody waits for a place, the
/// launcher is woken.
pub fn idle_since(database: pg_sys::Oid, since: Option<SinceBoot>) {
    let Some(entry) = find(database) else { return };
    let before = entry.idle_since.swap(since.map_or(0, |since| since.0), SeqCst);
    if before == 0 && since.is_some() && registry().awaited.load(SeqCst) != 0 {
        wake_launcher();
    }
}

/// Notes that the worker has died. Cannot fail: an exit callback calls it.
pub fn crashed(database: pg_sys::Oid, reason: &str, again: bool) {
    {
        let _held = registry().lock.hold();
        let Some(entry) = find(database) else { return };
        entry.set_reason(reason);
        entry.leave.store(0, SeqCst);
        let crashes = if again { entry.crashes.load(SeqCst).saturating_add(1) } else { 1 };
        entry.crashes.store(crashes, SeqCst);
        entry.put(WorkerState::Crashed);
    }
    tell(database);
}

/// Notes that the worker has left in order, and has something to do at `due`. `is_wanted`: another is to come at once.
/// Cannot fail: an exit callback calls it.
pub fn left(database: pg_sys::Oid, due: Option<Timestamp>, is_wanted: bool) {
    {
        let _held = registry().lock.hold();
        let Some(entry) = find(database) else { return };
        entry.crashes.store(0, SeqCst);
        entry.reason_length.store(0, SeqCst);
        entry.leave.store(0, SeqCst);
        entry.due.store(due.map_or(0, |due| due.0), SeqCst);
        entry.put(if is_wanted { WorkerState::Wanted } else { WorkerState::Left });
        // Whoever committed or asked before this has left a notice; whoever does so later finds no worker, and asks for
        // one.
        if entry.queued.load(SeqCst) != 0 || entry.asked.load(SeqCst) != 0 {
            entry.put(WorkerState::Wanted);
        }
    }
    tell(database);
}

/// Wakes those who wait for the worker, so that they ask for another, and the launcher.
pub fn tell(database: pg_sys::Oid) {
    slot::wake_waiting(database.to_u32());
    wake_launcher();
}

/// Returns why somebody wants the worker of this database gone.
pub fn exit_requested(database: pg_sys::Oid) -> Option<ExitReason> {
    match find(database)?.leave.load(SeqCst) {
        1 => Some(ExitReason::Database),
        2 => Some(ExitReason::Dropped),
        3 => Some(ExitReason::Idle),
        _ => None,
    }
}

/// Withdraws the request to leave if idle, because the worker is not idle.
pub fn stays(database: pg_sys::Oid) {
    if let Some(entry) = find(database) {
        let _ = entry.leave.compare_exchange(ExitReason::Idle as u32, 0, SeqCst, SeqCst);
    }
}

/// Returns whether there may be something new in the queue of this database, and resets that.
pub fn take_queued_notice(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| {
        // The time is reset first: a commit in between is noted anew, by a time that is too late rather than never.
        entry.queued_since.store(0, SeqCst);
        entry.queued.swap(0, SeqCst) != 0
    })
}

/// Returns whether a key was added, and resets that.
pub fn take_new_key_notice(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| entry.new_key.swap(0, SeqCst) != 0)
}

// Called by every process.

/// Returns since when a commit that enqueued waits for the worker to look; None if none waits.
pub fn unseen_since(database: pg_sys::Oid) -> Option<SinceBoot> {
    let entry = find(database).filter(|entry| entry.queued.load(SeqCst) != 0)?;
    Some(entry.queued_since.load(SeqCst)).filter(|since| *since != 0).map(SinceBoot)
}

/// Wakes the worker of a database, and returns whether it has one. Cannot fail: a transaction callback may call it.
pub fn wake(database: pg_sys::Oid) -> bool {
    match find(database) {
        Some(entry) if entry.state() == WorkerState::Running => {
            ProcessNumber(entry.process.load(SeqCst)).wake();
            true
        }
        _ => false,
    }
}

/// Tells the worker of this session's database that a transaction which enqueued has committed.
pub fn notify_queued_here() {
    notify_queued(database::current());
}

/// Tells the worker of a database that a transaction which enqueued has committed. Cannot fail: a transaction callback
/// calls it.
pub fn notify_queued(database: pg_sys::Oid) {
    if let Some(entry) = find(database) {
        let _ = entry.queued_since.compare_exchange(0, since_boot().0, SeqCst, SeqCst);
        entry.queued.store(1, SeqCst);
    }
    // A worker that is yet to come looks when it starts.
    if !wake(database) {
        request_worker(database);
    }
}

/// Tells the workers of all other databases that a key was added. A worker that is yet to come looks when it starts;
/// where there is none, the launcher sends one.
pub fn notify_new_key_elsewhere(mine: pg_sys::Oid) {
    for database in at(WorkerState::Running).into_iter().filter(|database| *database != mine) {
        if let Some(entry) = find(database) {
            entry.new_key.store(1, SeqCst);
        }
        wake(database);
    }
    registry().visit.store(1, SeqCst);
    wake_launcher();
}

/// Tells the worker of a database that a server or role was renamed or dropped. Cannot fail: a transaction callback
/// calls it.
pub fn notify_identities(database: pg_sys::Oid) {
    if let Some(entry) = find(database) {
        entry.identities.store(1, SeqCst);
    }
    // A worker that is yet to come looks when it starts.
    wake(database);
}

/// Tells the workers of all databases, because roles are the cluster's. Cannot fail: a transaction callback calls it.
pub fn notify_identities_everywhere() {
    for entry in registry().entries.iter().filter(|entry| entry.state() == WorkerState::Running) {
        notify_identities(pg_sys::Oid::from(entry.database.load(SeqCst)));
    }
}

/// Returns whether a server or role was renamed or dropped, and resets that.
pub fn take_identities_notice(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| entry.identities.swap(0, SeqCst) != 0)
}

/// Asks for a worker, also if one is about to leave, and wakes the launcher. Returns false if the registry is full.
/// Cannot fail otherwise: a transaction callback may call it.
pub fn request_worker(database: pg_sys::Oid) -> bool {
    let asked = {
        let _held = registry().lock.hold();
        entry(database).map(|entry| {
            entry.asked.store(1, SeqCst);
            entry.leave.store(0, SeqCst);
            if matches!(entry.state(), WorkerState::Free | WorkerState::Left) {
                entry.put(WorkerState::Wanted);
            }
        })
    };
    wake_launcher();
    asked.is_some()
}

/// Asks the worker of a database to let go of it. Returns false if there is none.
pub fn request_exit(database: pg_sys::Oid, why: ExitReason) -> bool {
    match find(database) {
        Some(entry) if matches!(entry.state(), WorkerState::Starting | WorkerState::Running) => {
            entry.leave.store(why as u32, SeqCst);
            wake(database);
            true
        }
        _ => false,
    }
}

pub fn wake_launcher() {
    match registry().launcher.load(SeqCst) {
        0 => {}
        number => ProcessNumber(number - 1).wake(),
    }
}

/// How long calls under way may still take when a worker ends, in microseconds; whoever waits for a worker to leave has
/// to allow for that.
pub const GRACE: Micros = 2_000_000;
