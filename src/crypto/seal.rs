//! Sealing and fingerprints. What must be kept of an open verification is sealed: AES-256-GCM under a key that is not
//! in the database, bound to the verification's id, so that the seal of a row does not open in another row. Recipients
//! are found by an HMAC under a key derived from the same master key; a plain hash of ten digits is reversed in
//! seconds.

use dialect::Secret;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{error::Error, pg::database};

pub const KEY_LENGTH: usize = 32;
/// Length of the id, in bytes, with which a sealed value begins: it tells which key sealed the value.
const KEY_ID_LENGTH: usize = 4;

/// One key: what is derived from a line of the key file.
pub struct Key {
    aead: LessSafeKey,
    recipients: hmac::Key,
    id: [u8; KEY_ID_LENGTH],
}

/// The keys of `otp_gateway.key_file`, at least one: the first key seals, all keys open.
pub struct Keys(Vec<Key>);

/// Where a sealed value belongs: it opens at no other place.
pub enum Place {
    /// A verification: what a later operation on it needs.
    Verification(Uuid),
    /// The payload of a queued send, bound to this database and this cluster: a copy of the database must not send
    /// again.
    Queued(Uuid, u64),
}

impl Place {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Verification(id) => id.as_bytes().to_vec(),
            Self::Queued(_, cluster) => [self.bytes_before(), cluster.to_le_bytes().to_vec()].concat(),
        }
    }

    /// Returns the place as it was written before 0.4.0: payloads that were queued then still open, as long as they may
    /// stay queued.
    fn bytes_before(&self) -> Vec<u8> {
        match self {
            Self::Verification(id) => id.as_bytes().to_vec(),
            Self::Queued(id, _) => {
                let database = database::current().to_u32();
                [&id.as_bytes()[..], &database.to_le_bytes()].concat()
            }
        }
    }
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_LENGTH
    }
}

impl Key {
    pub fn derive(master: &[u8; KEY_LENGTH]) -> Self {
        let source = hkdf::Salt::new(hkdf::HKDF_SHA256, b"otp_gateway").extract(master);
        let derived = |purpose: &[u8]| {
            let mut key = Zeroizing::new([0u8; KEY_LENGTH]);
            source
                .expand(&[purpose], KeyLength)
                .and_then(|okm| okm.fill(&mut *key))
                .expect("32 bytes are within HKDF's limit");
            key
        };
        let mut id = [0; KEY_ID_LENGTH];
        id.copy_from_slice(&digest::digest(&digest::SHA256, &*derived(b"key id")).as_ref()[..KEY_ID_LENGTH]);
        let sealing = UnboundKey::new(&AES_256_GCM, &*derived(b"seal")).expect("the key has AES-256's length");
        Self {
            aead: LessSafeKey::new(sealing),
            recipients: hmac::Key::new(hmac::HMAC_SHA256, &*derived(b"recipient")),
            id,
        }
    }

    fn seal(&self, place: &Place, mut text: Vec<u8>) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system has randomness");
        let mut sealed = Vec::with_capacity(KEY_ID_LENGTH + NONCE_LEN + text.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        // The text is encrypted in place, so that no clear text stays behind.
        self.aead
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.bytes()), &mut text)
            .expect("AES-GCM seals anything of this size");
        sealed.append(&mut text);
        sealed
    }

    fn fingerprint(&self, purpose: &str, text: &str) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.recipients);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(text.as_bytes());
        context.sign().as_ref().to_vec()
    }
}

impl Keys {
    /// Returns None if there is no key.
    pub fn of(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Returns the ids of the keys, in the order of the keys.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|key| base16ct::lower::encode_string(&key.id))
    }

    pub fn seal(&self, place: &Place, keep: &Map<String, Value>) -> Vec<u8> {
        self.0[0].seal(place, serde_json::to_vec(keep).expect("a JSON object can be written"))
    }

    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Map<String, Value>, Error> {
        let text = self.open_text(place, sealed);
        text.and_then(|text| serde_json::from_slice(&text).ok()).ok_or_else(|| {
            Error::not_in_prerequisite_state(
                "what was kept of this verification was sealed under another key",
                "Restore the file otp_gateway.key_file that belongs to this database, or begin anew with otp_send.",
            )
        })
    }

    /// Returns the value sealed anew under the first key. Returns None if the first key sealed it already, or if no key
    /// in the file opens it.
    pub fn reseal(&self, place: &Place, sealed: &[u8]) -> Option<Vec<u8>> {
        if self.sealed_now(sealed) {
            return None;
        }
        let mut text = self.open_text(place, sealed)?;
        Some(self.0[0].seal(place, std::mem::take(&mut *text)))
    }

    /// Returns whether one of the keys made this seal.
    pub fn know(&self, sealed: &[u8]) -> bool {
        self.0.iter().any(|key| sealed.starts_with(&key.id))
    }

    /// Returns whether the first key made this seal.
    pub fn sealed_now(&self, sealed: &[u8]) -> bool {
        sealed.starts_with(&self.0[0].id)
    }

    fn open_text(&self, place: &Place, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, rest) = sealed.split_at_checked(KEY_ID_LENGTH)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        let key = self.0.iter().find(|key| key.id == id)?;
        let open = |place: Vec<u8>| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = Zeroizing::new(text.to_vec());
            let length = key.aead.open_in_place(nonce, Aad::from(place), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        };
        open(place.bytes()).or_else(|| open(place.bytes_before()))
    }

    /// Returns fingerprints by which a text is recognised without being kept: one under each key, in their order. The
    /// same text has another fingerprint for another purpose.
    pub fn fingerprints(&self, purpose: &str, text: &str) -> Vec<Vec<u8>> {
        self.0.iter().map(|key| key.fingerprint(purpose, text)).collect()
    }

    /// Returns the fingerprint of what an account's calls depend on, by which a change of it is noticed. A new first
    /// key changes the fingerprint, too.
    pub fn configuration(&self, configuration: &Secret) -> Vec<u8> {
        self.0.first().map_or_else(Vec::new, |key| key.fingerprint("configuration", configuration.reveal()))
    }

    /// Returns the keys by which a recipient is found, in any spelling that normalises to the same text: one under each
    /// key of the file, in their order.
    pub fn recipients(&self, recipient: &Secret) -> Vec<Vec<u8>> {
        let sign = |key: &Key| hmac::sign(&key.recipients, recipient.reveal().as_bytes()).as_ref().to_vec();
        self.0.iter().map(sign).collect()
    }
}
