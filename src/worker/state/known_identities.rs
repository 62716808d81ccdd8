//! The numbers of servers and roles that the worker knows, or has given out.

use std::collections::HashMap;

use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    job::{Action, Job},
    pg::clock::SinceBoot,
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
    /// Numbers given out in a transaction that has not ended.
    pub fresh: Vec<((Kind, u32), Identity)>,
    /// Numbers given out by this worker: the server or role that has one may not be committed yet.
    pub new: Vec<Identity>,
    /// When they are read again; None: the last look was not held up.
    pub again_at: Option<SinceBoot>,
}

impl KnownIdentities {
    pub fn may_be_updated(&self, now: SinceBoot) -> bool {
        self.again_at.is_none_or(|at| at <= now)
    }

    /// Returns the number of a server or role. If it has none, draws one and puts it on record.
    pub fn of(&mut self, writer: &mut StoreTransaction, subject: Subject) -> Result<Identity, Failure> {
        let key = (subject.kind, subject.object);
        let fresh = || self.fresh.iter().find(|(of, _)| *of == key).map(|(_, id)| *id);
        if let Some(id) = self.known.get(&key).copied().or_else(fresh) {
            return Ok(id);
        }
        let id = draw();
        writer.insert_identities(&[(id, subject)]);
        self.fresh.push((key, id));
        Ok(id)
    }

    /// Returns the foreign servers among them, by their OIDs.
    pub fn servers(&self) -> impl Iterator<Item = (Identity, u32)> {
        self.known.iter().filter(|((kind, _), _)| *kind == Kind::Server).map(|((_, object), id)| (*id, *object))
    }

    /// Fills in the numbers of servers and roles under which a job and its fallbacks are put on record.
    pub fn fill(&mut self, writer: &mut StoreTransaction, job: &mut Job) -> Result<(), Failure> {
        // A job may have been filled before, in a transaction that failed, with a number that is not on record.
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

    /// Ends a transaction: keeps the numbers that it gave out if it was committed, else forgets them. Returns whether
    /// there are new ones.
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

/// Draws a number at random, so that rows of two databases can be brought together.
pub fn draw() -> Identity {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    (Identity::from_le_bytes(bytes) & Identity::MAX).max(1)
}
