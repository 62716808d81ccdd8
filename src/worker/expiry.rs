//! What was sealed for a verification is erased when its time is over, also if nobody ever calls again. The times are
//! kept here, in memory, so that the worker need not search for what is due.

use std::{cmp::Reverse, collections::BinaryHeap};

use policy::Micros;
use uuid::Uuid;

use super::{Desk, recovery::id_before};
use crate::{
    key_file,
    ledger::{Durability, Failure, clock},
};

/// Let them gather a little: one transaction for many.
const GATHER: Micros = 60_000_000;
/// At most so many in one transaction.
const BATCH: usize = 1000;
/// The longest code_lifetime and a day, in milliseconds.
const REACH: u64 = 8 * 86_400_000;

#[derive(Default)]
pub struct Expiry(BinaryHeap<Reverse<(Micros, Uuid)>>);

impl Expiry {
    pub fn add(&mut self, id: Uuid, at: Micros) {
        self.0.push(Reverse((at, id)));
    }

    /// When the next ones are to be erased.
    pub fn next_due(&self) -> Option<Micros> {
        self.0.peek().map(|Reverse((at, _))| at.saturating_add(GATHER))
    }

    fn take_due(&mut self, now: Micros) -> Vec<Uuid> {
        let mut due = Vec::new();
        while due.len() < BATCH && self.0.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            due.extend(self.0.pop().map(|Reverse((_, id))| id));
        }
        due
    }
}

impl Desk {
    pub fn load_expiry(&mut self) {
        let since = id_before(Uuid::now_v7(), REACH);
        match self.ledger.write(Durability::Lazy, |writer| writer.sealed(since)) {
            Ok(sealed) => {
                self.look_at_seals(sealed.iter().map(|(.., sealed)| sealed.as_slice()));
                sealed.into_iter().for_each(|(id, at, _)| self.expiry.add(id, at));
            }
            Err(failure) => pgrx::warning!("otp_gateway: open verifications could not be read: {failure:?}"),
        }
    }

    /// Under which keys it was sealed: an old one's is resealed; one that the file does not hold was lost, or added at
    /// the server that this one was a standby of.
    fn look_at_seals<'a>(&mut self, sealed: impl Iterator<Item = &'a [u8]>) {
        let Ok(keys) = key_file::keys() else { return };
        let (known, unknown): (Vec<&[u8]>, Vec<&[u8]>) = sealed.partition(|sealed| keys.know(sealed));
        if known.iter().any(|sealed| !keys.sealed_now(sealed)) {
            self.chores.reseal();
        }
        if !unknown.is_empty() {
            pgrx::warning!(
                "otp_gateway: {} open verifications are sealed under a key that otp_gateway.key_file does not hold: add it, from the server that sealed them",
                unknown.len()
            );
        }
    }

    /// Erases what is due; those in flight get their turn when they are not. False: nothing was. A transaction may have
    /// slept on the latch, and taken somebody's wake-up with it.
    pub fn expire_due(&mut self) -> bool {
        let now = clock();
        if self.expiry.next_due().is_none_or(|due| due > now) {
            return false;
        }
        let (busy, due): (Vec<Uuid>, Vec<Uuid>) =
            self.expiry.take_due(now).into_iter().partition(|id| self.is_busy(*id));
        busy.into_iter().for_each(|id| self.expiry.add(id, now));
        let expired = self.ledger.write(Durability::Lazy, |writer| writer.expire(&due, now));
        self.note("the erasing of what was sealed", expired.as_ref().err());
        match expired {
            // A resend has moved their time, or they are locked just now.
            Ok(later) => later.into_iter().for_each(|(id, at)| self.expiry.add(id, at.max(now))),
            Err(Failure::Gone) => self.gone(),
            Err(_) => due.into_iter().for_each(|id| self.expiry.add(id, now)),
        }
        true
    }
}
