//! A slot, and the states through which session and worker move it (ARCHITECTURE.md, 7).

use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst},
};

use zeroize::Zeroize;

use crate::{
    ipc::{
        segment::{self, Part},
        spin_lock::{self, SpinLock},
    },
    pg::{
        clock::{SinceBoot, since_boot},
        process::ProcessNumber,
    },
};

/// How many bytes of a request a slot holds at once: most requests fit.
pub const CHUNK: usize = 8192 - 64;

/// Who has to act on a slot, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SlotState {
    /// Nobody waits at this slot.
    Idle = 0,
    /// The worker has to take this part of a request.
    Request = 1,
    /// The session has to write the next part of its request.
    RequestMore = 2,
    /// The session has to write its request from the start: a new worker has nothing of it.
    Restart = 3,
    /// The worker has the whole request.
    Accepted = 4,
    /// The session has to take this part of the response.
    Response = 5,
    /// The worker has to write the next part of the response.
    ResponseMore = 6,
}

#[repr(C)]
pub struct Slot {
    lock: SpinLock,
    /// Tells one call through this slot from the next.
    call: AtomicU64,
    database: AtomicU32,
    /// When the call began.
    began: AtomicI64,
    /// The pid of the process whose transaction has called us, else 0. It serves the server's log, in which other
    /// processes quote what this process was running.
    caller: AtomicU32,
    /// How many bytes of `data` hold a part; below, whether the part is the first and the last.
    length: AtomicU32,
    first: AtomicU32,
    last: AtomicU32,
    attempt: UnsafeCell<[u8; 16]>,
    data: UnsafeCell<[u8; CHUNK]>,
}

// SAFETY: the cells are read and written under `lock` alone, the rest is atomic.
unsafe impl Sync for Slot {}

/// A slot whose lock this process holds.
pub struct Locked<'a> {
    slot: &'a Slot,
    _held: spin_lock::Held<'a>,
}

/// Where the slots are in shared memory.
pub static SLOTS: Part = Part::new(|| segment::max_processes() * size_of::<Slot>());

/// Returns all slots, by process number.
pub fn slots() -> &'static [Slot] {
    // SAFETY: the memory is ours for the life of the server, as long as SLOTS asked for, and zeroed at first.
    unsafe { std::slice::from_raw_parts(SLOTS.base().cast::<Slot>(), segment::max_processes()) }
}

/// The states of all slots, side by side: the worker looks at each of them in each of its rounds, and the slots lie
/// pages apart.
pub static STATES: Part = Part::new(|| segment::max_processes() * size_of::<AtomicU32>());

fn states() -> &'static [AtomicU32] {
    // SAFETY: the memory is ours for the life of the server, as long as STATES asked for, and zeroed at first.
    unsafe { std::slice::from_raw_parts(STATES.base().cast::<AtomicU32>(), segment::max_processes()) }
}

/// The slots that a worker, of whichever database, has something to take from or to give to: a look without the locks.
pub fn for_workers() -> impl Iterator<Item = (u32, &'static Slot)> {
    let is_for_worker =
        |state: &AtomicU32| matches!(SlotState::of(state.load(SeqCst)), SlotState::Request | SlotState::ResponseMore);
    let all = slots().iter().zip(states()).enumerate();
    all.filter(move |(_, (_, state))| is_for_worker(state)).map(|(number, (slot, _))| (number as u32, slot))
}

/// Notes that the transaction of this process has called us or, with `false`, that it has ended. Cannot fail: a
/// transaction callback calls it.
pub fn mark_caller(calls: bool) {
    if let Some(slot) = slots().get(ProcessNumber::mine().0 as usize) {
        slot.caller.store(if calls { std::process::id() } else { 0 }, SeqCst);
    }
}

/// Returns the pids of the processes whose transaction has called us.
pub fn caller_pids() -> impl Iterator<Item = u32> {
    slots().iter().map(|slot| slot.caller.load(SeqCst)).filter(|pid| *pid != 0)
}

/// Wakes every session that waits for the worker of a database. Cannot fail: an exit callback calls it.
pub fn wake_waiting(database: u32) {
    for (number, slot) in slots().iter().enumerate() {
        if slot.database() == database && slot.state() != SlotState::Idle {
            ProcessNumber(number as u32).wake();
        }
    }
}

