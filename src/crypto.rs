//! The keys on disk, and what is sealed and recognised with them.

pub mod key_file;
mod key_file_error;
pub mod seal;
