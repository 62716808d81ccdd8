//! The checks of shared memory and of the settings.

use policy::Timestamp;

use crate::{
    api::health::{HealthCheck, Level, seconds},
    gucs,
    ipc::{
        slot,
        worker_registry::{self, WorkerState},
    },
    pg::{
        clock::{SinceBoot, clock, since_boot},
        database, foreign_servers, settings,
        writable::is_standby,
    },
    provider::lookup::dialect_of,
};

/// How long a call may wait, or a round of the worker take, in microseconds, before it counts as stuck.
const STUCK: i64 = 5_000_000;
/// How long a queued send that could go may wait, in microseconds, before it is a warning.
const SLOW: i64 = 30_000_000;
/// How late the record may be purged, in microseconds, before it is a warning.
const LATE: i64 = 86_400_000_000;

const WAITING: &str =
    "pg_stat_activity (backend_type otp_gateway worker) says what the worker waits for, pg_locks for whose lock.";

/// Checks that a worker makes the calls, or can be started.
pub fn worker() -> HealthCheck {
    if is_standby() {
        return HealthCheck::ok("worker", "this is a standby: the primary sends");
    }
    if !worker_registry::has_launcher() {
        let hint = "It is started anew within seconds; if it is not: the server's log, and max_worker_processes.";
        return HealthCheck::bad("worker", Level::Critical, "the launcher is not there: no worker is started", hint);
    }
    let database = database::current();
    let state = worker_registry::state_of(database);
    if matches!(state, WorkerState::Crashed | WorkerState::NoPlace) {
        let status = worker_registry::status_of(database);
        let (what, hint) = match state {
            WorkerState::Crashed => ("it has died", "The server's log has the reason; it is started anew by itself."),
            _ => ("there is no place for it", "Raise max_worker_processes (restart) or otp_gateway.max_workers."),
        };
        return HealthCheck::bad("worker", Level::Critical, format!("{what}: {}", status.reason), hint)
            .valued(f64::from(status.crashes));
    }
    if let (count, Some(first)) = slot::untaken(database.to_u32())
        && is_stuck(first)
    {
        let detail = format!("{count} calls wait for the worker to take them up, the first for {} s", whole(first));
        return stuck(detail, WAITING, first);
    }
    if let Some(since) = worker_registry::unseen_since(database).filter(|since| is_stuck(*since)) {
        let detail = format!("what was enqueued and committed {} s ago has not been looked at", whole(since));
        return stuck(detail, WAITING, since);
    }
    match state {
        WorkerState::Running => running(database),
        WorkerState::Starting | WorkerState::Wanted => HealthCheck::ok("worker", "it is being started"),
        _ => HealthCheck::ok("worker", "none is needed now: it comes when somebody calls or something is due"),
    }
}

fn running(database: pgrx::pg_sys::Oid) -> HealthCheck {
    let Some(report) = worker_registry::report_of(database) else {
        return HealthCheck::ok("worker", "it is being started");
    };
    if let Some(since) = report.held_up_since().filter(|since| is_stuck(*since)) {
        let detail = format!("for {} s it could not put on record what it has", whole(since));
        let hint =
            "A lock on the record (pg_locks), or a full disk: the server's log says which. Calls wait meanwhile.";
        return stuck(detail, hint, since);
    }
    if let Some(since) = report.busy_since().filter(|since| is_stuck(*since)) {
        let detail = format!("it has been at one step for {} s", whole(since));
        let hint = "pg_stat_activity (backend_type otp_gateway worker) says what it waits for: a synchronous standby \
            that is away, the disk, a lock.";
        return stuck(detail, hint, since);
    }
    if let Some(since) = report.refuses_since().filter(|since| is_stuck(*since)) {
        let detail =
            format!("for {} s what calls are about could not be put on record: they are refused", whole(since));
        let hint = "A full disk, as a rule: the server's log has the reason. Nothing is sent meanwhile.";
        return stuck(detail, hint, since);
    }
    HealthCheck::ok("worker", "running").since(report.began_at())
}

