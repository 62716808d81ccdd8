//! Keeps the record in order, a part at a time between calls: deletes what is older than it is to be kept, forgets a
//! person who asks for it, and seals values anew that are sealed under an old key.

use policy::{Micros, Timestamp};
use uuid::Uuid;

use crate::{
    crypto::seal::{Keys, Place},
    error::Error,
    gucs,
    ipc::{
        message::{Maintenance, Progress, Request, Response},
        worker::CallId,
        worker_registry,
        worker_report::Chore,
    },
    pg::{clock::clock, uuid_time::began},
    provider::lookback,
    store::{
        StoreTransaction,
        identity::Identity,
        queue_home::queue_home,
        transaction::{Durability, Failure},
    },
    worker::state::Worker,
};

/// How many verifications a part looks at: a few milliseconds' work, for which a call may have to wait.
pub const PAGE: i64 = 200;
/// The shortest and the longest wait until the next purge: old rows may gather a little, and a restored dump brings old
/// rows at any time.
pub const GATHER: Micros = 60_000_000;
pub const DAY: Micros = 86_400_000_000;

/// The result of a part.
pub enum PageOutcome {
    Part(Progress),
    /// This verification is in flight: the part is done afterwards.
    Busy(Uuid),
    /// Without the key file nothing is sealed anew.
    NoKeys(Error),
}

impl Worker {
    /// Does one part of what a session asks for.
    fn do_part(&mut self, maintenance: &Maintenance) -> Result<PageOutcome, Failure> {
        let is_free = |id: &Uuid| !self.busy.contains_key(id);
        match maintenance {
            Maintenance::Purge { before, providers, from } => self.store.write(Durability::Deferred, |writer| {
                purge(writer, *from, *before, providers.as_deref(), is_free).map(PageOutcome::Part)
            }),
            Maintenance::Reseal { from } => match self.keys_to_seal() {
                Ok(keys) => {
                    self.store.write(Durability::Deferred, |writer| reseal(writer, *from, &keys).map(PageOutcome::Part))
                }
                Err(error) => Ok(PageOutcome::NoKeys(error)),
            },
            Maintenance::ResetStatistics { providers } => {
                self.statistics.borrow_mut().reset(providers.as_deref());
                Ok(PageOutcome::Part(Progress { count: 0, next: None }))
            }
            Maintenance::Release { providers, range } => {
                let count = self.release_range(providers, range)?;
                Ok(PageOutcome::Part(Progress { count, next: None }))
            }
            // Flushed: whoever is told that they are forgotten stays forgotten after a crash.
            Maintenance::Forget { provider, owned, recipient_keys } => {
                self.store.write(Durability::Flushed, |writer| {
                    let ids = writer.of_recipient(provider, recipient_keys)?;
                    if let Some(busy) = ids.iter().find(|id| !is_free(id)) {
                        return Ok(PageOutcome::Busy(*busy));
                    }
                    if !writer.locked(&ids, &[])?.is_empty() {
                        return Err(Failure::Busy);
                    }
                    writer.forget(&ids, owned.as_deref())?;
                    writer.forget_keys(recipient_keys, provider)?;
                    Ok(PageOutcome::Part(Progress { count: ids.len() as u64, next: None }))
                })
            }
        }
    }

    /// Does and answers one part for a session, which asks for one part after the other.
    pub fn maintain(&mut self, call_id: CallId, maintenance: Maintenance) {
        match self.do_part(&maintenance) {
            Ok(PageOutcome::Part(part)) => {
                if let Some(chore) = chore_of(&maintenance) {
                    self.works_at(chore, part.count as usize, part.next.is_none());
                }
                if let Maintenance::Forget { .. } = maintenance {
                    // A caller that waits for one of the forgotten sends reads what has become of it.
                    let waiters: Vec<CallId> = self.waiters.drain().flat_map(|(_, call_ids)| call_ids).collect();
                    waiters.into_iter().for_each(|call_id| self.respond(call_id, &Response::Retry));
                }
                self.respond(call_id, &Response::Progress(part));
            }
            Ok(PageOutcome::NoKeys(error)) => self.respond(call_id, &Response::Error(error)),
            Ok(PageOutcome::Busy(id)) => {
                self.busy.entry(id).or_default().push_back((call_id, Request::Maintain(maintenance)))
            }
            Err(Failure::NotInstalled) => {
                self.pending.push((call_id, Request::Maintain(maintenance)));
                self.extension_dropped();
            }
            // To try again would hold up everybody else, for as long as the lock is held.
            Err(Failure::Busy) => {
                let error = Error::lock_not_available(
                    "the record is locked by another transaction; what was done before stays done",
                    "pg_locks tells by whom. Call again after its end.",
                );
                self.respond(call_id, &Response::Error(error));
            }
            Err(Failure::Error(why)) => {
                pgrx::log!("otp_gateway: the record could not be kept in order: {why}");
                let error = Error::internal("the record could not be changed", "The server's log has the reason.");
                self.respond(call_id, &Response::Error(error));
            }
        }
    }

    /// Does a part of the maintenance that is due, in an idle moment. Returns false if none is due.
    pub fn maintain_when_idle(&mut self) -> bool {
        let now = clock();
        if self.is_extension_dropped || self.maintenance.next_due().is_none_or(|due| due > now) {
            return false;
        }
        match self.maintenance.reseal_from {
            Some(from) => self.reseal_by_itself(from),
            None => self.purge_by_itself(now),
        }
        true
    }

