//! What can be seen of a provider without calling anybody: its options, the role's user mapping, and the files that
//! they name. Each fault is a finding of its own, so that nobody mends one only to meet the next. No finding holds a
//! secret, or a path from the user mapping.

use std::{os::unix::fs::MetadataExt, rc::Rc, time::Duration};

use dialect::{Dialect, Outcome, Secret, defaults_in_force, missing_defaults};
use http_client::Endpoint;
use pgrx::pg_sys;
use policy::{Limits, Micros};
use serde_json::{Value, json};
use url::Url;

use crate::{
    error::Error,
    gucs,
    pg::{
        clock::clock,
        foreign_servers::{self, Server, may_use},
    },
    provider::{
        Provider,
        account_breaker::AccountBreaker,
        credentials::credentials,
        description,
        lookup::{no_usage, shown},
        option_file::{open, unreadable},
        option_value,
        ownership::owner_must_read_files,
        server_options::{Enforce, FILE_OPTIONS, PROXY_CREDENTIALS, ServerOptions},
    },
    store::{
        breakers::OpenBreaker,
        record_locks::{self, LockHolder},
    },
};

const CREDENTIAL_FILE: &str = "credential_file";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warning,
    Error,
}

/// One row of `otp_gateway.check`.
struct Finding {
    provider: String,
    item: &'static str,
    grade: Grade,
    detail: String,
    hint: Option<String>,
}

impl Finding {
    fn json(&self) -> Value {
        let status = match self.grade {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Error => "error",
        };
        let (provider, item) = (&self.provider, self.item);
        json!({"provider": provider, "item": item, "status": status, "detail": self.detail, "hint": self.hint})
    }
}

/// The findings of one provider.
pub struct Findings {
    provider: String,
    /// The names of the server options that are set.
    options: Vec<String>,
    all: Vec<Finding>,
    /// Where the provider's calls go; None if they go nowhere, or if that cannot be told.
    pub endpoint: Option<Endpoint>,
    /// The account whose breaker is looked at.
    account: Option<AccountInUse>,
    /// What the worker, which counts all sends, is to be asked.
    pub budget: Option<Budget>,
}

/// A foreign server and a user mapping, and what calls with them depend on.
struct AccountInUse {
    server: pg_sys::Oid,
    mapping: pg_sys::Oid,
    /// None if the credentials cannot be read.
    configuration: Option<Secret>,
}

/// What a provider may send in all: its provider_limit.
pub struct Budget {
    pub server: u32,
    pub limits: Limits,
    is_enforced: bool,
}

impl Findings {
    pub fn of(provider: &str) -> Self {
        let (options, all) = (Vec::new(), Vec::new());
        Self { provider: shown(provider), options, all, endpoint: None, account: None, budget: None }
    }

    pub fn json(&self) -> impl Iterator<Item = Value> {
        self.all.iter().map(Finding::json)
    }

    fn add(&mut self, item: &'static str, grade: Grade, detail: impl Into<String>, hint: Option<String>) {
        self.all.push(Finding { provider: self.provider.clone(), item, grade, detail: detail.into(), hint });
    }

    pub fn ok(&mut self, item: &'static str, detail: impl Into<String>) {
        self.add(item, Grade::Ok, detail, None);
    }

    pub fn warn(&mut self, item: &'static str, detail: impl Into<String>, hint: impl Into<String>) {
        self.add(item, Grade::Warning, detail, Some(hint.into()));
    }

    pub fn fault(&mut self, item: &'static str, detail: impl Into<String>, hint: impl Into<String>) {
        self.add(item, Grade::Error, detail, Some(hint.into()));
    }

    pub fn error(&mut self, item: &'static str, error: &Error) {
        self.fault(item, error.message(), error.hint());
    }

    /// Returns the statement that sets an option.
    fn alter(&self, option: &str, value: &str) -> String {
        let set = if self.options.iter().any(|given| given == option) { "SET " } else { "" };
        format!("ALTER SERVER {} OPTIONS ({set}{option} '{}').", self.provider, value.replace('\'', "''"))
    }

    /// Adds whether the role may use the server, and returns it. A role that may not learns nothing else of the server,
    /// and causes no call.
    pub fn usage(&mut self, server: &Server, role: pg_sys::Oid) -> bool {
        let may = may_use(role, server.oid);
        match may {
            true => self.ok("usage", "this role has USAGE on the foreign server"),
            false => self.error("usage", &no_usage(&server.name)),
        }
        may
    }

