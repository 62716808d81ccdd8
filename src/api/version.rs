//! The version of the library in memory, which an installed package changes only at the next restart of the server.

use crate::{api::function::sql_function, error::Error, store::SCHEMA_VERSION};

sql_function!(
    fn library_version() -> String {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }
);

// For an upgrade script, which must not run under a library that does not know the schema that the script makes.
sql_function!(
    fn require_library(schema: String) -> () {
        if numbers(SCHEMA_VERSION) >= numbers(&schema) {
            return Ok(());
        }
        Err(Error::not_in_prerequisite_state(
            format!(
                "the server runs otp_gateway {}, and the schema of {schema} needs a newer library",
                env!("CARGO_PKG_VERSION")
            ),
            "Restart the server first, so that it loads the library that is installed; then ALTER EXTENSION \
            otp_gateway UPDATE.",
        ))
    }
);

/// Returns a version as numbers, to compare; what is no number counts as the highest.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|number| number.parse().unwrap_or(u64::MAX)).collect()
}
