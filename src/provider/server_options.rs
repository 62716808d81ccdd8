//! The options of a server: their names, their rules, their defaults. The same code reads them when they are written
//! (the validator) and when they are used.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use dialect::{Dialect, nearest, plain};
use policy::{AllowedPrefixes, Limits, MinConversion, TestNumbers};
use serde_json::{Map, Value};
use url::Url;

use crate::{
    error::Error,
    provider::{
        description,
        option_value::{boolean, check_url, duration, number, path, policy, proxy_url},
    },
};

/// The options that every server takes; a vendor may have more.
const SERVER_OPTIONS: &[&str] = &[
    "base_url",
    "timeout",
    "connect_timeout",
    "proxy",
    "ca_file",
    "client_cert_file",
    "client_key_file",
    "max_in_flight",
    "defaults",
    "allow_plain_http",
    "paused",
    "code_lifetime",
    "max_checks",
    "resend_after",
    "send_limit",
    "check_limit",
    "provider_limit",
    "min_conversion",
    "allowed_prefixes",
    "enforce",
    "test_numbers",
];

/// The credentials that a proxy wants, whatever the vendor: both or neither.
pub const PROXY_CREDENTIALS: [&str; 2] = ["proxy_user", "proxy_password"];

/// Server options that name a file which the server reads.
pub const FILE_OPTIONS: &[&str] = &["ca_file", "client_cert_file", "client_key_file", description::FILE];

/// The longest that a code may be taken to live, and that two sends may be kept apart.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What becomes of a call that the limits refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforce {
    On,
    /// The call is made, and recorded as one that would have been blocked.
    Observe,
}

thread_local! {
    /// The options that were read last, with their vendor and their text: a session calls through few providers.
    static READ: RefCell<Vec<Read>> = const { RefCell::new(Vec::new()) };
}

/// How many options are kept. More are rare, and cost a reading each.
const MOST_READ: usize = 8;

struct Read {
    vendor: &'static str,
    written: Vec<(String, String)>,
    options: Rc<ServerOptions>,
}

/// A server's options with their defaults filled in.
pub struct ServerOptions {
    pub base_url: String,
    /// The host of base_url, with the port if it is not one of the usual ones.
    pub host: String,
    /// None: as long as the call's dialect says.
    pub timeout: Option<Duration>,
    pub connect_timeout: Duration,
    pub proxy: Option<String>,
    pub ca_file: Option<String>,
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
    pub max_in_flight: u32,
    pub defaults: Map<String, Value>,
    pub allow_plain_http: bool,
    /// Whether nothing is sent through the provider.
    pub is_paused: bool,
    /// None: as long as the call's dialect says.
    pub code_lifetime: Option<Duration>,
    pub max_checks: u32,
    pub resend_after: Duration,
    pub send_limit: Option<Limits>,
    pub check_limit: Option<Limits>,
    pub provider_limit: Option<Limits>,
    /// None: ranges are watched, and not held back.
    pub min_conversion: Option<MinConversion>,
    /// None: every number is allowed.
    pub allowed_prefixes: Option<AllowedPrefixes>,
    pub enforce: Enforce,
    pub test_numbers: Option<TestNumbers>,
    /// The options that only this vendor has.
    pub vendors_own: BTreeMap<String, String>,
}

impl ServerOptions {
    /// Returns the options of a server that sets none.
    fn of(dialect: &Dialect) -> Self {
        Self {
            base_url: dialect.base_url.unwrap_or_default().to_owned(),
            host: String::new(),
            timeout: None,
            connect_timeout: Duration::from_secs(3),
            proxy: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            max_in_flight: 256,
            defaults: Map::new(),
            allow_plain_http: false,
            is_paused: false,
            code_lifetime: None,
            max_checks: dialect.max_checks,
            resend_after: dialect.resend_after,
            send_limit: None,
            check_limit: None,
            provider_limit: None,
            min_conversion: None,
            allowed_prefixes: None,
            enforce: Enforce::On,
            test_numbers: None,
            vendors_own: BTreeMap::new(),
        }
    }

