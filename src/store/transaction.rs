//! One transaction of the worker, in which the extension's tables are there and this database's own.

use pgrx::spi::SpiClient;

pub use crate::pg::worker_transaction::{Durability, Failure};
use crate::{
    pg::worker_transaction::{self, lock_to_write},
    store::replica,
};

pub fn run<R>(durability: Durability, body: impl FnOnce(&mut SpiClient) -> Result<R, Failure>) -> Result<R, Failure> {
    worker_transaction::run(c"otp_gateway: recording attempts", durability, tables_are_there, body)
}

/// That the tables are there, and cannot be dropped in between: the lock is of the one that has had its name in every
/// version, in its schema or, before 0.6.0, in that of the views. A record that is replicated from another database is
/// that one's.
fn tables_are_there() -> Result<(), Failure> {
    let are_there = lock_to_write(c"otp_gateway_internal", c"reference") || lock_to_write(c"otp_gateway", c"reference");
    if !are_there || replica::is_replicated() { Err(Failure::NotInstalled) } else { Ok(()) }
}
