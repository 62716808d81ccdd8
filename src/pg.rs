//! Postgres, made safe: the parts of it that the rest of the extension uses, with nothing of one-time passwords in
//! them.

pub mod advisory_lock;
pub mod arguments;
pub mod background_worker;
pub mod clock;
pub mod cluster;
pub mod database;
pub mod fingerprint;
pub mod foreign_servers;
pub mod invalidation;
pub mod process;
pub mod relation;
pub mod roles;
pub mod row;
pub mod row_array;
pub mod row_trigger;
pub mod scan;
pub mod session;
pub mod settings;
pub mod table;
pub mod transaction;
pub mod uuid_time;
pub mod values;
pub mod wait_event;
pub mod worker_transaction;
pub mod writable;
