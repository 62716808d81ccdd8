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

/// How many verifications are looked at at once.
const PAGE: i64 = 2000;

#[derive(Default)]
pub struct Expiry {
    times: BinaryHeap<Reverse<(Micros, Uuid)>>,
    /// What began before this verification is not read yet.
    unread: Option<Uuid>,
    /// Under keys that the file does not hold.
    unknown_seals: usize,
}

impl Expiry {
    pub fn add(&mut self, id: Uuid, at: Micros) {
        self.times.push(Reverse((at, id)));
    }

    /// When the next ones are to be erased.
    pub fn next_due(&self) -> Option<Micros> {
        self.times.peek().map(|Reverse((at, _))| at.saturating_add(GATHER))
    }

    fn take_due(&mut self, now: Micros) -> Vec<Uuid> {
        let mut due = Vec::new();
        while due.len() < BATCH && self.times.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            due.extend(self.times.pop().map(|Reverse((_, id))| id));
        }
        due
    }
}

impl Desk {
    pub fn load_expiry(&mut self) {
        self.expiry.unread = Some(Uuid::max());
    }

    /// One page of what is open, the latest first. False: it is all read.
    pub fn load_more_expiry(&mut self) -> bool {
        let Some(before) = self.expiry.unread else { return false };
        let since = id_before(Uuid::now_v7(), REACH);
        match self.ledger.write(Durability::Lazy, |writer| writer.sealed(before, since, PAGE)) {
            Ok(page) => {
                self.expiry.unread = page.last().filter(|_| page.len() as i64 == PAGE).map(|last| last.id);
                self.look_at_seals(page.iter().filter_map(|one| one.begins.as_deref()));
                for one in page.iter().filter(|one| one.begins.is_some()) {
                    self.expiry.add(one.id, one.erase_at);
                }
            }
            Err(failure) => self.after(failure),
        }
        let unknown = self.expiry.unknown_seals;
        if self.expiry.unread.is_none() && unknown > 0 {
            pgrx::warning!(
                "otp_gateway: {unknown} open verifications are sealed under a key that otp_gateway.key_file does not hold: add it, from the server that sealed them"
            );
        }
        true
    }

    /// Under which keys it was sealed: an old one's is resealed; one that the file does not hold was lost, or added at
    /// the server that this one was a standby of.
    fn look_at_seals<'a>(&mut self, sealed: impl Iterator<Item = &'a [u8]>) {
        let Ok(keys) = key_file::keys() else { return };
        let (known, unknown): (Vec<&[u8]>, Vec<&[u8]>) = sealed.partition(|sealed| keys.know(sealed));
        if known.iter().any(|sealed| !keys.sealed_now(sealed)) {
            self.chores.reseal();
        }
        self.expiry.unknown_seals += unknown.len();
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
