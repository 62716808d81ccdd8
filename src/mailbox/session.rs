//! The session's side: put a letter down, sleep on the latch, take the reply.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;
use policy::Micros;
use zeroize::Zeroizing;

use super::slot::{Slot, Turn, slots};
use crate::{
    ledger::clock,
    misuse::Misuse,
    process::{self, ProcessNumber},
    roster::{self, Stage},
};

/// How often a waiting session looks whether its worker is there at all, in milliseconds.
const LOOK_AFTER_WORKER: i64 = 1000;

/// Hands the letter to this database's worker and waits for the reply. Interrupts end the wait at once: the worker goes
/// on with what it has taken. None: `until` came first.
pub fn send(letter: &[u8], attempt: [u8; 16], until: Option<Micros>) -> Result<Option<Zeroizing<Vec<u8>>>, Misuse> {
    give_up_at_exit();
    let slot = my_slot();
    let open = Open { slot };
    // SAFETY: a plain variable, set when the session connected.
    let database = unsafe { pg_sys::MyDatabaseId };

    let mut sent;
    {
        let locked = slot.lock();
        locked.begin(database.to_u32(), attempt);
        sent = locked.put(letter, 0);
        locked.give(Turn::Letter);
    }
    let mut reply = Zeroizing::new(Vec::new());
    loop {
        {
            let locked = slot.lock();
            match locked.turn() {
                Turn::NextOfLetter | Turn::Again => {
                    let from = if locked.turn() == Turn::Again { 0 } else { sent };
                    sent = locked.put(letter, from);
                    locked.give(Turn::Letter);
                }
                Turn::Reply => {
                    if locked.take(&mut reply) {
                        drop(locked);
                        drop(open);
                        return Ok(Some(reply));
                    }
                    locked.give(Turn::NextOfReply);
                }
                Turn::Idle | Turn::Letter | Turn::Taken | Turn::NextOfReply => {}
            }
        }
        // A letter that was taken needs no waking, but it does need a worker.
        let has_worker = match slot.turn() {
            Turn::Taken | Turn::Reply => roster::stage(database) != Stage::Free,
            _ => roster::wake(database),
        };
        if !has_worker {
            start_worker(database)?;
        }
        let left = until.map_or(LOOK_AFTER_WORKER, |until| (until - clock()).div_euclid(1000) + 1);
        if left <= 0 {
            return Ok(None);
        }
        process::wait(left.min(LOOK_AFTER_WORKER));
    }
}

/// Sees to it that a worker comes, or says why none can.
fn start_worker(database: pg_sys::Oid) -> Result<(), Misuse> {
    if roster::stage(database) == Stage::NoPlace {
        roster::ask_for(database);
        return Err(Misuse::limit(
            "no background worker could be started for this database; nothing was sent",
            "Raise max_worker_processes (one for each database with the extension, and one more) and restart the server.",
        ));
    }
    if !roster::ask_for(database) {
        return Err(Misuse::limit(
            "too many databases use the extension; nothing was sent",
            "Drop the extension in a database that does not need it.",
        ));
    }
    Ok(())
}

fn my_slot() -> &'static Slot {
    &slots()[ProcessNumber::mine().0 as usize]
}

/// A call under way; dropped, by return or by error, it takes the slot back.
struct Open {
    slot: &'static Slot,
}

impl Drop for Open {
    fn drop(&mut self) {
        take_back(self.slot);
    }
}

fn take_back(slot: &Slot) {
    let locked = slot.lock();
    locked.begin(0, [0; 16]);
    locked.give(Turn::Idle);
}

/// A FATAL error (terminate, shutdown) leaves by proc_exit without unwinding: the slot is taken back there.
fn give_up_at_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn at_exit(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
        take_back(my_slot());
    }

    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: on the main thread; the callback runs while shared memory is still attached.
        unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) };
    }
}
