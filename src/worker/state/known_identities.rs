//! The numbers of servers and roles that the worker has given out.

use std::collections::HashMap;

use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    job::{Action, Job},
    provider::lookup::VENDOR_NOT_CHOSEN,
    store::{
        StoreTransaction,
        identity::{Identity, Kind, Subject},
        transaction::Failure,
    },
};

#[derive(Default)]
pub struct KnownIdentities {
    pub known: HashMap<(Kind, u32), Identity>,
    /// Given out in a transaction that has not ended.
    pub fresh: Vec<((Kind, u32), Identity)>,
    /// Given out by this worker: what they are for may not be committed yet.
    pub new: Vec<Identity>,
}

impl KnownIdentities {
    /// The number of each of these, put down if there was none.
    pub fn of(&mut self, writer: &mut StoreTransaction, subject: Subject) -> Result<Identity, Failure> {
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

    /// The foreign servers among them.
    pub fn servers(&self) -> impl Iterator<Item = (Identity, u32)> {
        self.known.iter().filter(|((kind, _), _)| *kind == Kind::Server).map(|((_, object), id)| (*id, *object))
    }

    /// What a job and those after it are put down under.
    pub fn fill(&mut self, writer: &mut StoreTransaction, job: &mut Job) -> Result<(), Failure> {
        // Also if it was filled before: in a transaction that failed, with a number that is not on record.
        if let Some(account) = &job.account {
            job.provider_id = self.of(
                writer,
                Subject {
                    kind: Kind::Server,
                    object: account.server,
                    name: job.provider.clone(),
                    vendor: Some(job.vendor.clone()),
                },
            )?;
        }
        job.role_id = self
            .of(writer, Subject { kind: Kind::Role, object: job.role, name: job.created_by.clone(), vendor: None })?;
        let Action::Send(send) = &mut job.action else { return Ok(()) };
        if let Some(route) = &mut send.route {
            let (name, vendor) = (route.name.clone(), Some(VENDOR_NOT_CHOSEN.to_owned()));
            route.id = self.of(writer, Subject { kind: Kind::Server, object: route.server, name, vendor })?;
        }
        send.fallbacks.iter_mut().try_for_each(|job| self.fill(writer, job))
    }

    /// The transaction has ended: what it gave out is so, or never was. Returns whether there is something new.
    pub fn settle(&mut self, committed: bool) -> bool {
        let fresh = std::mem::take(&mut self.fresh);
        let is_new = committed && !fresh.is_empty();
        if committed {
            self.new.extend(fresh.iter().map(|(_, id)| *id));
            self.known.extend(fresh);
        }
        is_new
    }
}

/// By lot: rows of two databases can be brought together.
pub fn draw() -> Identity {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    (Identity::from_le_bytes(bytes) & Identity::MAX).max(1)
}