    /// Reads the options as they are written now; options of the same text are parsed once. Options that are read by a
    /// description are parsed each time: the description is part of the rules, and may come from a file.
    pub fn read(dialect: &Dialect, written: &[(String, String)]) -> Result<Rc<Self>, Error> {
        if dialect.description.is_some() {
            return Self::parse(dialect, written).map(Rc::new);
        }
        let is_same = |read: &&Read| read.vendor == dialect.name && read.written == written;
        let known = READ.with_borrow(|read| read.iter().find(is_same).map(|read| Rc::clone(&read.options)));
        if let Some(options) = known {
            return Ok(options);
        }
        let options = Rc::new(Self::parse(dialect, written)?);
        READ.with_borrow_mut(|read| {
            if read.len() == MOST_READ {
                read.remove(0);
            }
            read.push(Read { vendor: dialect.name, written: written.to_vec(), options: Rc::clone(&options) });
        });
        Ok(options)
    }

    pub fn parse(dialect: &Dialect, options: &[(String, String)]) -> Result<Self, Error> {
        let mut parsed = Self::of(dialect);
        for (name, value) in options {
            match name.as_str() {
                "base_url" => parsed.base_url.clone_from(value),
                "timeout" => {
                    parsed.timeout = Some(duration(name, value, Duration::from_millis(10), Duration::from_secs(600))?);
                }
                "connect_timeout" => {
                    parsed.connect_timeout =
                        duration(name, value, Duration::from_millis(10), Duration::from_secs(600))?;
                }
                "proxy" => parsed.proxy = Some(proxy_url(name, value)?),
                "ca_file" => parsed.ca_file = Some(path(name, value)?),
                "client_cert_file" => parsed.client_cert_file = Some(path(name, value)?),
                "client_key_file" => parsed.client_key_file = Some(path(name, value)?),
                "max_in_flight" => parsed.max_in_flight = number(name, value, 1, 10_000)?,
                "defaults" => parsed.defaults = defaults(dialect, value)?,
                "allow_plain_http" => parsed.allow_plain_http = boolean(name, value)?,
                "paused" => parsed.is_paused = boolean(name, value)?,
                "code_lifetime" => {
                    parsed.code_lifetime = Some(duration(name, value, Duration::from_secs(1), WEEK)?);
                }
                "max_checks" => parsed.max_checks = number(name, value, 1, 1000)?,
                "resend_after" => parsed.resend_after = duration(name, value, Duration::ZERO, WEEK)?,
                "send_limit" => parsed.send_limit = Some(policy(name, value)?),
                "check_limit" => parsed.check_limit = Some(policy(name, value)?),
                "provider_limit" => parsed.provider_limit = Some(policy(name, value)?),
                "min_conversion" => parsed.min_conversion = Some(policy(name, value)?),
                "allowed_prefixes" => parsed.allowed_prefixes = Some(policy(name, value)?),
                "enforce" => parsed.enforce = enforce(value)?,
                "test_numbers" => parsed.test_numbers = Some(policy(name, value)?),
                _ => {
                    vendors_own(dialect, name, value)?;
                    parsed.vendors_own.insert(name.clone(), value.clone());
                }
            }
        }
        parsed.check(dialect)?;
        parsed.host = host(&parsed.base_url);
        Ok(parsed)
    }

    /// Checks that the options go together.
    fn check(&self, dialect: &Dialect) -> Result<(), Error> {
        if self.base_url.is_empty() {
            return Err(Error::invalid_parameter(
                format!("option base_url is required: {} runs on your own premises", dialect.name),
                "OPTIONS (base_url 'https://host:port').",
            ));
        }
        check_url("base_url", &self.base_url, self.allow_plain_http)?;
        if let Some(token_url) = self.token_url() {
            check_url("token_url", token_url, self.allow_plain_http)?;
        }
        let is_given = |name: &str| self.vendors_own.contains_key(name);
        if let Some(missing) = dialect.server_options.iter().find(|option| option.required && !is_given(option.name)) {
            return Err(Error::invalid_parameter(
                format!("option {} is required: {} is called with it", missing.name, dialect.name),
                format!("OPTIONS ({} '...').", missing.name),
            ));
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            return Err(Error::invalid_parameter(
                "options client_cert_file and client_key_file go together, and one of them is missing",
                "Give both, or neither.",
            ));
        }
        Ok(())
    }

