//! What must be kept of an open verification is kept sealed: AES-256-GCM under a key that is not in the database, bound
//! to the verification's id, so that a row's seal does not open in another row. Recipients are found by an HMAC under
//! a key derived from the same file; a plain hash of ten digits reverses in seconds.

use std::{
    cell::RefCell,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    rc::Rc,
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde_json::{Map, Value};
use uuid::Uuid;
use vendor::Secret;
use zeroize::{Zeroize, Zeroizing};

use crate::{misuse::Misuse, settings};

const KEY_LENGTH: usize = 32;
/// Tells which key sealed a value.
const KEY_ID_LENGTH: usize = 4;

/// The key of `otp_gateway.key_file`.
pub struct Key {
    aead: LessSafeKey,
    recipients: hmac::Key,
    id: [u8; KEY_ID_LENGTH],
}

thread_local! {
    /// The key of this process, and the file that it was read from: device, inode, size and time of change.
    static LOADED: RefCell<Option<([u64; 5], Rc<Key>)>> = const { RefCell::new(None) };
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_LENGTH
    }
}

impl Key {
    /// The key of the file, which is looked at on each use and read again when it has changed: 64 hexadecimal digits,
    /// readable by the server's owner alone.
    pub fn load() -> Result<Rc<Self>, Misuse> {
        let path = settings::key_file();
        let refuse = |what: &str| {
            Misuse::not_ready(
                format!("otp_gateway.key_file {} {what}", path.display()),
                "The file holds 64 hexadecimal digits, belongs to the server's system user and has mode 0600. Restore it from your copy: without it, what is sealed stays sealed.",
            )
        };
        let metadata = fs::metadata(&path).map_err(|error| refuse(&format!("cannot be read: {}", error.kind())))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(refuse("may be read by others than the server's system user"));
        }
        let file = [
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.ctime().unsigned_abs(),
            metadata.ctime_nsec().unsigned_abs(),
        ];
        if let Some(key) =
            LOADED.with_borrow(|loaded| loaded.as_ref().filter(|(of, _)| *of == file).map(|(_, key)| Rc::clone(key)))
        {
            return Ok(key);
        }
        let text = fs::read_to_string(&path)
            .map(Zeroizing::new)
            .map_err(|error| refuse(&format!("cannot be read: {}", error.kind())))?;
        let master = from_hex(text.trim()).ok_or_else(|| refuse("is damaged"))?;
        let key = Rc::new(Self::derive(&master));
        LOADED.set(Some((file, Rc::clone(&key))));
        Ok(key)
    }

    fn derive(master: &[u8; KEY_LENGTH]) -> Self {
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

    /// Seals what a later operation on this verification needs.
    pub fn seal(&self, verification: Uuid, keep: &Map<String, Value>) -> Vec<u8> {
        self.seal_for(verification.as_bytes(), keep)
    }

    /// Seals the payload of a queued send, for this database alone: a copy of it must not send again.
    pub fn seal_queued(&self, verification: Uuid, payload: &Map<String, Value>) -> Vec<u8> {
        self.seal_for(&in_this_database(verification), payload)
    }

    fn seal_for(&self, place: &[u8], keep: &Map<String, Value>) -> Vec<u8> {
        let mut text = serde_json::to_vec(keep).expect("a JSON object can be written");
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system has randomness");
        let mut sealed = Vec::with_capacity(KEY_ID_LENGTH + NONCE_LEN + text.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        // In place: the clear text does not stay behind.
        self.aead
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut text)
            .expect("AES-GCM seals anything of this size");
        sealed.append(&mut text);
        sealed
    }

    /// Opens it again.
    pub fn open(&self, verification: Uuid, sealed: &[u8]) -> Result<Map<String, Value>, Misuse> {
        self.open_for(verification.as_bytes(), sealed)
    }

    /// Opens the payload of a queued send.
    pub fn open_queued(&self, verification: Uuid, sealed: &[u8]) -> Result<Map<String, Value>, Misuse> {
        self.open_for(&in_this_database(verification), sealed)
    }

    fn open_for(&self, place: &[u8], sealed: &[u8]) -> Result<Map<String, Value>, Misuse> {
        let refuse = || {
            Misuse::not_ready(
                "what was kept of this verification was sealed under another key",
                "Restore the file otp_gateway.key_file that belongs to this database, or begin anew with otp_send.",
            )
        };
        let (id, rest) = sealed.split_at_checked(KEY_ID_LENGTH).ok_or_else(refuse)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or_else(refuse)?;
        if id != self.id {
            return Err(refuse());
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refuse())?;
        let mut text = Zeroizing::new(text.to_vec());
        let clear = self.aead.open_in_place(nonce, Aad::from(place), &mut text).map_err(|_| refuse())?;
        serde_json::from_slice(clear).map_err(|_| refuse())
    }

    /// Recognises a text without keeping it; the same text for another purpose is another.
    pub fn fingerprint(&self, purpose: &str, text: &str) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.recipients);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(text.as_bytes());
        context.sign().as_ref().to_vec()
    }

    /// By which a recipient is found, in any spelling that normalises to the same.
    pub fn recipient(&self, recipient: &Secret) -> Vec<u8> {
        hmac::sign(&self.recipients, recipient.reveal().as_bytes()).as_ref().to_vec()
    }
}

/// Where a queued send belongs: a row of this database.
fn in_this_database(verification: Uuid) -> [u8; 20] {
    let mut place = [0; 20];
    place[..16].copy_from_slice(verification.as_bytes());
    // SAFETY: a variable of this process, set when it connected.
    place[16..].copy_from_slice(&unsafe { pgrx::pg_sys::MyDatabaseId }.to_u32().to_le_bytes());
    place
}

/// Makes the key file if there is none. Exclusive and synced: two workers that start at once make one key.
pub fn make_key_file() -> io::Result<()> {
    let path = settings::key_file();
    if path.exists() {
        return Ok(());
    }
    let mut master = Zeroizing::new([0u8; KEY_LENGTH]);
    SystemRandom::new().fill(&mut *master).map_err(|_| io::Error::other("no randomness"))?;
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_LENGTH + 1));
    for byte in master.iter() {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    // Written aside and linked into place: nobody ever reads half a key, and no key is ever replaced.
    let aside = path.with_extension(format!("new.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let made = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&aside, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    fs::remove_file(&aside)?;
    made?;
    fs::File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

fn from_hex(text: &str) -> Option<[u8; KEY_LENGTH]> {
    let mut key = [0u8; KEY_LENGTH];
    if text.len() != 2 * KEY_LENGTH || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let Some(value) = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
        else {
            key.zeroize();
            return None;
        };
        *byte = value;
    }
    Some(key)
}
