//! The worker's side: collect letters, put replies down.

use std::collections::HashMap;

use zeroize::Zeroizing;

use crate::{
    ipc::slot::{Locked, Turn, slots},
    pg::process::ProcessNumber,
};

/// Names the call that a reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    slot: u32,
    call: u64,
}

impl Ticket {
    /// Of a call that no session waits for: a reply to it goes nowhere.
    pub const NOBODY: Self = Self { slot: u32::MAX, call: 0 };
}

pub struct Incoming {
    pub ticket: Ticket,
    pub letter: Zeroizing<Vec<u8>>,
}

/// A call whose letter a worker took that is no more.
#[derive(Clone, Copy)]
pub struct Lost {
    pub ticket: Ticket,
    pub attempt: [u8; 16],
}

/// The letters that have come in part, and the replies that have gone in part.
pub struct WorkerSide {
    database: u32,
    letters: HashMap<u32, (u64, Zeroizing<Vec<u8>>)>,
    replies: HashMap<u32, (u64, Zeroizing<Vec<u8>>, usize)>,
    /// Who has the first part of a reply of a worker that is no more.
    lost: Vec<Lost>,
}

impl WorkerSide {
    pub fn new(database: u32) -> Self {
        Self { database, letters: HashMap::new(), replies: HashMap::new(), lost: Vec::new() }
    }

    /// What a worker before this one took and never answered; letters that it had in part are asked for again.
    pub fn take_over(&mut self) {
        for (number, slot) in slots().iter().enumerate().filter(|(_, slot)| slot.database() == self.database) {
            let locked = slot.lock();
            if slot.database() != self.database {
                continue;
            }
            match locked.turn() {
                Turn::NextOfLetter => {
                    locked.give(Turn::Again);
                    wake(locked, number as u32);
                }
                Turn::Taken | Turn::NextOfReply => self.lost.push(Lost {
                    ticket: Ticket { slot: number as u32, call: locked.call() },
                    attempt: locked.attempt(),
                }),
                _ => {}
            }
        }
    }

    /// Who waits for the answer to a letter that a worker took which is no more: those that were found, and those that
    /// ask for the rest of their reply. Until each is answered or gone.
    pub fn lost(&mut self) -> Vec<Lost> {
        self.lost.retain(|lost| {
            slots().get(lost.ticket.slot as usize).is_some_and(|slot| {
                let locked = slot.lock();
                locked.call() == lost.ticket.call && matches!(locked.turn(), Turn::Taken | Turn::NextOfReply)
            })
        });
        self.lost.clone()
    }

    /// Answers everybody who waits in this database, wherever their letter is.
    pub fn answer_all(&self, reply: &[u8]) {
        for (number, slot) in slots().iter().enumerate().filter(|(_, slot)| slot.database() == self.database) {
            let locked = slot.lock();
            if slot.database() == self.database && !matches!(locked.turn(), Turn::Idle | Turn::Reply) {
                locked.wipe();
                locked.put(reply, 0);
                locked.give(Turn::Reply);
                wake(locked, number as u32);
            }
        }
    }

    /// Every letter that has come whole since the last time.
    pub fn collect(&mut self) -> Vec<Incoming> {
        let mut incoming = Vec::new();
        for (number, slot) in slots().iter().enumerate() {
            if !matches!(slot.turn(), Turn::Letter | Turn::NextOfReply) || slot.database() != self.database {
                continue;
            }
            let number = number as u32;
            let locked = slot.lock();
            // Meanwhile the process may be another, in another database.
            if slot.database() != self.database {
                continue;
            }
            let call = locked.call();
            match locked.turn() {
                Turn::Letter => {
                    let (of, letter) = self.letters.entry(number).or_default();
                    if *of != call {
                        (*of, *letter) = (call, Zeroizing::default());
                        // The worker before this one had the parts before this.
                        if !locked.is_first() {
                            locked.wipe();
                            locked.give(Turn::Again);
                            wake(locked, number);
                            continue;
                        }
                    }
                    if locked.take(letter) {
                        locked.give(Turn::Taken);
                        if let Some((_, letter)) = self.letters.remove(&number) {
                            incoming.push(Incoming { ticket: Ticket { slot: number, call }, letter });
                        }
                    } else {
                        locked.give(Turn::NextOfLetter);
                        wake(locked, number);
                    }
                }
                Turn::NextOfReply => {
                    let Some((_, reply, from)) = self.replies.get_mut(&number).filter(|(of, ..)| *of == call) else {
                        // Until it is answered the turn stays as it is.
                        let ticket = Ticket { slot: number, call };
                        if !self.lost.iter().any(|lost| lost.ticket == ticket) {
                            self.lost.push(Lost { ticket, attempt: locked.attempt() });
                        }
                        continue;
                    };
                    *from = locked.put(reply, *from);
                    if *from == reply.len() {
                        self.replies.remove(&number);
                    }
                    locked.give(Turn::Reply);
                    wake(locked, number);
                }
                _ => {}
            }
        }
        incoming
    }

    /// Whether the session of a call that was taken still waits for its end.
    pub fn waits(&self, ticket: Ticket) -> bool {
        slots().get(ticket.slot as usize).is_some_and(|slot| {
            let locked = slot.lock();
            locked.call() == ticket.call && matches!(locked.turn(), Turn::Taken | Turn::NextOfReply)
        })
    }

    /// Puts the reply down, or drops it if the session has gone.
    pub fn reply(&mut self, ticket: Ticket, reply: Zeroizing<Vec<u8>>) {
        let Some(slot) = slots().get(ticket.slot as usize) else { return };
        let locked = slot.lock();
        // A lost call is answered at whatever turn its old worker left it.
        if locked.call() != ticket.call || !matches!(locked.turn(), Turn::Taken | Turn::NextOfReply) {
            return;
        }
        let next = locked.put(&reply, 0);
        locked.give(Turn::Reply);
        if next < reply.len() {
            self.replies.insert(ticket.slot, (ticket.call, reply, next));
        }
        wake(locked, ticket.slot);
    }
}

/// Lets go of the slot first: who wakes is likely to run at once, in the place of us who hold its lock.
fn wake(locked: Locked, number: u32) {
    drop(locked);
    ProcessNumber(number).wake();
}
