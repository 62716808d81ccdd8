//! The number of a server or role, which the worker gives out.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    error::Misuse,
    ipc::{
        call::send,
        message::{Letter, Reply, unexpected},
    },
    store::identity::{Identity, Subject, identities_of, known},
};

/// The number under which something is put down; the worker is asked for one that there is not yet.
pub fn identity(subject: &Subject) -> Result<Identity, Misuse> {
    let key = (subject.kind, subject.object);
    if let Some(id) = known(|known| known.identities.get(&key).copied()) {
        return Ok(id);
    }
    let found = || Ok::<_, Misuse>(identities_of(subject.kind, pg_sys::Oid::from(subject.object))?.first().copied());
    let id = loop {
        if let Some(id) = found()? {
            break id;
        }
        match send(&Letter::Identify(subject.clone()), Uuid::nil())? {
            Reply::Settled | Reply::Again => {}
            Reply::Refused(misuse) => return Err(misuse),
            Reply::Done(_) | Reply::Kept(_) | Reply::Unknown => return Err(unexpected()),
        }
    };
    known(|known| known.identities.insert(key, id));
    Ok(id)
}
