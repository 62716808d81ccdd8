//! Every hook that we put into the server.

pub mod emit_log;
pub mod executor_start;
pub mod extension_presence;
pub mod process_utility;
pub mod row_watch;
pub mod statement_text;
pub mod transaction_end;
