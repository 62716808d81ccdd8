//! The rows of the views `otp_gateway.stat_attempt`, `stat_latency`, `stat_provider` and `stat_worker`: numbers in
//! shared memory, read without asking the worker. As in Postgres' own views, members of pg_read_all_stats see all of
//! them, and others those of the providers that they own.

use std::collections::{BTreeSet, HashMap};

use dialect::Outcome;
use pgrx::pg_sys;
use policy::{Micros, Timestamp};
use serde_json::{Value, json};

use crate::{
    api::{function::sql_function, maintenance::in_parts},
    ipc::{
        message::Maintenance,
        segment, slot,
        statistics::{self, BUCKETS, Latency, ProviderNumbers},
        worker_registry::{self, WorkerState},
        worker_report::Report,
    },
    pg::{
        clock::{clock, since_boot, unix_seconds},
        database,
        foreign_servers::{self, Server},
        roles::{current_user, has_privileges_of, reads_all_stats},
        writable::may_write,
    },
    provider::{
        description,
        lookup::{VENDOR_NOT_CHOSEN, dialect_of, named},
        route::ROUTE,
        server_options::ServerOptions,
    },
    store::{
        SCHEMA_VERSION,
        breakers::OpenBreaker,
        counted::BOUNDS,
        glance,
        identity::{Kind, identities_of},
    },
};

sql_function!(
    fn stat_attempt_rows() -> pgrx::JsonB {
        let mut rows: Vec<Value> = Vec::new();
        for (server, numbers) in seen() {
            rows.extend(numbers.kinds.iter().map(|kind| {
                json!({
                    "provider": server.name,
                    "operation": kind.operation.as_str(),
                    "outcome": kind.outcome.as_str(),
                    "reason": kind.reason.map(policy::BlockReason::as_str),
                    "attempts": kind.count,
                    "total_time": milliseconds(kind.time),
                    "last_at": unix_seconds(kind.last_at),
                    "stats_reset": unix_seconds(numbers.reset_at),
                })
            }));
        }
        let own = statistics::database(database::current().to_u32()).filter(|_| reads_all_stats(current_user()));
        rows.extend(own.filter(|own| own.other_attempts > 0).map(|own| {
            json!({
                "attempts": own.other_attempts,
                "total_time": milliseconds(own.other_time),
                "stats_reset": unix_seconds(own.reset_at),
            })
        }));
        Ok(pgrx::JsonB(Value::Array(rows)))
    }
);

sql_function!(
    fn stat_latency_rows() -> pgrx::JsonB {
        let mut rows: Vec<Value> = Vec::new();
        for (server, numbers) in seen() {
            rows.extend(numbers.latency.iter().filter_map(|latency| latency_row(&server, latency, numbers.reset_at)));
        }
        Ok(pgrx::JsonB(Value::Array(rows)))
    }
);

/// Returns the row of one operation's times; None if there was no call.
fn latency_row(server: &Server, latency: &Latency, reset_at: Timestamp) -> Option<Value> {
    let attempts: u64 = latency.buckets.iter().sum();
    let at_most = latency.buckets.iter().take(BOUNDS.len()).scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    (attempts > 0).then(|| {
        json!({
            "provider": server.name,
            "operation": latency.operation.as_str(),
            "attempts": attempts,
            "total_time": milliseconds(latency.time),
            "mean_time": milliseconds(latency.time) / attempts as f64,
            "p50_time": quantile(&latency.buckets, 0.50),
            "p95_time": quantile(&latency.buckets, 0.95),
            "p99_time": quantile(&latency.buckets, 0.99),
            "bounds": BOUNDS.map(milliseconds),
            "buckets": at_most.collect::<Vec<u64>>(),
            "stats_reset": unix_seconds(reset_at),
        })
    })
}

/// Returns the time in milliseconds within which that share of the calls ended, as far as the buckets tell: in each
/// bucket the calls are taken to lie evenly. Of calls that took longer than the last bound, only that bound is known.
fn quantile(buckets: &[u64; BUCKETS], share: f64) -> f64 {
    let wanted = share * buckets.iter().sum::<u64>() as f64;
    let (mut below, mut from) = (0.0, 0.0);
    for (count, bound) in buckets.iter().zip(BOUNDS.map(milliseconds)) {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            return from + (bound - from) * ((wanted - below) / count);
        }
        below += count;
        from = bound;
    }
    from
}

