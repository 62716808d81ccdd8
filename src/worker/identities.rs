//! The numbers of servers and roles, as the worker gives them out: in the transaction that needs them first.

use crate::{
    error::Misuse,
    ipc::{
        message::{Letter, Reply},
        worker::Ticket,
    },
    store::{
        identity::Subject,
        transaction::{Durability, Failure},
    },
    worker::state::Desk,
};

impl Desk {
    /// At the start, and after somebody has renamed or dropped one.
    pub fn update_identities(&mut self) {
        let new = &self.identities.new;
        let found = self.ledger.write(Durability::Lazy, |writer| {
            writer.update_identities(new)?;
            Ok((writer.identities()?, writer.missing_identities(new)?))
        });
        match found {
            // The lowest of several counts: they come in order.
            Ok((found, missing)) => {
                self.identities.new = missing;
                self.identities.known.clear();
                for (id, kind, object) in found {
                    self.identities.known.entry((kind, object)).or_insert(id);
                }
            }
            Err(failure) => {
                crate::ipc::worker_registry::tell_of_identities(self.database);
                self.after(failure);
            }
        }
    }

    /// For a session that is about to enqueue.
    pub fn identify(&mut self, ticket: Ticket, subject: Subject) {
        let given = self.ledger.write(Durability::Lazy, |writer| self.identities.of(writer, subject.clone()));
        self.identities.settle(given.is_ok());
        match given {
            Ok(_) => self.reply(ticket, &Reply::Settled),
            Err(Failure::Error(why)) => {
                pgrx::log!("otp_gateway: a server or role could not be put on record: {why}");
                let misuse = Misuse::internal("the send could not be queued", "The server's log has the reason.");
                self.reply(ticket, &Reply::Refused(misuse));
            }
            Err(failure) => {
                self.pending.push((ticket, Letter::Identify(subject)));
                self.after(failure);
            }
        }
    }
}
