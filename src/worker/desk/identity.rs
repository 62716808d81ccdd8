//! The numbers of servers and roles, as the worker gives them out: in the transaction that needs them first.

use std::collections::HashMap;

use ring::rand::{SecureRandom, SystemRandom};

use super::Desk;
use crate::{
    identity::{Identity, Kind, Subject},
    ledger::{Durability, Failure, Writer},
    letter::{Letter, Order, Reply},
    mailbox::Ticket,
    misuse::Misuse,
    provider::UNROUTED,
};

#[derive(Default)]
pub struct Identities {
    known: HashMap<(Kind, u32), Identity>,
    /// Given out in a transaction that has not ended.
    fresh: Vec<((Kind, u32), Identity)>,
    /// Given out by this worker: what they are for may not be committed yet.
    new: Vec<Identity>,
}

impl Identities {
    /// The number of each of these, put down if there was none.
    pub fn of(&mut self, writer: &mut Writer, subject: Subject) -> Result<Identity, Failure> {
        let key = (subject.kind, subject.object);
        let fresh = || self.fresh.iter().find(|(of, _)| *of == key).map(|(_, id)| *id);
        if let Some(id) = self.known.get(&key).copied().or_else(fresh) {
            return Ok(id);
        }
        let id = draw();
        writer.insert_identities(&[(id, subject)])?;
        self.fresh.push((key, id));
        Ok(id)
    }

    /// What an order and those after it are put down under.
    pub fn fill(&mut self, writer: &mut Writer, order: &mut Order) -> Result<(), Failure> {
        // Also if it was filled before: in a transaction that failed, with a number that is not on record.
        if order.server != 0 {
            order.provider_id = self.of(
                writer,
                Subject {
                    kind: Kind::Server,
                    object: order.server,
                    name: order.provider.clone(),
                    vendor: Some(order.vendor.clone()),
                },
            )?;
        }
        order.role_id = self.of(
            writer,
            Subject { kind: Kind::Role, object: order.role, name: order.created_by.clone(), vendor: None },
        )?;
        if let Some((name, object)) = order.route.clone() {
            let vendor = Some(UNROUTED.to_owned());
            order.route_id = Some(self.of(writer, Subject { kind: Kind::Server, object, name, vendor })?);
        }
        order.onward.iter_mut().try_for_each(|order| self.fill(writer, order))
    }

    /// The transaction has ended: what it gave out is so, or never was.
    pub fn settle(&mut self, committed: bool) {
        let fresh = std::mem::take(&mut self.fresh);
        if committed {
            self.new.extend(fresh.iter().map(|(_, id)| *id));
            self.known.extend(fresh);
        }
    }
}

/// By lot: rows of two databases can be brought together.
fn draw() -> Identity {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    (Identity::from_le_bytes(bytes) & Identity::MAX).max(1)
}

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
                crate::roster::tell_of_identities(self.database);
                self.after(failure);
            }
        }
    }

    /// For a session that is about to enqueue.
    pub(super) fn identify(&mut self, ticket: Ticket, subject: Subject) {
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
