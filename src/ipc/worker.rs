//! The worker's end of the slots: it collects requests and gives responses.

use std::collections::HashMap;

use zeroize::Zeroizing;

use crate::{
    ipc::slot::{Locked, SlotState, for_workers, slots},
    pg::process::ProcessNumber,
};

/// Names the call that a response is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    slot: u32,
    call: u64,
}

impl CallId {
    /// A call that no session waits for: a response to it goes nowhere.
    pub const NONE: Self = Self { slot: u32::MAX, call: 0 };
}

pub struct Received {
    pub call_id: CallId,
    pub request: Zeroizing<Vec<u8>>,
}

/// A call whose request was taken by a worker that is gone.
#[derive(Clone, Copy)]
pub struct Orphaned {
    pub call_id: CallId,
    pub attempt: [u8; 16],
}

/// The requests that have come in part, and the responses that have gone in part.
pub struct WorkerEnd {
    database: u32,
    requests: HashMap<u32, (u64, Zeroizing<Vec<u8>>)>,
    responses: HashMap<u32, (u64, Zeroizing<Vec<u8>>, usize)>,
    /// Calls that a worker before this one took and did not answer, or not to the end.
    orphaned: Vec<Orphaned>,
    /// Whose responses are there, and who are woken together; None: each at once.
    to_wake: Option<Vec<u32>>,
}

impl WorkerEnd {
    pub fn new(database: u32) -> Self {
        Self { database, requests: HashMap::new(), responses: HashMap::new(), orphaned: Vec::new(), to_wake: None }
    }

    /// Finds the calls that a worker before this one took and never answered; requests that it had in part are asked
    /// for again.
    pub fn adopt_orphans(&mut self) {
        for (number, slot) in slots().iter().enumerate().filter(|(_, slot)| slot.database() == self.database) {
            let locked = slot.lock();
            if slot.database() != self.database {
                continue;
            }
            match locked.state() {
                SlotState::RequestMore => {
                    locked.set_state(SlotState::Restart);
                    wake(locked, number as u32);
                }
                SlotState::Accepted | SlotState::ResponseMore => self.orphaned.push(Orphaned {
                    call_id: CallId { slot: number as u32, call: locked.call() },
                    attempt: locked.attempt(),
                }),
                _ => {}
            }
        }
    }

    /// Returns the calls whose worker is gone and whose sessions still wait: those that were found at the start, and
    /// those that ask for the rest of their response. Each stays until it is answered or its session has gone.
    pub fn orphaned(&mut self) -> Vec<Orphaned> {
        self.orphaned.retain(|orphan| {
            slots().get(orphan.call_id.slot as usize).is_some_and(|slot| {
                let locked = slot.lock();
                locked.call() == orphan.call_id.call
                    && matches!(locked.state(), SlotState::Accepted | SlotState::ResponseMore)
            })
        });
        self.orphaned.clone()
    }

    /// Answers every session that waits in this database, wherever its request is.
    pub fn answer_all(&self, response: &[u8]) {
        for (number, slot) in slots().iter().enumerate().filter(|(_, slot)| slot.database() == self.database) {
            let locked = slot.lock();
            if slot.database() == self.database && !matches!(locked.state(), SlotState::Idle | SlotState::Response) {
                locked.wipe();
                locked.write_chunk(response, 0);
                locked.set_state(SlotState::Response);
                wake(locked, number as u32);
            }
        }
    }

    /// Returns every request that has come whole since the last time.
    pub fn collect(&mut self) -> Vec<Received> {
        let mut received = Vec::new();
        let database = self.database;
        for (number, slot) in for_workers().filter(|(_, slot)| slot.database() == database) {
            let locked = slot.lock();
            // Meanwhile the process may be another, in another database.
            if slot.database() != database {
                continue;
            }
            match locked.state() {
                SlotState::Request => received.extend(self.receive(locked, number)),
                SlotState::ResponseMore => self.send_more(locked, number),
                _ => {}
            }
        }
        received
    }

    /// Takes the part of a request that is in the slot. Returns the request if that was its last part.
    fn receive(&mut self, locked: Locked, number: u32) -> Option<Received> {
        let call = locked.call();
        let (of, request) = self.requests.entry(number).or_default();
        if *of != call {
            (*of, *request) = (call, Zeroizing::default());
            // The parts before this one went to the worker before this one.
            if !locked.is_first() {
                locked.wipe();
                locked.set_state(SlotState::Restart);
                wake(locked, number);
                return None;
            }
        }
        if locked.read_chunk(request) {
            locked.set_state(SlotState::Accepted);
            let (_, request) = self.requests.remove(&number)?;
            return Some(Received { call_id: CallId { slot: number, call }, request });
        }
        locked.set_state(SlotState::RequestMore);
        wake(locked, number);
        None
    }

    /// Puts the next part of a response into the slot.
    fn send_more(&mut self, locked: Locked, number: u32) {
        let call = locked.call();
        let Some((_, response, from)) = self.responses.get_mut(&number).filter(|(of, ..)| *of == call) else {
            // The slot stays in this state until the call is answered.
            let call_id = CallId { slot: number, call };
            if !self.orphaned.iter().any(|orphan| orphan.call_id == call_id) {
                self.orphaned.push(Orphaned { call_id, attempt: locked.attempt() });
            }
            return;
        };
        *from = locked.write_chunk(response, *from);
        if *from == response.len() {
            self.responses.remove(&number);
        }
        locked.set_state(SlotState::Response);
        wake(locked, number);
    }

    /// Returns whether the session of a call that was taken still waits for its end.
    pub fn waits(&self, call_id: CallId) -> bool {
        slots().get(call_id.slot as usize).is_some_and(|slot| {
            let locked = slot.lock();
            locked.call() == call_id.call && matches!(locked.state(), SlotState::Accepted | SlotState::ResponseMore)
        })
    }

    /// Puts the response into the slot, or drops it if the session has gone.
    pub fn respond(&mut self, call_id: CallId, response: Zeroizing<Vec<u8>>) {
        let Some(slot) = slots().get(call_id.slot as usize) else { return };
        let locked = slot.lock();
        // An orphaned call is answered in whatever state its old worker left the slot.
        if locked.call() != call_id.call || !matches!(locked.state(), SlotState::Accepted | SlotState::ResponseMore) {
            return;
        }
        let next = locked.write_chunk(&response, 0);
        locked.set_state(SlotState::Response);
        if next < response.len() {
            self.responses.insert(call_id.slot, (call_id.call, response, next));
        }
        match &mut self.to_wake {
            Some(to_wake) => to_wake.push(call_id.slot),
            None => wake(locked, call_id.slot),
        }
    }

    /// From here on responses are only put down: who is woken is likely to run at once, in the place of us who have the
    /// others' to put down yet.
    pub fn hold_wakes(&mut self) {
        self.to_wake = Some(Vec::new());
    }

    /// Wakes all those who have been given responses meanwhile.
    pub fn wake_held(&mut self) {
        for slot in self.to_wake.take().into_iter().flatten() {
            ProcessNumber(slot).wake();
        }
    }
}

/// Wakes a session. The slot is unlocked first: a process that wakes is likely to run at once, in place of this
/// process, which would still hold the lock.
fn wake(locked: Locked, number: u32) {
    drop(locked);
    ProcessNumber(number).wake();
}
