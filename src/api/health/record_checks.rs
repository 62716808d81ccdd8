//! The checks of the record, as far as nobody has it locked.

use std::collections::HashMap;

use pgrx::pg_sys;
use policy::Micros;

use crate::{
    api::health::{HealthCheck, Level},
    crypto::key_file,
    pg::{
        clock::clock,
        foreign_servers::{self, Server},
        roles::{current_user, has_privileges_of},
    },
    provider::route::route_of,
    store::{
        breakers::OpenBreaker,
        glance::{self, IsLocked, RecentSends, Refusal},
        sealing_key,
    },
};

/// How far back the sends are looked at, in microseconds; below it, how many attempts at most.
const REACH: Micros = 3_600_000_000;
const MOST_ATTEMPTS: usize = 1000;
/// How many sends of a kind it takes for a warning.
const FEW: usize = 3;
/// Of how many providers the last refusal is told, and how many characters of the vendor's words.
const NAMED: usize = 3;
const WORDS: usize = 120;

/// Checks that the key which this database needs is there.
pub fn key_file() -> HealthCheck {
    const NAME: &str = "key_file";
    let critical = |error: crate::error::Error| HealthCheck::bad(NAME, Level::Critical, error.message(), error.hint());
    match (key_file::keys(), glance::needed_keys()) {
        (Err(error), _) => critical(error),
        (Ok(_), Err(_)) => HealthCheck::locked(NAME),
        (Ok(keys), Ok(needed)) => match sealing_key::check(&keys, &needed) {
            Ok(()) => HealthCheck::ok(NAME, "there, private, and the one that this database was sealed under"),
            Err(error) => critical(error),
        },
    }
}

/// Returns a row for each provider whose breaker has opened, or one row if no breaker has.
pub fn providers(sees_all: bool) -> Vec<HealthCheck> {
    const NAME: &str = "provider";
    let Ok(breakers) = glance::open_breakers() else { return vec![HealthCheck::locked(NAME)] };
    let servers = foreign_servers::servers();
    let mut failing: Vec<(&Server, OpenBreaker)> = breakers
        .into_iter()
        .filter_map(|(oid, breaker)| Some((servers.iter().find(|server| server.oid == oid)?, breaker)))
        .collect();
    if failing.is_empty() {
        return vec![HealthCheck::ok(NAME, "no breaker is open")];
    }
    // Of a provider with several accounts, the one that failed first.
    failing.sort_by(|(a, of_a), (b, of_b)| (&a.name, of_a.opened_at).cmp(&(&b.name, of_b.opened_at)));
    failing.dedup_by_key(|(server, _)| server.oid);
    let oids: Vec<pg_sys::Oid> = failing.iter().map(|(server, _)| server.oid).collect();
    let is_well = |name: &String| servers.iter().any(|server| server.name == *name && !oids.contains(&server.oid));
    let has_substitute = |name: &String| {
        let routes = servers.iter().filter_map(|server| route_of(server).ok().flatten());
        routes.into_iter().any(|route| route.providers.contains(name) && route.providers.iter().any(is_well))
    };
    let row = |(server, breaker): &(&Server, OpenBreaker)| {
        let is_seen = sees_all || has_privileges_of(current_user(), server.owner);
        one(server, breaker, is_seen, has_substitute(&server.name))
    };
    failing.iter().map(row).collect()
}

fn one(server: &Server, breaker: &OpenBreaker, is_seen: bool, has_substitute: bool) -> HealthCheck {
    let now = clock();
    let why = if is_seen {
        let code = breaker.vendor_code.as_ref().map_or_else(String::new, |code| format!(", vendor_code {code}"));
        format!("; the last call ended as {}{code}", breaker.outcome.as_str())
    } else {
        String::new()
    };
    let name = &server.name;
    let is_probing = breaker.open_until <= now;
    let (level, what) = match (is_probing, has_substitute) {
        (true, _) => (Level::Warning, "failed several times in a row; the next send is a probe"),
        (false, true) => (Level::Warning, "failed several times in a row, and its routes go to other providers"),
        (false, false) => (Level::Critical, "failed several times in a row: nothing is sent through it"),
    };
    let hint = "See otp_gateway.stat_provider for the vendor's words. It is tried again by itself, and at once after \
        ALTER SERVER or ALTER USER MAPPING. otp_gateway.check(provider), with USAGE on it, looks for the reason.";
    HealthCheck::bad("provider", level, format!("{name} {what}{why}"), hint).since(Some(breaker.opened_at))
}

/// Checks how the latest sends went.
pub fn sends() -> [HealthCheck; 2] {
    let Ok(sends) = glance::recent_sends(clock() - REACH, MOST_ATTEMPTS) else {
        return [HealthCheck::locked("unknown"), HealthCheck::locked("refusals")];
    };
    let unknown = share(
        &sends,
        ("unknown", sends.unknown, 0.01),
        "may or may not have been sent",
        "Where a vendor is slow, a longer option timeout makes fewer of them; they are never sent again by themselves.",
    );
    let Ok(last) = last_refusals(&sends) else { return [unknown, HealthCheck::locked("refusals")] };
    let refusals = share(
        &sends,
        ("refusals", sends.refused, 0.05),
        &format!("were refused by the vendor for what they say, or for who sends them{last}"),
        "otp_gateway.attempt has each of them, to the provider's owner: a template that was changed, credentials, a \
            balance.",
    );
    [unknown, refusals]
}

/// Returns each provider's last refusal in the vendor's own code and words, of a few providers; empty if there is none.
fn last_refusals(sends: &RecentSends) -> Result<String, IsLocked> {
    let names = if sends.refusals.is_empty() { HashMap::new() } else { glance::names()? };
    let told = |refusal: &Refusal| {
        let code = refusal.vendor_code.as_ref().map(|code| format!("vendor_code {code}"));
        let words = refusal.vendor_message.as_ref().map(|words| words.chars().take(WORDS).collect());
        let all = [Some(refusal.outcome.as_str().to_owned()), code, words];
        let all: Vec<String> = all.into_iter().flatten().collect();
        Some(format!("; the last of {}: {}", names.get(&refusal.provider)?, all.join(", ")))
    };
    Ok(sends.refusals.iter().filter_map(told).take(NAMED).collect())
}

/// Checks how many of the sends are of this kind; a share above `most` is a warning.
fn share(sends: &RecentSends, (name, count, most): (&'static str, usize, f64), what: &str, hint: &str) -> HealthCheck {
    let share = if sends.made == 0 { 0.0 } else { count as f64 / sends.made as f64 };
    let made = sends.made;
    let all = if sends.is_cut { format!("latest {made} sends") } else { format!("{made} sends of the last hour") };
    let detail = format!("{count} of the {all} {what}");
    let check = if count >= FEW && share > most {
        HealthCheck::bad(name, Level::Warning, detail, hint)
    } else {
        HealthCheck::ok(name, detail)
    };
    check.valued(share).since(sends.since)
}
