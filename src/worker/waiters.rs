//! Those who wait for the end of a send that they did not make: `otp_gateway.wait`.

use policy::Status;
use uuid::Uuid;

use crate::{
    ipc::{
        message::{Done, Reply},
        worker::Ticket,
    },
    store::{rows::Which, transaction::Durability},
    worker::state::{Desk, FOLLOWED, done_from_record},
};

impl Desk {
    pub fn follow(&mut self, ticket: Ticket, id: Uuid, which: Which) {
        let found = self.ledger.write(Durability::Lazy, |writer| {
            let Some(stored) = writer.verifications(&[id])?.pop() else { return Ok(None) };
            Ok(Some((writer.send_of(id, which)?, stored)))
        });
        match found {
            Ok(Some((_, stored))) if matches!(stored.state.status, Status::Queued | Status::Sending) => {
                self.add_follower(id, ticket);
            }
            Ok(Some((Some(attempt), stored))) => match attempt.outcome {
                Some(outcome) => {
                    self.reply(ticket, &Reply::Done(Box::new(done_from_record(attempt, &stored, outcome))))
                }
                None => self.add_follower(id, ticket),
            },
            // A flow begun elsewhere, or one canceled before it was sent: there is no send to tell of.
            Ok(Some((None, stored))) => {
                self.reply(ticket, &Reply::Done(Box::new(Done::without_attempt(id, &stored.state))))
            }
            // Not there, or locked just now: the session reads and asks again.
            Ok(None) => self.reply(ticket, &Reply::Again),
            Err(failure) => {
                self.pending.push((ticket, crate::ipc::message::Letter::Follow(id, which)));
                self.after(failure);
            }
        }
    }

    /// Those who have stopped waiting are forgotten, before they are many.
    pub fn add_follower(&mut self, id: Uuid, ticket: Ticket) {
        if self.followers.len() >= self.most_followed {
            let mailbox = &self.mailbox;
            self.followers.retain(|_, tickets| {
                tickets.retain(|ticket| mailbox.waits(*ticket));
                !tickets.is_empty()
            });
            self.most_followed = (2 * self.followers.len()).max(FOLLOWED);
        }
        let tickets = self.followers.entry(id).or_default();
        // One session after the other may wait for the same send.
        if tickets.len() % FOLLOWED == FOLLOWED - 1 {
            tickets.retain(|ticket| self.mailbox.waits(*ticket));
        }
        tickets.push(ticket);
    }

    pub fn tell_followers(&mut self, id: Uuid, row: &Done) {
        for ticket in self.followers.remove(&id).unwrap_or_default() {
            self.reply(ticket, &Reply::Done(Box::new(row.clone())));
        }
    }

    /// What they wait for has changed on record.
    pub fn ask_followers_again(&mut self, id: Uuid) {
        for ticket in self.followers.remove(&id).unwrap_or_default() {
            self.reply(ticket, &Reply::Again);
        }
    }
}
