//! Values sealed for a verification are erased when their time is over, also if nobody ever calls again. Memory holds,
//! for each minute, only when the verifications began whose time is over then; which they are is read from the record.

use policy::{Micros, Timestamp};
use uuid::Uuid;

use crate::{
    crypto::key_file,
    ipc::worker_report::Chore,
    pg::{
        clock::clock,
        uuid_time::{first_id_of, id_before},
    },
    store::{
        rows::OpenVerification,
        transaction::{Durability, Failure},
    },
    worker::state::Worker,
};

/// The longest code_lifetime and a day, in milliseconds.
const REACH: u64 = 8 * 86_400_000;
/// How many verifications are looked at at once.
const PAGE: i64 = 1000;
/// How long to wait where a page could not be read or written.
const AGAIN_AFTER: Micros = 60_000_000;

impl Worker {
    pub fn load_expiry(&mut self) {
        self.expiry.unread = Some(Uuid::max());
    }

    /// Reads one page of the open verifications, the latest first. Returns false if all are read.
    pub fn load_more_expiry(&mut self) -> bool {
        let Some(before) = self.expiry.unread else { return false };
        let since = id_before(Uuid::now_v7(), REACH);
        match self.store.write(Durability::Deferred, |writer| writer.sealed(before, since, PAGE)) {
            Ok(page) => {
                self.expiry.unread = page.last().filter(|_| page.len() as i64 == PAGE).map(|last| last.id);
                self.works_at(Chore::Seals, page.len(), self.expiry.unread.is_none());
                self.look_at_seals(page.iter().filter_map(|one| one.begins.as_deref()));
                for one in page.iter().filter(|one| one.begins.is_some()) {
                    self.expiry.add(one.id, one.erase_at);
                }
                // A verification between two providers of a route has no attempt in flight by which it could be found.
                self.settle(page.iter().filter(|one| one.is_sending).map(|one| one.id));
            }
            Err(failure) => self.on_failure(failure),
        }
        let unknown = self.expiry.unknown_seals;
        if self.expiry.unread.is_none() && unknown > 0 {
            pgrx::warning!(
                "otp_gateway: {unknown} open verifications are sealed under a key that otp_gateway.key_file does not \
                hold: add it, from the server that sealed them"
            );
        }
        true
    }

    /// Looks under which keys values were sealed: those under an old key are sealed anew. A key that the file does not
    /// hold was lost, or was added at the server of which this one was a standby.
    fn look_at_seals<'a>(&mut self, sealed: impl Iterator<Item = &'a [u8]>) {
        // The keys of the file alone: a file that lacks a key that this database needs tells of the values under it,
        // too.
        let Ok(keys) = key_file::keys() else { return };
        let (known, unknown): (Vec<&[u8]>, Vec<&[u8]>) = sealed.partition(|sealed| keys.know(sealed));
        if known.iter().any(|sealed| !keys.sealed_now(sealed)) {
            self.maintenance.reseal();
        }
        self.expiry.unknown_seals += unknown.len();
    }

    /// Erases what is due of one page; verifications in flight have their turn afterwards. Returns false if nothing was
    /// due or tried: a transaction may have slept on the latch, and taken somebody's wake-up with it.
    pub fn expire_due(&mut self) -> bool {
        let now = clock();
        if self.expiry.next_due().is_none_or(|due| due > now) {
            return false;
        }
        if self.expiry.due.is_none() {
            let Some(span) = self.expiry.expiries.take(now) else { return false };
            self.expiry.due = Some((first_id_of(span.until), first_id_of(span.from)));
        }
        let Some((before, since)) = self.expiry.due else { return false };
        let expired = self.store.write(Durability::Deferred, |writer| {
            let page = writer.sealed(before, since, PAGE)?;
            let next = page.last().filter(|_| page.len() as i64 == PAGE).map(|last| (last.id, since));
            let is_due = |one: &OpenVerification| one.begins.is_some() && one.erase_at <= now;
            let due = page.into_iter().filter(is_due).map(|one| one.id);
            let (busy, due): (Vec<Uuid>, Vec<Uuid>) = due.partition(|id| self.is_busy(*id));
            let later = if due.is_empty() { Vec::new() } else { writer.expire(&due, now)? };
            Ok((next, busy, later))
        });
        self.failures.note("the erasing of what was sealed", expired.as_ref().err());
        match expired {
            Ok((next, busy, later)) => {
                self.expiry.due = next;
                self.expiry.again_at = Timestamp::default();
                busy.into_iter().for_each(|id| self.expiry.add(id, now));
                // A resend has moved their time, or they are locked just now.
                later.into_iter().for_each(|(id, at)| self.expiry.add(id, at.max(now)));
            }
            Err(Failure::NotInstalled) => self.extension_dropped(),
            Err(_) => self.expiry.again_at = now + AGAIN_AFTER,
        }
        true
    }
}