    pub fn reseal_by_itself(&mut self, from: Uuid) {
        // Without keys nothing can be done; whoever calls is told.
        let Ok(keys) = self.keys_to_seal() else {
            self.maintenance.reseal_from = None;
            return;
        };
        let resealed = self.store.write(Durability::Deferred, |writer| reseal(writer, from, &keys));
        self.failures.note("sealing under the new key", resealed.as_ref().err());
        match resealed {
            Ok(part) => {
                self.works_at(Chore::Reseal, part.count as usize, part.next.is_none());
                self.maintenance.reseal_from = part.next;
            }
            Err(Failure::NotInstalled) => self.extension_dropped(),
            Err(_) => self.maintenance.reseal_at = clock() + GATHER,
        }
    }

    pub fn purge_by_itself(&mut self, now: Timestamp) {
        let Some(retention) = gucs::retention() else { return };
        let from = self.maintenance.purge_from;
        let is_free = |id: &Uuid| !self.busy.contains_key(id);
        let purged = self.store.write(Durability::Deferred, |writer| {
            let kept_for = retention.max(lookback::longest_memory());
            // Before anything is deleted: a purge that cannot go on shows in the growing age of the oldest row.
            let oldest = if from.is_nil() { writer.oldest()?.unwrap_or(now) } else { began(from) };
            if let Some(report) = worker_registry::report_of(self.database) {
                report.oldest_kept(oldest, kept_for);
            }
            let part = purge(writer, from, now - kept_for, None, is_free)?;
            let due = if part.next.is_some() {
                // The next part waits as long as this one took: everybody else has as much time.
                let end = clock();
                end + end.since(now)
            } else {
                let oldest = writer.oldest()?;
                if let Some(report) = worker_registry::report_of(self.database) {
                    report.oldest_kept(oldest.unwrap_or(now), kept_for);
                }
                due_after(oldest, kept_for, now)
            };
            Ok((part, due))
        });
        self.failures.note("otp_gateway.retention", purged.as_ref().err());
        match purged {
            Ok((part, due)) => {
                self.works_at(Chore::Purge, part.count as usize, part.next.is_none());
                self.maintenance.purge_at = due;
                self.maintenance.purge_from = part.next.unwrap_or(Uuid::nil());
            }
            Err(Failure::NotInstalled) => self.extension_dropped(),
            Err(_) => self.maintenance.purge_at = now + GATHER,
        }
    }
}

/// Returns what otp_gateway.stat_worker calls a piece of maintenance; None if it takes no time.
fn chore_of(maintenance: &Maintenance) -> Option<Chore> {
    match maintenance {
        Maintenance::Purge { .. } => Some(Chore::Purge),
        Maintenance::Forget { .. } => Some(Chore::Forget),
        Maintenance::Reseal { .. } => Some(Chore::Reseal),
        Maintenance::Release { .. } | Maintenance::ResetStatistics { .. } => None,
    }
}

/// Returns when to look for old rows again.
pub fn due_after(oldest: Option<Timestamp>, kept_for: Micros, now: Timestamp) -> Timestamp {
    let due = oldest.map_or(Timestamp::MAX, |oldest| oldest + kept_for);
    due.clamp(now + GATHER, now + DAY)
}

pub fn purge(
    writer: &mut StoreTransaction,
    from: Uuid,
    before: Timestamp,
    providers: Option<&[Identity]>,
    is_free: impl Fn(&Uuid) -> bool,
) -> Result<Progress, Failure> {
    let page = writer.old(from, before, providers, PAGE)?;
    let next = page.last().filter(|_| page.len() as i64 == PAGE).map(|(id, _)| *id);
    let mut old: Vec<Uuid> = page.into_iter().filter(|(id, may)| *may && is_free(id)).map(|(id, _)| id).collect();
    if !old.is_empty() {
        let locked = writer.locked(&old, &[])?;
        old.retain(|id| !locked.contains(id));
        writer.delete(&old)?;
    }
    Ok(Progress { count: old.len() as u64, next })
}

pub fn reseal(writer: &mut StoreTransaction, from: Uuid, keys: &Keys) -> Result<Progress, Failure> {
    let page = writer.sealed_rows(from, PAGE)?;
    let next = page.last().filter(|_| page.len() as i64 == PAGE).map(|seal| seal.id);
    let home = queue_home().map_err(|error| Failure::Error(error.message().to_owned()))?;
    let mut resealed: Vec<(Uuid, Vec<u8>)> = page
        .into_iter()
        .filter_map(|seal| {
            let place = if seal.is_queued { Place::Queued(seal.id, home) } else { Place::Verification(seal.id) };
            Some((seal.id, keys.reseal(&place, &seal.sealed?)?))
        })
        .collect();
    if !resealed.is_empty() {
        // The old key stays in the file: what is locked just now is resealed after the next start.
        let locked = writer.locked(&resealed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), &[])?;
        resealed.retain(|(id, _)| !locked.contains(id));
        writer.reseal(&resealed)?;
    }
    Ok(Progress { count: resealed.len() as u64, next })
}
