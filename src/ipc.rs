//! Shared memory between sessions and workers. Through a slot a session hands a request to the worker of its database
//! and gets the response.
//!
//! Every process has the slot of its own process number, so that there is nothing to allocate and nothing to run out
//! of. A request that is longer than a slot goes in parts. A session that gives up (cancel, timeout, terminate) takes
//! its slot back, under the slot's lock and with a new call number; the worker, which has a copy of the request,
//! finishes the call and finds nobody to tell. The content of a slot is wiped when it is read: requests hold codes and
//! credentials.

pub mod call;
pub mod identify;
pub mod message;
pub mod segment;
pub mod session;
pub mod slot;
pub mod spin_lock;
pub mod statistics;
pub mod worker;
pub mod worker_registry;
pub mod worker_report;

use crate::ipc::segment::Part;

/// What lies in shared memory.
static PARTS: [&Part; 4] = [&worker_registry::REGISTRY, &slot::STATES, &slot::SLOTS, &statistics::STATISTICS];

/// Asks for the shared memory; called in `_PG_init` of the postmaster.
pub fn init() {
    segment::init(&PARTS);
}
