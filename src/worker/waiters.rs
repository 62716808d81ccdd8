//! The callers that wait for the end of a send that they did not make: `otp_gateway.wait`.

use policy::Status;
use uuid::Uuid;

use crate::{
    crypto::key_file,
    error::Error,
    ipc::{
        message::{Request, Response, ResultRow},
        worker::CallId,
    },
    job::{CountsFor, Job},
    pg::clock::{SinceBoot, clock, since_boot},
    store::{
        rows::WhichSend,
        transaction::{Durability, Failure},
    },
    worker::{
        limit_check::LimitCheck,
        locked_rows::{PATIENCE, TIMEOUT},
        state::{WAITERS_BEFORE_PRUNING, Worker, result_row_from_record},
    },
};

/// Said in words: an outcome that is null could also be that of a send which is still queued.
const NO_SEND: &str = "there is no send to wait for: the flow was begun elsewhere, or has ended before its turn";

impl Worker {
    pub fn follow(
        &mut self,
        call_id: CallId,
        id: Uuid,
        which: WhichSend,
        read: Status,
        mut check: Option<Box<Job>>,
        taken_at: SinceBoot,
    ) {
        if let (Some(job), Ok(keys)) = (&mut check, key_file::keys()) {
            job.derive_keys(&keys);
        }
        let found = self.store.write(Durability::Deferred, |writer| {
            let Some(stored) = writer.verifications(&[id])?.pop() else { return Ok(None) };
            let left = match &mut check {
                Some(job) if !stored.state.status.is_terminal() => {
                    job.provider_id = stored.provider_id;
                    job.counts_for = CountsFor::Role(stored.role_id);
                    job.recipient_keys = stored.recipient_key.iter().cloned().collect();
                    LimitCheck::new(writer, std::iter::once(&**job), &mut self.limits, clock())?.checks_left(job)
                }
                _ => None,
            };
            Ok(Some((writer.send_of(id, which)?, stored, left)))
        });
        match found {
            Ok(Some((_, stored, _))) if stored.state.status.awaits_send() => self.add_waiter(id, call_id),
            // Sent since the session read the record: the session asks again, with a check from which the checks left
            // are known.
            Ok(Some((_, stored, _))) if read.awaits_send() && !stored.state.status.is_terminal() => {
                self.respond(call_id, &Response::Retry);
            }
            Ok(Some((Some(attempt), stored, left))) => match attempt.outcome {
                Some(outcome) => {
                    let mut row = result_row_from_record(attempt, &stored, outcome);
                    row.attempts_left = row.attempts_left.min(left.unwrap_or(u32::MAX));
                    self.respond(call_id, &Response::Row(Box::new(row)));
                }
                None => self.add_waiter(id, call_id),
            },
            // A flow begun elsewhere, or one canceled before it was sent: there is no send to tell of.
            Ok(Some((None, stored, left))) => {
                let vendor_message = Some(NO_SEND.to_owned());
                let mut row = ResultRow { vendor_message, ..ResultRow::without_attempt(id, &stored.state) };
                row.attempts_left = row.attempts_left.min(left.unwrap_or(u32::MAX));
                self.respond(call_id, &Response::Row(Box::new(row)))
            }
            // The verification is not there, or locked just now: the session reads and asks again.
            Ok(None) => self.respond(call_id, &Response::Retry),
            // As with a call: the session itself may be the one that has the table locked.
            Err(Failure::Busy) if taken_at + TIMEOUT + PATIENCE <= since_boot() => {
                let error = Error::lock_not_available(
                    "the record is locked by another transaction, or by your own; what becomes of the send cannot be \
                     told",
                    "pg_locks tells by whom. Who locks tables of otp_gateway calls its functions after the COMMIT.",
                );
                self.respond(call_id, &Response::Error(error));
            }
            Err(failure) => {
                self.pending.push((call_id, Request::AwaitSend(id, which, read, check, taken_at)));
                self.on_failure(failure);
            }
        }
    }

    /// Adds a caller that waits for a send. Callers that have stopped waiting are removed, before they are many.
    pub fn add_waiter(&mut self, id: Uuid, call_id: CallId) {
        if self.waiters.len() >= self.most_waiters {
            let ipc = &self.ipc;
            self.waiters.retain(|_, call_ids| {
                call_ids.retain(|call_id| ipc.waits(*call_id));
                !call_ids.is_empty()
            });
            self.most_waiters = (2 * self.waiters.len()).max(WAITERS_BEFORE_PRUNING);
        }
        let call_ids = self.waiters.entry(id).or_default();
        // One session after the other may wait for the same send.
        if call_ids.len() % WAITERS_BEFORE_PRUNING == WAITERS_BEFORE_PRUNING - 1 {
            call_ids.retain(|call_id| self.ipc.waits(*call_id));
        }
        call_ids.push(call_id);
    }

    pub fn answer_waiters(&mut self, id: Uuid, row: &ResultRow) {
        for call_id in self.waiters.remove(&id).unwrap_or_default() {
            self.respond(call_id, &Response::Row(Box::new(row.clone())));
        }
    }

    /// Has those who wait for a send read the record again, since it has changed.
    pub fn send_waiters_back(&mut self, id: Uuid) {
        for call_id in self.waiters.remove(&id).unwrap_or_default() {
            self.respond(call_id, &Response::Retry);
        }
    }
}
