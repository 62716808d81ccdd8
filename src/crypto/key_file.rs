//! `otp_gateway.key_file`: a key in each line, 64 hexadecimal digits; the first key seals, all keys open. With the data
//! lies a note of the key that sealed last (its id, not the key), so that a key file which is lost, or is another
//! cluster's, is an error, and never silently replaced by a new key.

use std::{
    cell::RefCell,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    rc::Rc,
};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{
    crypto::{
        key_file_error::{missing, open_to_others, refused, unmakable, unreadable, unwritable},
        seal::{KEY_LENGTH, Key, Keys},
    },
    error::{Error, file_error},
    gucs,
    pg::advisory_lock::Tag,
};

/// Tells whether the file is still the one that was read: device, inode, size and time of change.
type FileState = [u64; 5];

thread_local! {
    /// The keys of this process, and the state of the file that they were read from.
    static LOADED: RefCell<Option<(FileState, Rc<Keys>)>> = const { RefCell::new(None) };
}

/// Returns the keys. The file's state is looked at on each use, and the file is read again when the state has changed.
pub fn keys() -> Result<Rc<Keys>, Error> {
    let path = gucs::key_file();
    let metadata = fs::metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(holds_noted),
        _ => unreadable(&error),
    })?;
    if is_open_to_others(&metadata) {
        return Err(open_to_others());
    }
    let state = [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.ctime().unsigned_abs(),
        metadata.ctime_nsec().unsigned_abs(),
    ];
    if let Some(keys) =
        LOADED.with_borrow(|loaded| loaded.as_ref().filter(|(of, _)| *of == state).map(|(_, keys)| Rc::clone(keys)))
    {
        return Ok(keys);
    }
    // The note is read first: a key is in the file before it is noted.
    let noted = fs::read_to_string(gucs::key_note());
    let keys = Rc::new(parse(&read(&path)?)?);
    if let Ok(noted) = noted
        && !keys.ids().any(|id| id == noted.trim())
    {
        return Err(refused("does not hold the key that sealed last in this cluster"));
    }
    LOADED.set(Some((state, Rc::clone(&keys))));
    Ok(keys)
}

/// Returns whether others than the owner may read or write the file. A file of root's may be readable by its group, as
/// Postgres allows for a TLS key: so Kubernetes mounts a secret.
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    metadata.mode() & others != 0
}

/// Makes the file when the server starts, if this cluster never had a key. An error says what is wrong with the file;
/// every later call of a function says it again.
pub fn check_at_start() -> Result<(), Error> {
    if !gucs::key_file().exists() && !gucs::key_note().exists() {
        let made = new_line().and_then(|line| put(&gucs::key_file(), &line));
        made.map_err(|error| unmakable(&error))?;
    }
    keys().map(drop)
}

/// Notes the first key before anything is sealed under it. While no key has sealed, there is no note, and the file that
/// pg_upgrade has left behind may still take its place.
pub fn note_first_use(keys: &Keys) -> Result<(), Error> {
    if gucs::key_note().exists() { Ok(()) } else { note(keys) }
}

/// Puts a new key before the others. The caller must hold [`lock`], so that nobody else does so at the same time.
pub fn add_key() -> Result<(), Error> {
    // Before anything is written, the present file must be whole.
    keys()?;
    let mut text = new_line().map_err(|error| unwritable(&error))?;
    text.push_str(&read(&gucs::key_file())?);
    put(&gucs::key_file(), &text).map_err(|error| unwritable(&error))?;
    // A crash before the note leaves the note of the previous key, which the file still holds.
    note(&*keys()?)
}

/// Returns whether a file holds the key that sealed last in this cluster.
fn holds_noted(path: &Path) -> bool {
    let keys = read(path).and_then(|text| parse(&text));
    let noted = fs::read_to_string(gucs::key_note());
    keys.is_ok_and(|keys| noted.is_ok_and(|noted| keys.ids().any(|id| id == noted.trim())))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(|error| unreadable(&error))
}

fn parse(text: &str) -> Result<Keys, Error> {
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let master = from_hex(line.trim());
        let master = master.ok_or_else(|| refused(&format!("is damaged in line {}", number + 1)))?;
        keys.push(Key::derive(&master));
    }
    Keys::of(keys).ok_or_else(|| refused("is empty"))
}

fn new_line() -> io::Result<Zeroizing<String>> {
    let mut master = Zeroizing::new([0u8; KEY_LENGTH]);
    SystemRandom::new().fill(&mut *master).map_err(|_| io::Error::other("no randomness"))?;
    let mut digits = Zeroizing::new([0u8; 2 * KEY_LENGTH]);
    let digits = base16ct::lower::encode_str(&*master, &mut *digits).map_err(io::Error::other)?;
    Ok(Zeroizing::new(format!("{digits}\n")))
}

/// Notes that the first key seals from now on.
fn note(keys: &Keys) -> Result<(), Error> {
    let id = keys.ids().next().unwrap_or_default();
    put(&gucs::key_note(), &format!("{id}\n")).map_err(|error| {
        Error::not_in_prerequisite_state(
            format!("{} cannot be written: {}", gucs::key_note().display(), file_error(&error)),
            "It belongs to the server's system user; the data directory must have room.",
        )
    })
}

/// Writes a file aside, syncs it and moves it into place: nobody ever reads half a file, and a crash leaves the old one
/// or the new one.
fn put(path: &Path, text: &str) -> io::Result<()> {
    // A symbolic link stays a link: its target is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let aside = path.with_extension(format!("new.{}", std::process::id()));
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&aside, path)) {
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    fs::File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

/// Reads a key in constant time, so that no clock tells which digits it has.
fn from_hex(text: &str) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
    let mut key = Zeroizing::new([0u8; KEY_LENGTH]);
    let decoded = base16ct::mixed::decode(text, &mut *key).ok()?.len();
    (decoded == KEY_LENGTH).then_some(key)
}

/// Lets nobody else in the cluster change the file until the end of this transaction. An interrupt ends the wait, like
/// any wait for a lock.
pub fn lock() {
    const CLASS: u16 = 8;
    Tag { class: CLASS, database: 0, key: 0 }.lock_for_transaction();
}