/// Returns how many calls the worker of a database has not taken up yet, and when the first of them began.
pub fn untaken(database: u32) -> (usize, Option<SinceBoot>) {
    let is_untaken = |slot: &&Slot| slot.state() == SlotState::Request && slot.database() == database;
    let began = slots().iter().filter(is_untaken).map(|slot| SinceBoot(slot.began.load(SeqCst)));
    began.fold((0, None), |(count, first), began| {
        (count + 1, Some(first.map_or(began, |first: SinceBoot| first.min(began))))
    })
}

impl SlotState {
    fn of(number: u32) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::RequestMore,
            3 => Self::Restart,
            4 => Self::Accepted,
            5 => Self::Response,
            6 => Self::ResponseMore,
            _ => Self::Idle,
        }
    }
}

impl Slot {
    /// Returns the state without taking the lock: it has to be confirmed under the lock.
    pub fn state(&self) -> SlotState {
        SlotState::of(self.state_word().load(SeqCst))
    }

    /// In the place of its number.
    fn state_word(&self) -> &'static AtomicU32 {
        let from = std::ptr::from_ref(self).addr() - SLOTS.base().addr();
        &states()[from / size_of::<Self>()]
    }

    pub fn database(&self) -> u32 {
        self.database.load(SeqCst)
    }

    pub fn lock(&self) -> Locked<'_> {
        Locked { _held: self.lock.hold(), slot: self }
    }
}

impl Locked<'_> {
    pub fn state(&self) -> SlotState {
        self.slot.state()
    }

    pub fn call(&self) -> u64 {
        self.slot.call.load(SeqCst)
    }

    pub fn attempt(&self) -> [u8; 16] {
        // SAFETY: under the lock.
        unsafe { *self.slot.attempt.get() }
    }

    pub fn set_state(&self, state: SlotState) {
        self.slot.state_word().store(state as u32, SeqCst);
    }

    /// Begins a new call, whatever the state of the slot, and returns its number.
    pub fn reset(&self, database: u32, attempt: [u8; 16]) -> u64 {
        self.wipe();
        self.slot.database.store(database, SeqCst);
        self.slot.began.store(since_boot().0, SeqCst);
        // SAFETY: under the lock.
        unsafe { *self.slot.attempt.get() = attempt };
        self.slot.call.fetch_add(1, SeqCst) + 1
    }

    /// Writes the part of `whole` that begins at `from` into the slot, and returns where the next part begins.
    pub fn write_chunk(&self, whole: &[u8], from: usize) -> usize {
        let part = &whole[from..whole.len().min(from + CHUNK)];
        // SAFETY: under the lock.
        unsafe { (&mut *self.slot.data.get())[..part.len()].copy_from_slice(part) };
        self.slot.length.store(part.len() as u32, SeqCst);
        self.slot.first.store(u32::from(from == 0), SeqCst);
        self.slot.last.store(u32::from(from + part.len() == whole.len()), SeqCst);
        from + part.len()
    }

    /// Returns whether the part is the first of its request or response.
    pub fn is_first(&self) -> bool {
        self.slot.first.load(SeqCst) == 1
    }

    /// Appends the part to `whole`, or begins `whole` anew with a first part; wipes the slot. Returns whether it was
    /// the last part.
    pub fn read_chunk(&self, whole: &mut Vec<u8>) -> bool {
        if self.is_first() {
            whole.zeroize();
        }
        let length = (self.slot.length.load(SeqCst) as usize).min(CHUNK);
        // SAFETY: under the lock.
        whole.extend_from_slice(unsafe { &(&*self.slot.data.get())[..length] });
        self.wipe();
        self.slot.last.load(SeqCst) == 1
    }

    /// Overwrites the part in the slot.
    pub fn wipe(&self) {
        let length = (self.slot.length.swap(0, SeqCst) as usize).min(CHUNK);
        // SAFETY: under the lock. In shared memory no compiler can leave these writes out.
        unsafe { (&mut *self.slot.data.get())[..length].fill(0) };
    }
}
