//! A job or call that needs a row that somebody else has locked waits alone, and is tried again without waiting for the
//! lock. A session that has locked the record and calls in the same transaction waits for itself, and hears of it.

use std::collections::HashSet;

use http_client::CompletedCall;
use policy::Micros;
use uuid::Uuid;

use crate::{
    error::Error,
    ipc::{
        message::{Request, Response},
        worker::CallId,
    },
    job::Job,
    pg::clock::{SinceBoot, since_boot},
    provider::option_value::micros,
    store::transaction::{Durability, Failure},
    worker::state::{AGAIN_AFTER, Worker},
};

/// How long after its own timeout a call still waits for a lock, before its caller hears of it.
pub const PATIENCE: Micros = 3_000_000;
/// The timeout of a call that has none.
pub const TIMEOUT: Micros = 10_000_000;

/// Returns since when a call that has not been put on record is older than its own timeout.
pub fn overdue_since(job: &Job) -> SinceBoot {
    job.taken_at + job.answer.timeout().map_or(TIMEOUT, micros)
}

impl Worker {
    /// Returns whether a job is still to be put on record: not if it is older than its own timeout and its caller has
    /// left. A job on its way from one provider of its route to the next is on record already, and always goes on.
    pub fn is_wanted(&self, call_id: CallId, job: &Job) -> bool {
        job.action.is_failover() || overdue_since(job) > since_boot() || self.ipc.waits(call_id)
    }

    /// Returns whether the caller of a job that a lock has held up waits on; if not, the caller is told.
    pub fn may_wait_on(&mut self, call_id: CallId, job: &Job) -> bool {
        let waits = job.action.is_failover() || overdue_since(job) + PATIENCE > since_boot();
        if !waits {
            self.respond(
                call_id,
                &Response::Error(Error::lock_not_available(
                    "the record is locked by another transaction, or by your own; nothing was sent",
                    "pg_locks tells by whom. Who locks rows or tables of otp_gateway calls its functions after the \
                    COMMIT.",
                )),
            );
        }
        waits
    }

    /// Puts those of these jobs aside that need a row that somebody has locked, and returns the others; `needed` holds
    /// the verification on record that each is about. Returns all of them as `Err` if it is not a matter of single
    /// rows.
    pub fn put_aside_jobs(&mut self, jobs: Jobs, needed: &[Option<Uuid>]) -> Result<Jobs, Jobs> {
        let ids: Vec<Uuid> = needed.iter().copied().flatten().collect();
        let Some(locked) = self.locked(&ids, &[]).ok().filter(|locked| !locked.is_empty()) else { return Err(jobs) };
        let mut others = Vec::new();
        for ((call_id, job), id) in jobs.into_iter().zip(needed) {
            match id.filter(|id| locked.contains(id)) {
                Some(id) => {
                    self.busy.entry(id).or_default();
                    self.locked.jobs.push((id, call_id, job));
                }
                None => others.push((call_id, job)),
            }
        }
        self.locked.again_at = Some(since_boot() + AGAIN_AFTER);
        Ok(others)
    }

    /// Puts those of these completed calls aside that need a row that somebody has locked, and returns the others; as
    /// `Err` if it is not a matter of single rows.
    pub fn put_aside_completed(
        &mut self,
        completed_calls: Vec<CompletedCall>,
    ) -> Result<Vec<CompletedCall>, Vec<CompletedCall>> {
        let rows = |completed: &CompletedCall| {
            let call = self.in_flight.get(&completed.call_id);
            call.map_or((Uuid::nil(), Uuid::nil()), |call| (call.verification, call.attempt))
        };
        let (verifications, attempts): (Vec<Uuid>, Vec<Uuid>) = completed_calls.iter().map(rows).unzip();
        let Ok(locked) = self.locked(&verifications, &attempts) else { return Err(completed_calls) };
        let (mut aside, others): (Vec<CompletedCall>, Vec<CompletedCall>) =
            completed_calls.into_iter().partition(|completed| {
                let (verification, attempt) = rows(completed);
                locked.contains(&verification) || locked.contains(&attempt)
            });
        if aside.is_empty() {
            return Err(others);
        }
        self.locked.completed.append(&mut aside);
        self.locked.again_at = Some(since_boot() + AGAIN_AFTER);
        Ok(others)
    }

    pub fn locked(&self, verifications: &[Uuid], attempts: &[Uuid]) -> Result<HashSet<Uuid>, Failure> {
        self.store.write(Durability::Deferred, |writer| writer.locked(verifications, attempts))
    }

    /// Lets jobs and calls whose rows are no longer locked have their turn. Returns false if it is not yet time to
    /// look.
    pub fn retry_locked(&mut self) -> bool {
        if self.locked.again_at.is_none_or(|at| at > since_boot()) {
            return false;
        }
        self.locked.again_at = None;
        let jobs = std::mem::take(&mut self.locked.jobs);
        let needed: Vec<Option<Uuid>> = jobs.iter().map(|(id, ..)| Some(*id)).collect();
        let mut ids: HashSet<Uuid> = needed.iter().copied().flatten().collect();
        let jobs = jobs.into_iter().map(|(_, call_id, job)| (call_id, job)).collect();
        let free = self.put_aside_jobs(jobs, &needed).unwrap_or_else(|all| all);
        let (waiting, overdue): (Vec<_>, Vec<_>) = std::mem::take(&mut self.locked.jobs)
            .into_iter()
            .partition(|(_, call_id, job)| self.may_wait_on(*call_id, job));
        self.locked.jobs = waiting;
        self.pending.extend(free.into_iter().map(|(call_id, job)| (call_id, Request::Run(job))));
        drop(overdue);
        // The requests behind the jobs that still wait have their turn after these.
        self.locked.jobs.iter().for_each(|(id, ..)| {
            ids.remove(id);
        });
        ids.into_iter().for_each(|id| self.unblock(id));
        let completed_calls = std::mem::take(&mut self.locked.completed);
        if !completed_calls.is_empty() {
            let free = self.put_aside_completed(completed_calls).unwrap_or_else(|all| all);
            self.unrecorded.extend(free);
        }
        true
    }

    /// Ends the waiting, for a last try: the jobs are pending again, and the completed calls are returned.
    pub fn take_aside(&mut self) -> Vec<CompletedCall> {
        let jobs = std::mem::take(&mut self.locked.jobs);
        self.pending.extend(jobs.into_iter().map(|(_, call_id, job)| (call_id, Request::Run(job))));
        std::mem::take(&mut self.locked.completed)
    }
}

pub type Jobs = Vec<(CallId, Box<Job>)>;
