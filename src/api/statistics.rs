//! What the views `otp_gateway.stat_attempt`, `stat_latency`, `stat_provider` and `stat_worker` are made of: what lies in
//! shared memory, read without asking the worker. As in Postgres' own: members of pg_read_all_stats see all of it,
//! others what is of the providers that they own.

use pgrx::pg_sys;
use policy::{Micros, Timestamp};
use serde_json::{Value, json};

use crate::{
    api::{function::sql_function, maintenance::in_parts},
    error::Error,
    ipc::{
        message::Maintenance,
        statistics::{self, BUCKETS, Latency, ProviderNumbers},
    },
    pg::{
        clock::unix_seconds,
        database,
        foreign_servers::{self, Server},
        roles::{current_user, has_privileges_of, reads_all_stats},
        writable::may_write,
    },
    provider::lookup::named,
    store::counted::BOUNDS,
    store::identity::{Kind, identities_of, object_of},
};

sql_function!(
    fn stat_attempt_rows() -> pgrx::JsonB {
        let mut rows: Vec<Value> = Vec::new();
        for (server, numbers) in seen()? {
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
        for (server, numbers) in seen()? {
            rows.extend(numbers.latency.iter().filter_map(|latency| latency_row(&server, latency, numbers.reset_at)));
        }
        Ok(pgrx::JsonB(Value::Array(rows)))
    }
);

/// None: there was no call.
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

/// Below which that share of the calls took, in milliseconds, as far as the buckets tell: in each they are taken to lie
/// evenly. What took longer than the last bound took at least that.
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

/// The numbers of the providers that the role may see.
fn seen() -> Result<Vec<(Server, ProviderNumbers)>, Error> {
    let sees_all = reads_all_stats(current_user());
    let mut seen = Vec::new();
    for numbers in statistics::providers(database::current().to_u32()) {
        let server = object_of(numbers.provider)?.and_then(foreign_servers::server_of);
        let server = server.filter(|server| sees_all || owns(server.owner));
        seen.extend(server.map(|server| (server, numbers)));
    }
    seen.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(seen)
}

sql_function!(
    fn stat_reset(provider: Option<String>) -> () {
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