fn milliseconds(length: Micros) -> f64 {
    length as f64 / 1000.0
}

/// Returns the numbers of the providers that the role may see.
pub fn seen() -> Vec<(Server, ProviderNumbers)> {
    let sees_all = reads_all_stats(current_user());
    let mut seen = Vec::new();
    for numbers in statistics::providers(database::current().to_u32()) {
        let server = foreign_servers::server_of(pg_sys::Oid::from(numbers.server));
        let server = server.filter(|server| sees_all || owns(server.owner));
        seen.extend(server.map(|server| (server, numbers)));
    }
    seen.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    seen
}

sql_function!(
    fn stat_provider_rows() -> pgrx::JsonB {
        let database = database::current();
        let is_there = segment::check().is_ok() && worker_registry::is_there(database);
        let mut numbers: HashMap<pg_sys::Oid, ProviderNumbers> = HashMap::new();
        for of_one in statistics::providers(database.to_u32()) {
            numbers.insert(pg_sys::Oid::from(of_one.server), of_one);
        }
        // None: somebody has the table locked.
        let breakers = glance::open_breakers().ok();
        let sees_all = reads_all_stats(current_user());
        let mut servers = foreign_servers::servers();
        servers.retain(|server| sees_all || owns(server.owner));
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        let rows = servers.iter().filter_map(|server| {
            let vendor = vendor_of_ours(server)?;
            let breaker = breakers.as_deref().map(|breakers| breaker_of(server, breakers));
            Some(provider_row(server, &vendor, numbers.get(&server.oid), breaker, is_there))
        });
        Ok(pgrx::JsonB(rows.collect()))
    }
);

/// Returns the vendor of a provider, or what stands for it at a route; None if the server is not ours.
fn vendor_of_ours(server: &Server) -> Option<String> {
    let wrapper = foreign_servers::wrapper_name(server.wrapper);
    (wrapper == ROUTE || dialect_of(&wrapper).is_some()).then(|| foreign_servers::vendor_of(server))
}

/// Returns the state of a provider's breaker; of several accounts', that of the one that is left alone for longest.
fn breaker_of(server: &Server, breakers: &[(pg_sys::Oid, OpenBreaker)]) -> (&'static str, Option<Timestamp>) {
    let open = breakers.iter().filter(|(of, _)| *of == server.oid).map(|(_, open)| open.open_until).max();
    match open {
        None => ("closed", None),
        Some(until) if until > clock() => ("open", Some(until)),
        Some(_) => ("half_open", None),
    }
}

fn provider_row(
    server: &Server,
    vendor: &str,
    numbers: Option<&ProviderNumbers>,
    breaker: Option<(&str, Option<Timestamp>)>,
    is_there: bool,
) -> Value {
    let is_route = vendor == VENDOR_NOT_CHOSEN;
    let state = numbers.map(|numbers| numbers.state).unwrap_or_default();
    let options = description::of_server(server).and_then(|dialect| ServerOptions::parse(&dialect, &server.options));
    let at = |time: Option<Timestamp>| time.map(unix_seconds);
    // If there is no worker, nothing is under way.
    let if_there = |count: usize| if is_there { count } else { 0 };
    json!({
        "provider": server.name,
        "vendor": vendor,
        "in_flight": (!is_route).then(|| if_there(state.in_flight)),
        "max_in_flight": options.ok().filter(|_| !is_route).map(|options| options.max_in_flight),
        "queued": if_there(state.queue.ready),
        "parked": if_there(state.queue.parked),
        "oldest_queued_at": at(state.queue.oldest_ready_at.filter(|_| is_there)),
        "breaker": breaker.filter(|_| !is_route).map(|(state, _)| state),
        "breaker_open_until": at(breaker.and_then(|(_, until)| until)),
        "failing_since": at(numbers.and_then(|numbers| numbers.failing_since)),
        "consecutive_failures": numbers.map(|numbers| numbers.consecutive_failures),
        "last_success_at": at(numbers.and_then(|numbers| numbers.last_success_at)),
        "last_failure_at": at(numbers.and_then(|numbers| numbers.last_failure_at)),
        "last_failure_outcome": numbers.and_then(|numbers| numbers.last_failure).map(Outcome::as_str),
        "last_vendor_code": numbers.and_then(|numbers| numbers.last_code.as_deref()),
        "last_vendor_message": numbers.and_then(|numbers| numbers.last_words.as_deref()),
        "certificate_ends_at": at(numbers.and_then(|numbers| numbers.certificate_ends_at)),
        "verifications": numbers.map(|numbers| numbers.verifications),
        "converted": numbers.map(|numbers| numbers.converted),
        "limit_used": state.limit_used.filter(|_| is_there),
        "stats_reset": at(numbers.map(|numbers| numbers.reset_at)),
    })
}