    /// Adds the findings of a provider that the role may use, itself or by a route.
    pub fn look(&mut self, server: Server, role: pg_sys::Oid) {
        self.options = server.options.iter().map(|(name, _)| name.clone()).collect();
        let read = description::of_server(&server)
            .and_then(|dialect| Ok((ServerOptions::read(&dialect, &server.options)?, dialect)));
        let (options, dialect) = match read {
            Ok(read) => read,
            Err(error) => return self.error("options", &error),
        };
        let is_local = defaults_in_force(&dialect, &options.vendors_own, &options.defaults).is_local;
        self.files(&server);
        let (provider, has_credentials) = self.mapping(&dialect, server, options, role);
        self.budget = provider.options.provider_limit.clone().map(|limits| Budget {
            server: provider.server.to_u32(),
            limits,
            is_enforced: provider.options.enforce == Enforce::On,
        });
        if is_local {
            return self.ok("base_url", "no vendor is asked: the gateway answers by itself, and sends nothing");
        }
        self.base_url(&dialect, &provider);
        self.defaults(&dialect, &provider);
        self.limits(&dialect, &provider);
        self.endpoint = Some(provider.endpoint(None));
        let configuration = has_credentials.then(|| provider.configuration());
        let (server, mapping) = (provider.server, provider.mapping);
        self.account = Some(AccountInUse { server, mapping, configuration });
    }

    /// Adds whether the breaker lets sends with these credentials through.
    pub fn breaker(&mut self) {
        let Some(account) = self.account.take() else { return };
        let now = clock();
        let last = |open: &OpenBreaker| {
            let code = open.vendor_code.as_ref().map_or_else(String::new, |code| format!(", vendor code {code}"));
            let ago = length(now.since(open.failed_at));
            format!("the last call failed {ago} ago ({}{code})", open.outcome.as_str())
        };
        match AccountBreaker::of(account.server, account.mapping, || account.configuration, now) {
            Err(error) => self.error("breaker", &error),
            Ok(AccountBreaker::Closed) => self.ok("breaker", "closed"),
            Ok(AccountBreaker::Mended) => self.ok(
                "breaker",
                "closed: options or credentials have changed since calls failed, and the next one is tried",
            ),
            Ok(AccountBreaker::HalfOpen(open)) => {
                let detail = format!("half-open: {}, the next one is let through as a probe", last(&open));
                self.warn("breaker", detail, how_to_close(open.outcome));
            }
            Ok(AccountBreaker::Open(open)) => {
                let (since, wait) = (length(now.since(open.opened_at)), length(open.open_until.since(now)));
                let last = last(&open);
                let detail = format!("open for {since}: nothing is sent; {last}, the next one is tried in {wait}");
                self.fault("breaker", detail, how_to_close(open.outcome));
            }
        }
    }

    /// Adds that provider_limit is spent; what is left of it otherwise is not told.
    pub fn spent(&mut self, budget: &Budget, wait: Micros) {
        let (limits, wait) = (&budget.limits, length(wait));
        let hint = format!(
            "An attack, or more customers? otp_gateway.recent shows the sends. ALTER SERVER {} OPTIONS (SET \
             provider_limit ...) lets more go.",
            self.provider
        );
        match budget.is_enforced {
            true => self.fault(
                "provider_limit",
                format!("{limits}: spent, and nothing is sent; the next one goes in {wait}"),
                hint,
            ),
            false => self.warn(
                "provider_limit",
                format!("{limits}: spent, and only observed; with enforce 'on' the next one would go in {wait}"),
                hint,
            ),
        }
    }

    /// Adds whether somebody holds a lock on the record that its writers wait for.
    pub fn record(&mut self) {
        match record_locks::holders() {
            Err(error) => self.error("record", &error),
            Ok(None) => self.warn(
                "record",
                "not looked at: this role may not read who has locks",
                "It takes SELECT on pg_locks, pg_stat_activity and pg_prepared_xacts, which PUBLIC has by default.",
            ),
            Ok(Some(holders)) if holders.is_empty() => self.ok("record", "nobody has its tables locked"),
            Ok(Some(holders)) => holders.iter().for_each(|holder| {
                let (detail, hint) = told(holder);
                self.fault("record", detail, hint);
            }),
        }
    }