    /// Returns the URL from which an OAuth access token is fetched.
    pub fn token_url(&self) -> Option<&String> {
        self.vendors_own.get("token_url")
    }
}

fn host(base_url: &str) -> String {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default().trim_end_matches('.');
    match url.as_ref().and_then(Url::port).filter(|port| ![80, 443].contains(port)) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Checks an option that only this vendor has; fails if the vendor has none of that name.
fn vendors_own(dialect: &Dialect, name: &str, value: &str) -> Result<(), Error> {
    let option = dialect.server_options.iter().find(|option| option.name == name);
    let option = option.ok_or_else(|| unknown_server_option(dialect, name))?;
    (option.check)(value).map_err(Error::from)
}

fn unknown_server_option(dialect: &Dialect, name: &str) -> Error {
    let sets = dialect.credential_sets();
    let credentials = sets.iter().flatten().copied().chain(PROXY_CREDENTIALS);
    let mut names = credentials.flat_map(|credential| [credential.to_owned(), format!("{credential}_file")]);
    // Also in the vendor's own spelling: SQL has made appid of appId.
    if let Some(credential) = names.find(|credential| plain(credential) == plain(name)) {
        return Error::invalid_option_name(
            format!("option \"{name}\" is a credential and does not belong on the server"),
            format!(
                "Give it on the user mapping: CREATE USER MAPPING FOR PUBLIC SERVER ... OPTIONS ({credential} '...')."
            ),
        );
    }
    let valid: Vec<&str> = of_server(dialect).collect();
    unknown_option("server", name, &valid, false)
}

/// Returns every option that a server of this vendor takes, in the order in which they are shown.
pub fn of_server(dialect: &Dialect) -> impl Iterator<Item = &'static str> + use<> {
    SERVER_OPTIONS.iter().copied().chain(dialect.server_options.iter().map(|option| option.name))
}

/// The error of an option that does not exist, with the probably meant one and the list. `also_in_files`: the list is
/// of credentials, each of which may be in a file.
pub fn unknown_option(place: &str, name: &str, valid: &[&str], also_in_files: bool) -> Error {
    let files: Vec<String> = valid.iter().filter(|_| also_in_files).map(|name| format!("{name}_file")).collect();
    let meant = nearest(name, valid.iter().copied().chain(files.iter().map(String::as_str)))
        .map_or_else(String::new, |nearest| format!("Perhaps you meant \"{nearest}\". "));
    let each = if also_in_files { ", each also as <name>_file" } else { "" };
    Error::invalid_option_name(
        format!("a {place} of this kind has no option \"{name}\""),
        format!("{meant}Valid options: {}{each}.", valid.join(", ")),
    )
    .logged_as(&format!("a {place} of this kind has no option \"%s\""))
}

fn defaults(dialect: &Dialect, value: &str) -> Result<Map<String, Value>, Error> {
    let Ok(Value::Object(defaults)) = serde_json::from_str(value) else {
        return Err(Error::invalid_parameter(
            "option defaults is not a JSON object",
            r#"For example: defaults '{"template_id": "..."}'; its members are laid under every payload."#,
        ));
    };
    dialect::check_defaults(dialect, &defaults).map_err(|invalid| Error::from(invalid).at("option defaults"))?;
    Ok(defaults)
}

fn enforce(value: &str) -> Result<Enforce, Error> {
    match value.to_ascii_lowercase().as_str() {
        "on" => Ok(Enforce::On),
        "observe" => Ok(Enforce::Observe),
        _ => Err(Error::invalid_parameter(
            "option enforce is neither on nor observe",
            "on: what the limits refuse is blocked; observe: it is sent, and recorded as what would have been blocked.",
        )),
    }
}
