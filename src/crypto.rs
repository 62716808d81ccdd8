//! The keys on disk, and what is sealed and found with them.

pub mod key_file;
pub mod seal;
