//! One transaction of the worker, in which the extension's tables exist and are written by this database alone.

use pgrx::spi::SpiClient;

pub use crate::pg::worker_transaction::{Durability, Failure};
use crate::{
    pg::worker_transaction::{self, lock_to_write},
    store::replica,
};

pub fn run<R>(durability: Durability, body: impl FnOnce(&mut SpiClient) -> Result<R, Failure>) -> Result<R, Failure> {
    worker_transaction::run(c"otp_gateway: recording attempts", durability, tables_are_there, body)
}

/// Fails if the tables are missing, and keeps them from being dropped: it locks the one table that has had its name in
/// every version, in its schema or, before 0.6.0, in that of the views. Fails, too, if the record is replicated from
/// another database, which alone may write it.
fn tables_are_there() -> Result<(), Failure> {
    let are_there = lock_to_write(c"otp_gateway_internal", c"reference") || lock_to_write(c"otp_gateway", c"reference");
    if !are_there || replica::is_replicated() { Err(Failure::NotInstalled) } else { Ok(()) }
}
