//! Tells whether anything can be put on record here.

use pgrx::pg_sys;

use crate::error::Error;

pub fn is_standby() -> bool {
    // SAFETY: reads state of the server.
    unsafe { pg_sys::RecoveryInProgress() }
}

pub fn may_write() -> Result<(), Error> {
    // SAFETY: reads state of this session and of the server.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            return Err(Error::read_only_transaction(
                "cannot run on a standby: every attempt is put on record",
                "Connect to the primary.",
            ));
        }
        if pg_sys::IsInParallelMode() {
            return Err(Error::invalid_transaction_state(
                "cannot run during a parallel operation: every attempt is put on record",
                "Functions that call it are PARALLEL UNSAFE, which is the default.",
            ));
        }
        if pg_sys::XactReadOnly {
            return Err(Error::read_only_transaction(
                "cannot run in a read-only transaction: every attempt is put on record",
                "SET TRANSACTION READ WRITE, or call it outside.",
            ));
        }
    }
    Ok(())
}
