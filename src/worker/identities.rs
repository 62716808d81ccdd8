//! The numbers of servers and roles, as the worker gives them out: in the transaction that needs them first.

use pgrx::pg_sys;

use crate::{
    error::Error,
    ipc::{message::Response, statistics::count::free_dropped, worker::CallId, worker_registry},
    pg::{clock::since_boot, database},
    store::{
        identity::{Kind, Subject},
        transaction::{Durability, Failure},
    },
    worker::{
        lifecycle::without_patience,
        state::{AGAIN_AFTER, Worker, failure_log::READ},
    },
};

impl Worker {
    /// Updates the numbers of servers and roles, at the start and after somebody has renamed or dropped one.
    pub fn update_identities(&mut self) {
        let (store, new) = (&self.store, &self.identities.new);
        // Nobody's call waits for it, also where somebody has the table locked.
        let found = without_patience(|| {
            store.write(Durability::Deferred, |writer| {
                free_dropped(|database| database::database(pg_sys::Oid::from(database)).is_some());
                writer.update_identities(new)?;
                Ok((writer.identities()?, writer.missing_identities(new)?))
            })
        });
        self.identities.again_at = found.is_err().then(|| since_boot() + AGAIN_AFTER);
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
                worker_registry::notify_identities(self.database);
                match failure {
                    // Nothing goes before they are known: what has a number would be given another one.
                    failure if self.identities.known.is_empty() => self.on_failure(failure),
                    Failure::NotInstalled => self.extension_dropped(),
                    Failure::Busy => {}
                    Failure::Error(why) => self.failures.raise(READ, &why),
                }
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
            // Not tried again: the session itself may be the one that has the table locked.
            Err(Failure::Busy) => self.respond(
                call_id,
                &Response::Error(Error::lock_not_available(
                    "otp_gateway_internal.identity is locked by another transaction, or by your own; nothing was \
                     queued",
                    "pg_locks tells by whom. Who locks tables of otp_gateway calls its functions after the COMMIT.",
                )),
            ),
            Err(Failure::NotInstalled) => {
                self.respond(call_id, &Response::Error(Error::not_installed()));
                self.extension_dropped();
            }
        }
    }
}
