//! Postgres, made safe: whatever of it the rest of the extension uses, with nothing of one-time passwords in it.

pub mod arguments;
pub mod clock;
pub mod fingerprint;
pub mod foreign_servers;
pub mod process;
pub mod roles;
pub mod row;
pub mod uuid_time;
pub mod values;
pub mod writable;
