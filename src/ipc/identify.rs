//! The identities of servers and roles, as a session gets them: the worker assigns new ones.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    error::Error,
    ipc::{
        call::call,
        message::{Request, Response, unexpected},
    },
    store::identity::{Identity, Subject, identities_of, known},
};

/// Returns the identity of a server or role; asks the worker for one if there is none yet.
pub fn identity(subject: &Subject) -> Result<Identity, Error> {
    let key = (subject.kind, subject.object);
    if let Some(id) = known(|known| known.identities.get(&key).copied()) {
        return Ok(id);
    }
    let found = || Ok::<_, Error>(identities_of(subject.kind, pg_sys::Oid::from(subject.object))?.first().copied());
    let id = loop {
        if let Some(id) = found()? {
            break id;
        }
        match call(&Request::Identify(subject.clone()), Uuid::nil())? {
            Response::Idle | Response::Retry => {}
            Response::Error(error) => return Err(error),
            Response::Row(_)
            | Response::Progress(_)
            | Response::Checked(_)
            | Response::Budget(_)
            | Response::Unknown => {
                return Err(unexpected());
            }
        }
    };
    known(|known| known.identities.insert(key, id));
    Ok(id)
}
