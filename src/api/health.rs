//! `otp_gateway.health`: what is wrong, a row for each check. It is meant for the moment when all else is stuck: it
//! asks no worker, waits for no lock, reads no more of a long record than of a short one, and raises no error.

pub mod conversion_checks;
pub mod credential_checks;
pub mod record_checks;
pub mod server_checks;

use policy::{Micros, Timestamp};
use serde_json::{Value, json};

use crate::{
    api::function::sql_function,
    ipc::segment,
    pg::{
        clock::unix_seconds,
        roles::{current_user, reads_all_stats},
    },
    store::{SCHEMA_VERSION, scan},
};

sql_function!(
    fn health_rows() -> pgrx::JsonB {
        Ok(pgrx::JsonB(checks().into_iter().map(HealthCheck::json).collect()))
    }
);

/// How bad a check's result is, in the numbers of Nagios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    /// The check could not be made.
    Unknown = 3,
}

/// A row of `otp_gateway.health`.
pub struct HealthCheck {
    name: &'static str,
    level: Level,
    value: Option<f64>,
    since: Option<Timestamp>,
    detail: String,
    hint: Option<String>,
}

impl HealthCheck {
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, value: None, since: None, detail: detail.into(), hint: None }
    }

    pub fn bad(name: &'static str, level: Level, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level, hint: Some(hint.into()), ..Self::ok(name, detail) }
    }

    /// The row of a check whose table somebody has locked.
    pub fn locked(name: &'static str) -> Self {
        let hint = "pg_locks says by whom; while it lasts, calls wait, too.";
        Self::bad(name, Level::Unknown, "not looked at: somebody has the record locked", hint)
    }

    pub fn valued(self, value: f64) -> Self {
        Self { value: Some(value), ..self }
    }

    pub fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }

    /// Leaves only how bad it is and what to do, for a role that may see neither others' calls nor where the key lies.
    fn without_detail(self) -> Self {
        let detail = "the detail is for members of pg_monitor".to_owned();
        Self { value: None, since: None, detail, ..self }
    }

    fn json(self) -> Value {
        json!({
            "name": self.name,
            "status": match self.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Critical => "critical",
                Level::Unknown => "unknown",
            },
            "level": self.level as i32,
            "value": self.value,
            "since": self.since.map(unix_seconds),
            "detail": self.detail,
            "hint": self.hint,
        })
    }
}

/// Returns microseconds as seconds.
pub fn seconds(length: Micros) -> f64 {
    length.max(0) as f64 / 1e6
}

fn checks() -> Vec<HealthCheck> {
    let preloaded = segment::check();
    let is_preloaded = preloaded.is_ok();
    let mut checks = vec![match preloaded {
        Ok(()) => HealthCheck::ok("library", format!("{} is preloaded", env!("CARGO_PKG_VERSION"))),
        Err(error) => HealthCheck::bad("library", Level::Critical, error.message(), error.hint()),
    }];
    let is_ours = version(&mut checks);
    let sees_all = reads_all_stats(current_user());
    let shown = |check: HealthCheck| if sees_all { check } else { check.without_detail() };
    if is_preloaded {
        checks.push(server_checks::paused());
        checks.extend(is_ours.then(record_checks::key_file).map(shown));
        checks.push(shown(server_checks::worker()));
        checks.extend([server_checks::queue(), server_checks::retention()].into_iter().flatten().map(shown));
    }
    if is_preloaded {
        checks.extend(credential_checks::certificates(sees_all));
        checks.extend(credential_checks::credentials(sees_all));
    }
    if is_ours {
        checks.extend(record_checks::providers(sees_all));
        checks.extend(record_checks::sends().map(shown));
        checks.extend(conversion_checks::conversion().into_iter().map(shown));
    }
    checks
}

/// Adds the row `version`, and returns whether the schema is the one that this library works with: only then can the
/// record be read.
fn version(checks: &mut Vec<HealthCheck>) -> bool {
    let schema = scan::version().unwrap_or_default();
    let is_ours = schema == SCHEMA_VERSION;
    checks.push(if is_ours {
        HealthCheck::ok("version", format!("the schema is {schema}, which the library works with"))
    } else {
        HealthCheck::bad(
            "version",
            Level::Critical,
            format!("the schema is {schema}, and the library works with {SCHEMA_VERSION}: every call is refused"),
            "ALTER EXTENSION otp_gateway UPDATE; and restart the server if a new library was installed.",
        )
    });
    is_ours
}