sql_function!(
    fn stat_worker_rows() -> pgrx::JsonB {
        if segment::check().is_err() {
            return Ok(pgrx::JsonB(json!([])));
        }
        let mut databases: BTreeSet<u32> = statistics::databases().into_iter().collect();
        databases.extend(worker_registry::known().into_iter().map(pg_sys::Oid::to_u32));
        let sees_all = reads_all_stats(current_user());
        let here = database::current();
        let rows = databases.into_iter().map(pg_sys::Oid::from).filter_map(|oid| {
            let found = database::database(oid)?;
            let is_seen = sees_all || oid == here && owns(found.owner);
            is_seen.then(|| worker_row(oid))
        });
        Ok(pgrx::JsonB(rows.collect()))
    }
);

fn worker_row(database: pg_sys::Oid) -> Value {
    let status = worker_registry::status_of(database);
    let is_leaving = worker_registry::exit_requested(database).is_some();
    let state = match status.state {
        WorkerState::Running if is_leaving => "leaving",
        WorkerState::Running => "running",
        WorkerState::Wanted | WorkerState::Starting => "starting",
        WorkerState::NoPlace => "no_place",
        WorkerState::Crashed => "crashed",
        WorkerState::Free | WorkerState::Left => "none",
    };
    let report = worker_registry::report_of(database).filter(|_| status.state == WorkerState::Running);
    let counts = report.map(Report::call_counts);
    let (waiting, since) = slot::untaken(database.to_u32());
    let waiting_since = since.map(|since| Timestamp(clock().0 - since_boot().since(since)));
    let chore = report.and_then(Report::chore);
    let kept = report.and_then(Report::oldest_kept_at);
    let numbers = statistics::database(database.to_u32());
    let at = |time: Option<Timestamp>| time.map(unix_seconds);
    json!({
        "datid": database.to_u32(),
        "datname": database::name_of(database),
        "pid": report.map(Report::pid),
        "state": state,
        "detail": matches!(status.state, WorkerState::NoPlace | WorkerState::Crashed).then_some(status.reason),
        "library_version": env!("CARGO_PKG_VERSION"),
        "schema_version": report.map(|_| SCHEMA_VERSION),
        "backend_start": at(report.and_then(Report::began_at)),
        "last_commit_at": at(report.and_then(Report::committed_at)),
        "waiting": waiting,
        "waiting_since": at(waiting_since),
        "in_flight": counts.map_or(0, |(in_flight, _)| in_flight),
        "unrecorded": counts.map_or(0, |(_, unrecorded)| unrecorded),
        "starts": numbers.as_ref().map_or(0, |numbers| numbers.starts),
        "recovered": numbers.as_ref().map_or(0, |numbers| numbers.recovered),
        "oldest_kept_at": at(kept.map(|(oldest, _)| oldest)),
        "purge_due_at": at(kept.map(|(_, due)| due)),
        "chore": chore.map(|(chore, ..)| chore.as_str()),
        "chore_done": chore.map(|(_, done, _)| done),
        "chore_since": at(chore.map(|(.., since)| since)),
        "stats_reset": at(numbers.map(|numbers| numbers.reset_at)),
    })
}

sql_function!(
    fn stat_reset(provider: Option<String>) -> () {
        segment::check()?;
        may_write()?;
        let providers = match &provider {
            Some(name) => Some(identities_of(Kind::Server, named(name)?.oid)?),
            None => None,
        };
        in_parts(|_| Maintenance::ResetStatistics { providers: providers.clone() }).map(|_| ())
    }
);

fn owns(owner: pg_sys::Oid) -> bool {
    has_privileges_of(current_user(), owner)
}
