//! One key, one verification: who comes with a key holds a lock on it until its verification is there to be found. The
//! worker never waits for a session, so the lock is the sessions' own.

use pgrx::pg_sys;
use policy::{IDEMPOTENCY_WINDOW, Micros};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    crypto::key_file,
    error::Error,
    ipc::identify::identity,
    pg::{clock::clock, foreign_servers, roles::current_role},
    provider::lookup,
    store::{
        identity::{Kind, Subject},
        rows::IdempotencyHashes,
        session_reads::{KeyedVerification, find_by_key},
    },
};

/// A longer key is refused.
const MAX_KEY_BYTES: usize = 256;
/// The class of our advisory locks: applications' own have 1 and 2.
const LOCK_CLASS: u16 = 7;

/// A key in use; dropped, it is free for others.
pub struct Claim {
    pub idempotency: IdempotencyHashes,
    lock: Option<pg_sys::LOCKTAG>,
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
pub fn since() -> Micros {
    clock().saturating_sub(IDEMPOTENCY_WINDOW)
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
        let secrets = key_file::keys()?;
        Ok(IdempotencyHashes {
            keys: secrets.fingerprints("idempotency key", &format!("{provider}\0{key}")),
            payloads: secrets.fingerprints("payload", &text),
        })
    };
    // Each role has keys of its own: nobody waits for another's. By the oldest key of the file: a new one, which comes
    // before it, changes nothing for those who wait.
    let names = key_file::keys()?.fingerprints("idempotency lock", &format!("{}\0{provider}\0{key}", role.to_u32()));
    let lock = lock(names.last().map_or(&[], Vec::as_slice), hold);
    // After the wait: whoever had it may have put it down under a key that is new since.
    let claim = Claim { idempotency: recognise()?, lock };
    let found = find_by_key(&claim.idempotency.keys, since())?;
    if found.as_ref().is_some_and(|found| claim.idempotency.payloads.get(found.key) != Some(&found.payload_hash)) {
        return Err(Error::invalid_parameter(
            "idempotency_key was used for another payload at this provider within 24 hours",
            "Use a new key for a new send.",
        ));
    }
    Ok((claim, found))
}

/// Ends by an interrupt, like any wait for a lock. Returns what is to be released by hand.
fn lock(key: &[u8], hold: Hold) -> Option<pg_sys::LOCKTAG> {
    let hash = key.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    // SAFETY: a lock tag of plain numbers; a lock of the transaction is released with it, one of the session by Claim,
    // or at the end of the session.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: (hash >> 32) as u32,
            locktag_field3: hash as u32,
            locktag_field4: LOCK_CLASS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        let of_session = hold == Hold::Call;
        pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, of_session, false);
        of_session.then_some(tag)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(tag) = &self.lock {
            // SAFETY: held since lock(), by this session.
            unsafe { pg_sys::LockRelease(tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, true) };
        }
    }
}
