//! Those who wait for the end of a send that they did not make: `otp_gateway.wait`.

use policy::Status;
use uuid::Uuid;

use super::{Desk, done_from_record};
use crate::{
    ledger::Durability,
    letter::{Done, Reply, Which},
    mailbox::Ticket,
};

impl Desk {
    pub(super) fn follow(&mut self, ticket: Ticket, id: Uuid, which: Which) {
        let found = self.ledger.write(Durability::Lazy, |writer| {
            let Some(stored) = writer.verifications(&[id])?.pop() else { return Ok(None) };
            Ok(Some((writer.send_of(id, which)?, stored)))
        });
        match found {
            Ok(Some((_, stored))) if matches!(stored.state.status, Status::Queued | Status::Sending) => {
                self.followers.entry(id).or_default().push(ticket);
            }
            Ok(Some((Some(attempt), stored))) => match attempt.outcome {
                Some(outcome) => {
                    self.reply(ticket, &Reply::Done(Box::new(done_from_record(attempt, &stored, outcome))))
                }
                None => self.followers.entry(id).or_default().push(ticket),
            },
            // A flow begun elsewhere, or one canceled before it was sent: there is no send to tell of.
            Ok(Some((None, stored))) => {
                self.reply(ticket, &Reply::Done(Box::new(Done::without_attempt(id, &stored.state))))
            }
            // Not there, or locked just now: the session reads and asks again.
            Ok(None) => self.reply(ticket, &Reply::Again),
            Err(failure) => {
                self.pending.push((ticket, crate::letter::Letter::Follow(id, which)));
                self.after(failure);
            }
        }
    }

    pub(super) fn tell_followers(&mut self, id: Uuid, row: &Done) {
        for ticket in self.followers.remove(&id).unwrap_or_default() {
            self.reply(ticket, &Reply::Done(Box::new(row.clone())));
        }
    }
}
