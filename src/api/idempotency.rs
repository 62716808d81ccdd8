//! One key, one verification: who comes with a key holds a lock on it until its verification is there to be found. The
//! worker never waits for a session, so the lock is the sessions' own.

use std::panic::UnwindSafe;

use pgrx::{PgSqlErrorCode, PgTryBuilder};
use policy::{IDEMPOTENCY_WINDOW, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    ipc::{call::interrupted_wait, identify::identity},
    pg::{
        advisory_lock::{SessionLock, Tag},
        clock::clock,
        database, foreign_servers,
        roles::current_role,
    },
    provider::lookup,
    store::{
        identity::{Kind, Subject},
        rows::IdempotencyHashes,
        sealing_key,
        session_reads::{KeyedVerification, find_by_key},
    },
};

/// A longer key is refused.
const MAX_KEY_BYTES: usize = 256;
/// The class of these locks.
const LOCK_CLASS: u16 = 7;

/// A key in use; dropped, it is free for others.
pub struct Claim {
    pub idempotency: IdempotencyHashes,
    _lock: Option<SessionLock>,
}

/// How long a claim is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Until the worker has answered: the verification is committed then.
    Call,
    /// Until the end of the transaction, with which the verification comes to be or not.
    Transaction,
}

/// Older verifications have lost their keys.
pub fn since() -> Timestamp {
    clock() - IDEMPOTENCY_WINDOW
}

/// Waits for whoever has the key now, and then returns the verification that it stands for, if there is one.
pub fn claim(
    provider: &str,
    key: &str,
    payload: &Map<String, Value>,
    hold: Hold,
) -> Result<(Claim, Option<KeyedVerification>), Error> {
    let refuse = |what: &str| {
        Err(Error::invalid_parameter(
            format!("idempotency_key {what}"),
            "Give a text of your own choice, unique to this send: a request id.",
        ))
    };
    if key.is_empty() {
        return refuse("is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return refuse("is longer than 256 bytes");
    }
    // Before the wait: who may not send does not learn from it that a key is in use.
    let role = current_role().oid;
    let server = lookup::named(provider)?;
    lookup::check_usage(&server, role)?;
    // Whatever it is called: who takes its name when that is free takes no key with it.
    let provider = identity(&Subject {
        kind: Kind::Server,
        object: server.oid.to_u32(),
        vendor: Some(foreign_servers::vendor_of(&server)),
        name: server.name,
    })?;
    let text = Zeroizing::new(serde_json::to_string(payload).unwrap_or_default());
    let recognise = || -> Result<IdempotencyHashes, Error> {
        let secrets = sealing_key::keys()?;
        Ok(IdempotencyHashes {
            keys: secrets.fingerprints("idempotency key", &format!("{provider}\0{key}")),
            payloads: secrets.fingerprints("payload", &text),
        })
    };
    // Each role has keys of its own: nobody waits for another's. By the oldest key of the file: a new one, which comes
    // before it, changes nothing for those who wait.
    let names = sealing_key::keys()?.fingerprints("idempotency lock", &format!("{}\0{provider}\0{key}", role.to_u32()));
    let under_way = || find_by_key(&recognise()?.keys, since()).map(|found| found.map(|found| found.id));
    let lock = lock(names.last().map_or(&[], Vec::as_slice), hold, under_way)?;
    // After the wait: whoever had it may have put it down under a key that is new since.
    let claim = Claim { idempotency: recognise()?, _lock: lock };
    let found = find_by_key(&claim.idempotency.keys, since())?;
    if found.as_ref().is_some_and(|found| claim.idempotency.payloads.get(found.key) != Some(&found.payload_hash)) {
        return Err(Error::invalid_parameter(
            "idempotency_key was used for another payload at this provider within 24 hours",
            "Use a new key for a new send.",
        ));
    }
    Ok((claim, found))
}

/// Returns what is to be released by hand.
fn lock(
    key: &[u8],
    hold: Hold,
    under_way: impl FnOnce() -> Result<Option<Uuid>, Error>,
) -> Result<Option<SessionLock>, Error> {
    let key = key.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let tag = Tag { class: LOCK_CLASS, database: database::current().to_u32(), key };
    match hold {
        Hold::Call => match tag.lock_at_once() {
            Some(lock) => Ok(Some(lock)),
            None => Ok(Some(wait(under_way()?, move || tag.lock()))),
        },
        Hold::Transaction => {
            if !tag.lock_for_transaction_at_once() {
                wait(under_way()?, move || tag.lock_for_transaction());
            }
            Ok(None)
        }
    }
}

/// Waits for a lock. The record is read before: after an interrupt nothing can be.
fn wait<T>(under_way: Option<Uuid>, lock: impl FnOnce() -> T + UnwindSafe) -> T {
    let waited = PgTryBuilder::new(|| Ok(lock()))
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| Err(Box::new(error)))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |error| Err(Box::new(error)))
        .execute();
    waited.unwrap_or_else(|error| interrupted_wait(&error, under_way))
}
