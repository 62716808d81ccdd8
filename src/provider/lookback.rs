//! How far back limits and idempotency keys look into the record: at least so much of it must be kept.

use policy::{IDEMPOTENCY_WINDOW, Limits, Micros};

use crate::{
    pg::foreign_servers,
    provider::{description, lookup::MAX_CHECK_WINDOW, option_value::micros, server_options::ServerOptions},
};

/// Returns the longest time that any provider's limits, or idempotency keys, look back, in microseconds.
pub fn longest_memory() -> Micros {
    let of_server = |server: foreign_servers::Server| {
        let dialect = description::of_server(&server).ok()?;
        let options = ServerOptions::parse(&dialect, &server.options).ok()?;
        let limits = [&options.send_limit, &options.check_limit, &options.provider_limit];
        let longest = limits.into_iter().flatten().map(Limits::reach).max().unwrap_or(0);
        Some(longest.max(micros(options.resend_after)))
    };
    foreign_servers::servers()
        .into_iter()
        .filter_map(of_server)
        .fold(IDEMPOTENCY_WINDOW.max(MAX_CHECK_WINDOW), Micros::max)
}
