//! `otp_gateway.check`: what stands in the way of a send, as far as that can be seen without sending.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use http_client::{AllowedHosts, ConnectionCheck, Endpoint, Reached};
use pgrx::pg_sys;
use policy::Micros;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::{
    api::function::sql_function,
    error::Error,
    gucs,
    ipc::{
        message::{self, Request, Response, unexpected},
        segment,
        session::{self, Unanswered},
    },
    pg::{
        clock::since_boot,
        foreign_servers::{self, Server},
        roles::current_user,
        settings,
        writable::is_standby,
    },
    provider::{
        candidates::check_member,
        findings::Findings,
        lookup::{named, no_such_provider},
        option_file::{RENEW, certificate_end},
        option_value::micros,
        route::{RouteOptions, is_route_server, listed},
    },
    store::sealing_key,
};

/// How many days before its end a certificate is warned of.
const SOON: i64 = 30;
/// How long the worker may take, in microseconds, beyond the time that a connection may take.
const GRACE: Micros = 5_000_000;

sql_function!(
    fn check_findings(provider: String) -> pgrx::JsonB {
        let rows = of_name(&provider, current_user())?.iter().flat_map(Findings::json).collect();
        Ok(pgrx::JsonB(Value::Array(rows)))
    }
);

/// Returns the findings of a provider, or of a route and each of its providers. For a role that may not use it, no
/// vendor is called.
fn of_name(name: &str, role: pg_sys::Oid) -> Result<Vec<Findings>, Error> {
    let server = named(name)?;
    let mut findings = Findings::of(&server.name);
    if !findings.usage(&server, role) {
        return Ok(vec![findings]);
    }
    if !is_route_server(&server) {
        findings.look(server, role);
        let is_served = gateway(&mut findings);
        budget(&mut findings, is_served);
        network(&mut findings, is_served);
        return Ok(vec![findings]);
    }
    match RouteOptions::parse(&server.options) {
        Err(error) => {
            findings.error("options", &error);
            Ok(vec![findings])
        }
        Ok(options) => {
            findings.ok("providers", listed(&options.providers));
            let is_served = gateway(&mut findings);
            let members = options.providers.iter().map(|name| of_member(&server, name, role, is_served));
            Ok(std::iter::once(findings).chain(members).collect())
        }
    }
}

fn of_member(route: &Server, name: &str, role: pg_sys::Oid, is_served: bool) -> Findings {
    let mut findings = Findings::of(name);
    let Some(server) = foreign_servers::server(name) else {
        findings.error("usage", &no_such_provider(name));
        return findings;
    };
    match check_member(route, &server) {
        Err(error) => findings.error("usage", &error),
        Ok(()) => {
            findings.ok("usage", "the route's owner may use it");
            findings.look(server, role);
            budget(&mut findings, is_served);
            network(&mut findings, is_served);
        }
    }
    findings
}

/// Adds the findings that are the same for all providers. Returns false if nobody is there to make a connection.
fn gateway(findings: &mut Findings) -> bool {
    match segment::check() {
        Ok(()) => findings.ok("preload", "the library is in shared_preload_libraries"),
        Err(error) => {
            findings.error("preload", &error);
            return false;
        }
    }
    findings.record();
    let is_served = worker(findings);
    // Looked at after the wait for the launcher, which makes the file at the server's first start.
    match sealing_key::keys_at_once() {
        Ok(_) if is_among_the_data(&gucs::key_file()) => findings.warn(
            "key_file",
            "it lies in the data directory: whoever has a base backup can open what is sealed there",
            "Into a directory of the server's system user's own: otp_gateway.key_file names it, then stop the server, \
             move the file, start.",
        ),
        Ok(_) => findings.ok("key_file", "there, private, and the one that this database was sealed under"),
        Err(error) => findings.error("key_file", &error),
    }
    is_served
}

/// Returns whether a file is in the data directory, wherever links lead.
fn is_among_the_data(file: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(file).zip(real(Path::new(&settings::data_directory()))).is_some_and(|(file, data)| file.starts_with(data))
}

/// Adds a finding if provider_limit leaves no room for the next send.
fn budget(findings: &mut Findings, is_served: bool) {
    let Some(budget) = findings.budget.take().filter(|_| is_served) else { return };
    match ask(&Request::Budget(budget.server, budget.limits.clone()), GRACE) {
        Ok(Some(Response::Budget(None))) => {}
        Ok(Some(Response::Budget(Some(wait)))) => findings.spent(&budget, wait),
        Ok(Some(_)) => findings.error("provider_limit", &unexpected()),
        Ok(None) => findings.error("provider_limit", &busy()),
        Err(error) => findings.error("provider_limit", &error),
    }
}

fn worker(findings: &mut Findings) -> bool {
    if is_standby() {
        findings.warn("worker", "this is a standby: calls are made on the primary", "Check there, too.");
        return false;
    }
    match session::await_launcher().and_then(|()| ask(&Request::AwaitIdle(Uuid::nil()), GRACE)) {
        Ok(Some(Response::Idle)) => {
            findings.ok("worker", "the background worker of this database answers");
            true
        }
        Ok(Some(_)) => {
            findings.error("worker", &unexpected());
            false
        }
        Ok(None) => {
            findings.error("worker", &busy());
            false
        }
        Err(error) => {
            findings.error("worker", &error);
            false
        }
    }
}

fn busy() -> Error {
    Error::not_in_prerequisite_state(
        "the background worker of this database does not answer in time",
        "It may wait for a lock on its tables: see the row record; the server's log has more.",
    )
}

