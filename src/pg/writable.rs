//! Whether anything can be put on record here.

use pgrx::pg_sys;

use crate::error::Misuse;

pub fn may_write() -> Result<(), Misuse> {
    // SAFETY: reads state of this session and of the server.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            return Err(Misuse::read_only(
                "cannot run on a standby: every attempt is put on record",
                "Connect to the primary.",
            ));
        }
        if pg_sys::IsInParallelMode() {
            return Err(Misuse::in_parallel(
                "cannot run during a parallel operation: every attempt is put on record",
                "Functions that call it are PARALLEL UNSAFE, which is the default.",
            ));
        }
        if pg_sys::XactReadOnly {
            return Err(Misuse::read_only(
                "cannot run in a read-only transaction: every attempt is put on record",
                "SET TRANSACTION READ WRITE, or call it outside.",
            ));
        }
    }
    Ok(())
}