    /// Adds the files that server options name. What they hold, the TLS client checks.
    fn files(&mut self, server: &Server) {
        for (option, path) in &server.options {
            let Some(item) = FILE_OPTIONS.iter().find(|item| *item == option) else { continue };
            match owner_must_read_files(server, option) {
                Err(error) => self.error(item, &error),
                Ok(()) => self.file(item, item, path, *item == "client_key_file"),
            }
        }
    }

    /// Adds whether the server can read a file and, for a private file, whether others cannot.
    fn file(&mut self, item: &'static str, option: &str, path: &str, is_private: bool) {
        let mode = open(path).and_then(|file| file.metadata()).map(|file| file.mode() & 0o7777);
        match mode {
            Err(error) => self.error(item, &unreadable(option, &error)),
            Ok(mode) if is_private && mode & 0o077 != 0 => self.warn(
                item,
                format!("others than the server can read the file of {option}: its mode is {mode:04o}"),
                "chmod 600, and chown to the server's system user.",
            ),
            Ok(_) if is_private => self.ok(item, format!("the server alone can read the file of {option}")),
            Ok(_) => self.ok(item, format!("the server can read the file of {option}")),
        }
    }

    /// Adds the credentials that the role would use, and whether they can be read.
    fn mapping(
        &mut self,
        dialect: &Dialect,
        server: Server,
        options: Rc<ServerOptions>,
        role: pg_sys::Oid,
    ) -> (Provider, bool) {
        let (mapping, given) = foreign_servers::user_mapping(role, server.oid).unzip();
        for (option, path) in given.iter().flatten() {
            let sets = dialect.credential_sets();
            let names = || sets.iter().flatten().copied().chain(PROXY_CREDENTIALS);
            let file = option.strip_suffix("_file").and_then(|name| names().find(|known| *known == name));
            if file.is_some() && owner_must_read_files(&server, option).is_ok() {
                self.file(CREDENTIAL_FILE, option, path, true);
            }
        }
        let names: Vec<&str> = given.iter().flatten().map(|(name, _)| name.as_str()).collect();
        let found = match (mapping, names.is_empty()) {
            (None, _) => "no user mapping, and none is needed".to_owned(),
            (_, true) => "a user mapping without options: no credentials are needed".to_owned(),
            (Some(_), false) => format!("the user mapping gives {}", names.join(", ")),
        };
        let found = credentials(dialect, &server, &options, given).inspect(|_| self.ok("credentials", found));
        let has_credentials = found.is_ok();
        let credentials = found.unwrap_or_else(|error| {
            // A file that cannot be read has its finding already.
            if !self.all.iter().any(|found| found.item == CREDENTIAL_FILE && found.grade == Grade::Error) {
                self.error("credentials", &error);
            }
            Default::default()
        });
        let mapping = mapping.unwrap_or(pg_sys::InvalidOid);
        let (dialect, given) = (dialect.clone(), server.options);
        let provider =
            Provider { server: server.oid, name: server.name, dialect, options, mapping, credentials, given };
        (provider, has_credentials)
    }

    fn base_url(&mut self, dialect: &Dialect, provider: &Provider) {
        let url = &provider.options.base_url;
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let set = self.alter("base_url", "https://...");
        if Some(host.as_str()) == dialect.test_host {
            self.warn(
                "base_url",
                format!("{url} is the vendor's test host: no code gets to anybody"),
                format!("Ask the vendor for the host that is live: {set}"),
            );
        } else if url.to_ascii_lowercase().starts_with("http:") {
            self.warn(
                "base_url",
                format!("{url} is plain HTTP: numbers, codes and credentials can be read on the way"),
                set,
            );
        } else {
            self.ok("base_url", url.as_str());
        }
    }

    /// Adds the fields that each send needs and the option `defaults` could give: templates, above all.
    fn defaults(&mut self, dialect: &Dialect, provider: &Provider) {
        let missing = missing_defaults(dialect, &provider.options.defaults);
        if missing.is_empty() {
            return self.ok("defaults", "nothing that each send needs is left to the payload");
        }
        let mut all = provider.options.defaults.clone();
        all.extend(missing.iter().map(|name| ((*name).to_owned(), json!("..."))));
        self.warn(
            "defaults",
            format!("not set: {}; each payload has to give what is not there", missing.join(", ")),
            self.alter("defaults", &Value::Object(all).to_string()),
        );
    }