/// Returns the worker's response; None if it did not come in time.
fn ask(request: &Request, patience: Micros) -> Result<Option<Response>, Error> {
    let until = since_boot() + patience;
    loop {
        let response = session::send(&message::write(request), *Uuid::nil().as_bytes(), Some(until));
        match response.map_err(Unanswered::error)?.map(|response| message::read(&response)).transpose()? {
            // Another worker has taken over meanwhile: ask again.
            Some(Response::Retry) => {}
            Some(Response::Error(error)) => return Err(error),
            response => return Ok(response),
        }
    }
}

/// Adds the findings about the connection to the vendor, as the worker's HTTP client finds it.
fn network(findings: &mut Findings, is_served: bool) {
    let Some(endpoint) = findings.endpoint.take() else { return };
    findings.breaker();
    if !is_served {
        return findings.warn("connection", "not looked at: nobody is there to make one", "See worker.");
    }
    let is_any_allowed = gucs::allowed_hosts().is_ok_and(|allowed| allowed == AllowedHosts::default());
    if is_any_allowed {
        findings.warn(
            "allowed_hosts",
            "not set: whoever may create servers can have any host called, in your own network too",
            "A superuser lists the hosts of all providers: ALTER SYSTEM SET otp_gateway.allowed_hosts = '...'; then \
             SELECT pg_reload_conf().",
        );
    }
    if let Some(ends) = endpoint.client_cert_file.as_deref().and_then(certificate_end) {
        certificate(findings, "client_cert_file", ends, RENEW);
    }
    let token = endpoint.oauth.as_ref().map(|oauth| Endpoint { base_url: oauth.token_url.clone(), ..endpoint.clone() });
    let ways = [Some(("base_url", endpoint)), token.map(|endpoint| ("token_url", endpoint))];
    for (option, endpoint) in ways.into_iter().flatten() {
        let patience = micros(endpoint.connect_timeout).saturating_mul(2).saturating_add(GRACE);
        let way = Way::of(&endpoint, !is_any_allowed);
        match ask(&Request::Check(option.to_owned(), Box::new(endpoint)), patience) {
            Ok(Some(Response::Checked(check))) => way.add_to(findings, &check),
            Ok(Some(_)) => findings.error("connection", &unexpected()),
            Ok(None) => findings.error("connection", &busy()),
            Err(error) => findings.error("connection", &error),
        }
    }
}

/// The connection to a host.
struct Way {
    url: Option<Url>,
    /// Where the connection goes first: the proxy, if there is one, else the host.
    first: Option<Url>,
    has_files: bool,
    /// Whether there is a list of allowed hosts: then a connection that is made goes to a listed host.
    is_listed: bool,
}

impl Way {
    fn of(endpoint: &Endpoint, is_listed: bool) -> Self {
        let url = Url::parse(&endpoint.base_url).ok();
        let proxy = endpoint.proxy.as_ref().and_then(|proxy| Url::parse(&proxy.url).ok());
        let first = proxy.or_else(|| url.clone());
        let has_files = endpoint.ca_file.is_some() || endpoint.client_cert_file.is_some();
        Self { url, first, has_files, is_listed }
    }

    /// Adds a finding for each step, up to the step that failed.
    fn add_to(&self, findings: &mut Findings, check: &ConnectionCheck) {
        let (host, first) = (host(self.url.as_ref()), host(self.first.as_ref()));
        let port = self.first.as_ref().and_then(Url::port_or_known_default).unwrap_or_default();
        let is_named = self.first.as_ref().is_some_and(|url| url.domain().is_some());
        let mut step = |item, of: Reached, well: Option<String>, hint: &str| match check.reached {
            reached if reached > of => well.into_iter().for_each(|well| findings.ok(item, well)),
            reached if reached == of => findings.fault(item, check.why.as_deref().unwrap_or_default(), hint),
            _ => {}
        };
        let files = "ca_file, client_cert_file and client_key_file are files in PEM form that the server can read.";
        step("tls_files", Reached::Nothing, self.has_files.then(|| "what they hold can be used".to_owned()), files);
        step(
            "allowed_hosts",
            Reached::Refused,
            self.is_listed.then(|| format!("calls may go to {host}")),
            "A superuser lists the host in otp_gateway.allowed_hosts, or ALTER SERVER ... OPTIONS (SET base_url ...).",
        );
        step(
            "dns",
            Reached::Lookup,
            is_named.then(|| format!("{first} is found")),
            "The server's own machine looks the name up: see its /etc/resolv.conf.",
        );
        step(
            "tcp",
            Reached::Address,
            Some(format!("{first}, port {port}, takes connections")),
            &format!("The server's own machine connects: its network has to let it out to {first}, port {port}."),
        );
        let is_secure = self.url.as_ref().is_some_and(|url| url.scheme() == "https");
        step(
            "tls",
            Reached::Connection,
            is_secure.then(|| format!("the certificate is one of {host}, by an authority that is trusted")),
            "For a certificate of a private authority: option ca_file. Where the host asks for one of the client: \
             client_cert_file and client_key_file.",
        );
        if let Some(ends) = check.certificate_ends {
            let hint = "Whoever keeps the host renews it; with the one that ends, every call will be unreachable.";
            certificate(findings, &host, ends, hint);
        }
    }
}

fn host(url: Option<&Url>) -> String {
    url.and_then(Url::host_str).unwrap_or_default().to_owned()
}

fn certificate(findings: &mut Findings, of: &str, ends: i64, hint: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let days = ends.saturating_sub_unsigned(now).div_euclid(86_400);
    let detail = format!("the certificate of {of} ends in {days} days");
    if days < SOON {
        return findings.warn("certificate", detail, hint);
    }
    findings.ok("certificate", detail);
}
