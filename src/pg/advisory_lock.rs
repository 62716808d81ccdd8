//! Advisory locks in classes of our own: applications' locks have the classes 1 and 2.

use pgrx::pg_sys;

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// The thing that a lock is about. Each class is one kind of thing.
#[derive(Clone, Copy)]
pub struct Tag {
    pub class: u16,
    /// The database that the thing is in; 0: the thing is the whole cluster's.
    pub database: u32,
    pub key: u64,
}

impl Tag {
    fn locktag(self) -> pg_sys::LOCKTAG {
        pg_sys::LOCKTAG {
            locktag_field1: self.database,
            locktag_field2: (self.key >> 32) as u32,
            locktag_field3: self.key as u32,
            locktag_field4: self.class,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        }
    }

    /// Waits for the lock, and holds it until the end of the transaction. An interrupt ends the wait, like any wait for
    /// a lock.
    pub fn lock_for_transaction(self) {
        self.acquire(false, false);
    }

    /// Takes the lock until the end of the transaction, if nobody has it. Returns false if somebody has it.
    pub fn lock_for_transaction_at_once(self) -> bool {
        self.acquire(false, true)
    }

    /// Waits for the lock, and holds it until it is dropped, or the session ends.
    pub fn lock(self) -> SessionLock {
        self.acquire(true, false);
        SessionLock(self)
    }

    /// Takes the lock until it is dropped, or the session ends. Returns None if somebody has it.
    pub fn lock_at_once(self) -> Option<SessionLock> {
        // Made only where it is held: whatever is made gives it back.
        self.acquire(true, true).then(|| SessionLock(self))
    }

    fn acquire(self, of_session: bool, at_once: bool) -> bool {
        // SAFETY: a lock tag of plain numbers; a session's lock is released by SessionLock, any other with the
        // transaction.
        let result = unsafe { pg_sys::LockAcquire(&self.locktag(), MODE, of_session, at_once) };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// A lock that this session holds until it is dropped.
pub struct SessionLock(Tag);

impl Drop for SessionLock {
    fn drop(&mut self) {
        // SAFETY: held since lock(), by this session.
        unsafe { pg_sys::LockRelease(&self.0.locktag(), MODE, true) };
    }
}