fn is_stuck(since: SinceBoot) -> bool {
    since_boot().since(since) > STUCK
}

fn whole(since: SinceBoot) -> i64 {
    since_boot().since(since) / 1_000_000
}

fn stuck(detail: String, hint: &str, since: SinceBoot) -> HealthCheck {
    let for_so_long = since_boot().since(since);
    HealthCheck::bad("worker", Level::Critical, detail, hint)
        .valued(seconds(for_so_long))
        .since(Some(Timestamp(clock().0 - for_so_long)))
}

/// Checks whether sends are held back on purpose.
pub fn paused() -> HealthCheck {
    if gucs::pause() {
        let hint = "ALTER SYSTEM RESET otp_gateway.pause; SELECT pg_reload_conf();";
        return HealthCheck::bad("paused", Level::Warning, "otp_gateway.pause is on: nothing is sent", hint);
    }
    let is_on = |(name, value): &(String, String)| name == "paused" && settings::boolean(value) == Some(true);
    let mut paused: Vec<String> = foreign_servers::servers()
        .into_iter()
        .filter(|server| server.options.iter().any(is_on))
        .filter(|server| dialect_of(&foreign_servers::wrapper_name(server.wrapper)).is_some())
        .map(|server| server.name)
        .collect();
    if paused.is_empty() {
        return HealthCheck::ok("paused", "nothing is paused");
    }
    paused.sort_unstable();
    let detail = format!("option paused: nothing is sent through {}", paused.join(", "));
    HealthCheck::bad("paused", Level::Warning, detail, "ALTER SERVER ... OPTIONS (DROP paused);")
}

/// Checks that queued sends get their turn. Returns None if no worker of this database has reported.
pub fn queue() -> Option<HealthCheck> {
    let report = worker_registry::report_of(database::current()).filter(|_| !is_standby())?;
    let queued = report.queued();
    let (ready, parked) = (queued.ready, queued.parked);
    let detail = format!("{ready} may go now, {parked} wait for another try or for their provider");
    let age = queued.oldest_ready_at.map_or(0, |at| clock().since(at).max(0));
    let level = match age {
        age if age > gucs::queue_max_age() / 2 => Level::Critical,
        age if age > SLOW.min(gucs::queue_max_age() / 4) => Level::Warning,
        _ => Level::Ok,
    };
    let check = if level == Level::Ok {
        HealthCheck::ok("queue", detail)
    } else {
        let hint = "More is queued than max_in_flight lets out, the vendor is slow, or the worker is stuck: rows \
            provider, worker and paused. After otp_gateway.queue_max_age they are expired, unsent.";
        HealthCheck::bad("queue", level, format!("{detail}; the oldest has for {} s", age / 1_000_000), hint)
    };
    Some(check.valued(seconds(age)).since(queued.oldest_ready_at))
}

/// Checks that old verifications are deleted. Returns None if no worker of this database has reported.
pub fn retention() -> Option<HealthCheck> {
    if gucs::retention().is_none() {
        return Some(HealthCheck::ok("retention", "otp_gateway.retention is 0: everything is kept"));
    }
    let report = worker_registry::report_of(database::current()).filter(|_| !is_standby())?;
    let (oldest, due) = report.oldest_kept_at()?;
    let late = clock().since(due);
    let check = if late > LATE {
        let detail = format!("the record is to be purged, and is {} days behind", late / 86_400_000_000);
        let hint = "Somebody has locked the record or rows of it (pg_locks), or the worker has had no idle moment; \
            otp_gateway.purge(interval) does it by hand.";
        HealthCheck::bad("retention", Level::Warning, detail, hint)
    } else {
        HealthCheck::ok("retention", "what is older than otp_gateway.retention is deleted")
    };
    Some(check.valued(seconds(late)).since(Some(oldest)))
}
