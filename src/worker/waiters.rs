//! Those who wait for the end of a send that they did not make: `otp_gateway.wait`.

use policy::Status;
use uuid::Uuid;

use crate::{
    ipc::{
        message::{Response, ResultRow},
        worker::CallId,
    },
    store::{rows::WhichSend, transaction::Durability},
    worker::state::{WAITERS_BEFORE_PRUNING, Worker, result_row_from_record},
};

/// In words, for an outcome that is null says as much of a send that is still queued.
const NO_SEND: &str = "there is no send to wait for: the flow was begun elsewhere, or has ended before its turn";

impl Worker {
    pub fn follow(&mut self, call_id: CallId, id: Uuid, which: WhichSend) {
        let found = self.store.write(Durability::Deferred, |writer| {
            let Some(stored) = writer.verifications(&[id])?.pop() else { return Ok(None) };
            Ok(Some((writer.send_of(id, which)?, stored)))
        });
        match found {
            Ok(Some((_, stored))) if matches!(stored.state.status, Status::Queued | Status::Sending) => {
                self.add_waiter(id, call_id);
            }
            Ok(Some((Some(attempt), stored))) => match attempt.outcome {
                Some(outcome) => {
                    self.respond(call_id, &Response::Row(Box::new(result_row_from_record(attempt, &stored, outcome))))
                }
                None => self.add_waiter(id, call_id),
            },
            // A flow begun elsewhere, or one canceled before it was sent: there is no send to tell of.
            Ok(Some((None, stored))) => {
                let vendor_message = Some(NO_SEND.to_owned());
                let row = ResultRow { vendor_message, ..ResultRow::without_attempt(id, &stored.state) };
                self.respond(call_id, &Response::Row(Box::new(row)))
            }
            // Not there, or locked just now: the session reads and asks again.
            Ok(None) => self.respond(call_id, &Response::Retry),
            Err(failure) => {
                self.pending.push((call_id, crate::ipc::message::Request::AwaitSend(id, which)));
                self.on_failure(failure);
            }
        }
    }

    /// Those who have stopped waiting are forgotten, before they are many.
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

    /// What they wait for has changed on record.
    pub fn send_waiters_back(&mut self, id: Uuid) {
        for call_id in self.waiters.remove(&id).unwrap_or_default() {
            self.respond(call_id, &Response::Retry);
        }
    }
}
