//! Slots in shared memory through which a session hands a request to the worker of its database and gets the response.
//!
//! Every process has the slot of its own process number, so there is nothing to allocate and nothing to run out of. A
//! request longer than a slot goes in parts. A session that gives up (cancel, timeout, terminate) takes its slot back
//! under the slot's lock and a new call number; the worker, which has its own copy of the request, finishes the call
//! and finds nobody to tell. What lay in a slot is wiped when it is read: requests hold codes and credentials.

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
static PARTS: [&Part; 3] = [&worker_registry::REGISTRY, &slot::SLOTS, &statistics::STATISTICS];

/// In `_PG_init` of the postmaster: asks for the shared memory.
pub fn init() {
    segment::init(&PARTS);
}
