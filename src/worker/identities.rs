//! The numbers of servers and roles, as the worker gives them out: in the transaction that needs them first.

use pgrx::pg_sys;

use crate::{
    error::Error,
    ipc::{
        message::{Request, Response},
        statistics::count::free_dropped,
        worker::CallId,
    },
    pg::database,
    store::{
        identity::{Kind, Subject},
        transaction::{Durability, Failure},
    },
    worker::state::Worker,
};

impl Worker {
    /// Updates the numbers of servers and roles, at the start and after somebody has renamed or dropped one.
    pub fn update_identities(&mut self) {
        let new = &self.identities.new;
        let found = self.store.write(Durability::Deferred, |writer| {
            free_dropped(|database| database::database(pg_sys::Oid::from(database)).is_some());
            writer.update_identities(new)?;
            Ok((writer.identities()?, writer.missing_identities(new)?))
        });
        match found {
            // Of several numbers of one object the lowest counts: they come in order.
            Ok((found, missing)) => {
                let servers = found.iter().filter(|(_, kind, _)| *kind == Kind::Server);
                let mut statistics = self.statistics.borrow_mut();
                statistics.learn(servers.map(|(id, _, object)| (*id, *object)));
                statistics.retain(|provider| found.iter().any(|(id, ..)| *id == provider));
                drop(statistics);
                self.identities.new = missing;
                self.identities.known.clear();
                for (id, kind, object) in found {
                    self.identities.known.entry((kind, object)).or_insert(id);
                }
            }
            Err(failure) => {
                crate::ipc::worker_registry::notify_identities(self.database);
                self.on_failure(failure);
            }
        }
    }

    /// Ends the transaction that may have given out numbers.
    pub fn settle_identities(&mut self, committed: bool) {
        if self.identities.settle(committed) {
            self.statistics.borrow_mut().learn(self.identities.servers());
        }
    }

    /// Gives a server or role its number, for a session that is about to enqueue.
    pub fn identify(&mut self, call_id: CallId, subject: Subject) {
        if let Err(error) = self.keys_to_seal() {
            return self.respond(call_id, &Response::Error(error));
        }
        let given = self.store.write(Durability::Deferred, |writer| self.identities.of(writer, subject.clone()));
        self.settle_identities(given.is_ok());
        match given {
            Ok(_) => self.respond(call_id, &Response::Idle),
            Err(Failure::Error(why)) => {
                pgrx::log!("otp_gateway: a server or role could not be put on record: {why}");
                let error = Error::internal("the send could not be queued", "The server's log has the reason.");
                self.respond(call_id, &Response::Error(error));
            }
            Err(failure) => {
                self.pending.push((call_id, Request::Identify(subject)));
                self.on_failure(failure);
            }
        }
    }
}
