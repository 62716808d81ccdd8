//! How far back somebody looks into the record: no less of it may be kept.

use policy::{Limits, Micros};

use super::{LONGEST_PENANCE, catalog, dialect_of, micros, options::ServerOptions};
use crate::idempotency;

/// The longest that any provider's limits, or idempotency keys, look back.
pub fn longest_memory() -> Micros {
    let of_server = |server: catalog::Server| {
        let dialect = dialect_of(&catalog::wrapper_name(server.wrapper))?;
        let options = ServerOptions::parse(dialect, &server.options).ok()?;
        let limits = [&options.send_limit, &options.check_limit, &options.provider_limit];
        let longest = limits.into_iter().flatten().map(Limits::reach).max().unwrap_or(0);
        Some(longest.max(micros(options.resend_after)))
    };
    catalog::servers().into_iter().filter_map(of_server).fold(idempotency::LIFE.max(LONGEST_PENANCE), Micros::max)
}
