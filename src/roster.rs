//! Which databases have a worker. A session that finds none asks the launcher for one; who leaves frees the entry.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use pgrx::pg_sys;

use crate::{
    process::ProcessNumber,
    shared_memory::{self, SpinLock},
};

/// Where a database's entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// No worker, and none asked for.
    Free = 0,
    /// A session asks the launcher for a worker.
    Wanted = 1,
    /// The launcher has registered one.
    Starting = 2,
    Running = 3,
    /// The launcher could not register one: no free place in max_worker_processes.
    NoPlace = 4,
    /// The worker ended by an error; the launcher starts another after a pause.
    Crashed = 5,
}

#[repr(C)]
struct Entry {
    database: AtomicU32,
    stage: AtomicU32,
    process: AtomicU32,
    /// The worker shall let go of the database: somebody drops, renames or copies it.
    leave: AtomicU32,
    /// A transaction that enqueued has committed since the worker looked last.
    queued: AtomicU32,
    /// A key was added since the worker looked last.
    new_key: AtomicU32,
    /// A server or role was renamed or dropped since the worker looked last.
    identities: AtomicU32,
}

#[repr(C)]
struct Roster {
    lock: SpinLock,
    /// 1 + the launcher's process number; 0: there is none yet.
    launcher: AtomicU32,
    entries: [Entry; ENTRIES],
}

/// More databases with a worker than this make no sense with any sensible max_worker_processes.
const ENTRIES: usize = 256;

pub const fn size() -> usize {
    size_of::<Roster>()
}

fn roster() -> &'static Roster {
    // SAFETY: the memory is ours for the life of the server, zeroed at first, and made of atomics alone.
    unsafe { &*shared_memory::roster().cast::<Roster>() }
}

impl Entry {
    fn stage(&self) -> Stage {
        match self.stage.load(SeqCst) {
            1 => Stage::Wanted,
            2 => Stage::Starting,
            3 => Stage::Running,
            4 => Stage::NoPlace,
            5 => Stage::Crashed,
            _ => Stage::Free,
        }
    }
}

fn find(database: pg_sys::Oid) -> Option<&'static Entry> {
    roster()
        .entries
        .iter()
        .find(|entry| entry.stage() != Stage::Free && entry.database.load(SeqCst) == database.to_u32())
}

/// The stage of a database's worker.
pub fn stage(database: pg_sys::Oid) -> Stage {
    find(database).map_or(Stage::Free, Entry::stage)
}

/// Puts a database at a stage, in a new entry if it has none. False: the roster is full.
pub fn set(database: pg_sys::Oid, stage: Stage) -> bool {
    let _held = roster().lock.hold();
    let entry = find(database).or_else(|| roster().entries.iter().find(|entry| entry.stage() == Stage::Free));
    let Some(entry) = entry else { return false };
    entry.database.store(database.to_u32(), SeqCst);
    if stage == Stage::Running {
        entry.process.store(ProcessNumber::mine().0, SeqCst);
    }
    if stage != Stage::Running {
        entry.leave.store(0, SeqCst);
    }
    entry.stage.store(stage as u32, SeqCst);
    true
}

/// Every database at that stage.
pub fn at(stage: Stage) -> Vec<pg_sys::Oid> {
    roster()
        .entries
        .iter()
        .filter(|entry| entry.stage() == stage)
        .map(|entry| pg_sys::Oid::from(entry.database.load(SeqCst)))
        .collect()
}

/// Wakes the worker of a database, if it has one. Cannot fail: a transaction callback may call it.
pub fn wake(database: pg_sys::Oid) -> bool {
    match find(database) {
        Some(entry) if entry.stage() == Stage::Running => {
            ProcessNumber(entry.process.load(SeqCst)).wake();
            true
        }
        _ => false,
    }
}

/// Tells the worker of a database that a transaction which enqueued has committed. Cannot fail: a transaction callback
/// calls it.
pub fn tell_of_queued(database: pg_sys::Oid) {
    if let Some(entry) = find(database) {
        entry.queued.store(1, SeqCst);
    }
    // One that is yet to come looks at its start.
    if !wake(database) {
        ask_for(database);
    }
}

/// Whether there may be something new in the queue of this database; asked once.
pub fn was_told_of_queued(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| entry.queued.swap(0, SeqCst) != 0)
}

/// Tells the workers of all other databases that a key was added; one that is yet to come looks at its start.
pub fn tell_others_of_new_key(mine: pg_sys::Oid) {
    for database in at(Stage::Running).into_iter().filter(|database| *database != mine) {
        if let Some(entry) = find(database) {
            entry.new_key.store(1, SeqCst);
        }
        wake(database);
    }
}

/// Tells the worker of a database that a server or role was renamed or dropped. Cannot fail: a transaction callback calls it.
pub fn tell_of_identities(database: pg_sys::Oid) {
    if let Some(entry) = find(database) {
        entry.identities.store(1, SeqCst);
    }
    // One that is yet to come looks at its start.
    wake(database);
}

/// The workers of all databases: roles are the cluster's. Cannot fail: a transaction callback calls it.
pub fn tell_all_of_identities() {
    for entry in roster().entries.iter().filter(|entry| entry.stage() == Stage::Running) {
        tell_of_identities(pg_sys::Oid::from(entry.database.load(SeqCst)));
    }
}

/// Whether a server or role was renamed or dropped; asked once.
pub fn was_told_of_identities(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| entry.identities.swap(0, SeqCst) != 0)
}

/// Whether a key was added; asked once.
pub fn was_told_of_new_key(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| entry.new_key.swap(0, SeqCst) != 0)
}

/// Asks for a worker and wakes the launcher. False: the roster is full.
pub fn ask_for(database: pg_sys::Oid) -> bool {
    let asked = match stage(database) {
        Stage::Free | Stage::NoPlace => set(database, Stage::Wanted),
        _ => true,
    };
    wake_launcher();
    asked
}

/// Asks the worker of a database to let go of it. False: there is none.
pub fn ask_to_leave(database: pg_sys::Oid) -> bool {
    match find(database) {
        Some(entry) => {
            entry.leave.store(1, SeqCst);
            wake(database);
            true
        }
        None => false,
    }
}

/// Whether somebody wants the worker of this database gone.
pub fn asked_to_leave(database: pg_sys::Oid) -> bool {
    find(database).is_some_and(|entry| entry.leave.load(SeqCst) != 0)
}

/// This process is the launcher.
pub fn i_am_launcher() {
    roster().launcher.store(ProcessNumber::mine().0 + 1, SeqCst);
}

pub fn wake_launcher() {
    match roster().launcher.load(SeqCst) {
        0 => {}
        number => ProcessNumber(number - 1).wake(),
    }
}