    fn limits(&mut self, dialect: &Dialect, provider: &Provider) {
        let options = &provider.options;
        if options.is_paused {
            self.fault("paused", "option paused: nothing is sent through it", self.alter("paused", "false"));
        }
        if gucs::pause() {
            self.fault(
                "paused",
                "otp_gateway.pause: nothing is sent by this server",
                "ALTER SYSTEM RESET otp_gateway.pause; and SELECT pg_reload_conf(); unless somebody wants it so.",
            );
        }
        let mut limit = |item, value: Option<String>, without: &str, example: &str| match value {
            Some(value) => self.ok(item, value),
            None => self.warn(item, format!("not set: {without}"), self.alter(item, example)),
        };
        let text = |limit: &Option<policy::Limits>| limit.as_ref().map(ToString::to_string);
        limit(
            "send_limit",
            text(&options.send_limit),
            "one number may be sent any number of codes",
            "5 per hour, 10 per day",
        );
        limit(
            "provider_limit",
            text(&options.provider_limit),
            "nothing bounds what all sends together cost",
            "1000 per hour",
        );
        // User ids have no prefixes.
        if dialect.recipient_field().name == "mobile" {
            let prefixes = options.allowed_prefixes.as_ref().map(ToString::to_string);
            limit("allowed_prefixes", prefixes, "codes go to every country that the vendor serves", "+91, +94");
            let share = options.min_conversion.as_ref();
            limit(
                "min_conversion",
                share
                    .map(|share| format!("{share}: numbers that begin alike are held back where fewer type a code in")),
                "codes that nobody types in are counted, and go on being sent, as a pumper wants it",
                "10%",
            );
        }
        match options.enforce {
            Enforce::On => self.ok("enforce", "on: what a limit refuses is blocked"),
            Enforce::Observe => {
                self.warn("enforce", "observe: what a limit refuses is sent all the same", self.alter("enforce", "on"))
            }
        }
    }
}

/// Returns a length of time in the unit that fits, rounded up.
fn length(length: Micros) -> String {
    let seconds = (length.max(0) as u64).div_ceil(1_000_000);
    let unit = match seconds {
        0..120 => 1,
        120..36_000 => 60,
        _ => 3600,
    };
    option_value::shown(Duration::from_secs(seconds.div_ceil(unit) * unit))
}

/// Says what a lock on the record holds up, and what to do.
fn told(holder: &LockHolder) -> (String, String) {
    let LockHolder { modes, tables, .. } = holder;
    let since =
        holder.since.map_or_else(String::new, |since| format!(", in a transaction that began {} ago", length(since)));
    match (holder.pid, &holder.prepared) {
        _ if holder.is_own => (
            format!("your own transaction has {modes} on {tables}: what you call waits for yourself"),
            "COMMIT or ROLLBACK first.".to_owned(),
        ),
        (Some(pid), _) if holder.is_granted => (
            format!("pid {pid} has {modes} on {tables}{since}: sends, checks and their ends wait"),
            format!(
                "What it does: SELECT * FROM pg_stat_activity WHERE pid = {pid}. All goes on at the end of its \
                 transaction; to end it: SELECT pg_terminate_backend({pid})."
            ),
        ),
        (Some(pid), _) => (
            format!("pid {pid} waits for {modes} on {tables}{since}: sends, checks and their ends wait behind it"),
            format!(
                "For whom it waits: SELECT pg_blocking_pids({pid}). To take it out of the way: SELECT \
                 pg_cancel_backend({pid})."
            ),
        ),
        (None, prepared) => {
            let gid = prepared.as_deref().unwrap_or_default().replace('\'', "''");
            (
                format!("a prepared transaction has {modes} on {tables}{since}: sends, checks and their ends wait"),
                format!("Whoever prepared it: COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'."),
            )
        }
    }
}

/// Says how to mend a provider whose breaker is open.
fn how_to_close(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AuthFailed => {
            "Mend the credentials of the user mapping, or the vendor's list of addresses, or the balance there. After \
             a change of the mapping, its files or the server's options the next call is tried at once."
        }
        Outcome::Unreachable => {
            "The findings after this one say how far a connection comes. After a change of the server's options the \
             next call is tried at once."
        }
        _ => "otp_gateway.recent shows the calls. It closes by itself once a call succeeds.",
    }
}
