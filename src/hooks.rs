//! The hooks that see statements, errors and dropped objects, and the end of a transaction. (Shared memory has hooks of
//! its own in `ipc::segment`.)

pub mod dropped_triggers;
pub mod emit_log;
pub mod executor_start;
pub mod extension_presence;
pub mod process_utility;
pub mod row_watch;
pub mod statement_text;
pub mod transaction_end;
