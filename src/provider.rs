//! From the catalog to a value: the foreign server, its options, the caller's user mapping, and the right to use them.

mod account;
mod catalog;
mod effective;
mod memory;
mod option_value;
mod options;
mod ownership;
mod recipient;
mod user_mapping;
mod validator;

use std::{collections::BTreeMap, fs, time::Duration};

use courier::{OAuth, Proxy, Route};
use options::{Enforce, ServerOptions};
use ownership::owner_must_read_files;
use pgrx::{FromDatum, IntoDatum, pg_sys};
use policy::{Micros, Reason, Rules};
use vendor::{Dialect, Secret, TIMEOUT};

pub use account::{Account, check_usage, is_route};
use catalog::Server;
pub use catalog::{options, server, server_of, vendor_of};
pub use memory::longest_memory;
pub use option_value::micros;
pub use ownership::{kept, owned};
pub use recipient::{members, recipients};

use crate::misuse::Misuse;

/// The vendor of a verification that is queued for a route.
pub const UNROUTED: &str = "route";

/// For how long wrong codes count against a recipient where nobody says how long a code lives, and at most.
const GUESSED_LIFETIME: Micros = 600_000_000;
const LONGEST_PENANCE: Micros = 3_600_000_000;

/// A configured account at a vendor, as the caller may use it.
pub struct Provider {
    /// The foreign server.
    pub server: pg_sys::Oid,
    pub name: String,
    pub dialect: &'static Dialect,
    pub options: ServerOptions,
    /// The user mapping that the credentials come from; 0: none is needed.
    pub mapping: pg_sys::Oid,
    pub credentials: BTreeMap<String, Secret>,
}

impl Provider {
    /// Finds a provider by name, checks that the role has USAGE, and reads its user mapping, else PUBLIC's.
    pub fn find(name: &str, role: pg_sys::Oid) -> Result<Self, Misuse> {
        Self::of(named(name)?, role)
    }

    /// The same, of a server as it is now.
    fn of(server: Server, role: pg_sys::Oid) -> Result<Self, Misuse> {
        // Before its options are looked at: they are not for everybody's errors.
        check_usage(&server, role)?;
        Self::of_member(server, role)
    }

    /// The same, for a role that may use a route over it.
    fn of_member(server: Server, role: pg_sys::Oid) -> Result<Self, Misuse> {
        let wrapper = catalog::wrapper_name(server.wrapper);
        let dialect = dialect_of(&wrapper).ok_or_else(|| not_a_provider(&server.name, &wrapper))?;
        let options = ServerOptions::parse(dialect, &server.options)?;
        let mut files = server.options.iter().filter(|(option, _)| options::FILE_OPTIONS.contains(&option.as_str()));
        files.try_for_each(|(option, _)| owner_must_read_files(&server, option))?;
        let (mapping, given) = catalog::user_mapping(role, server.oid).unzip();
        let credentials = credentials(dialect, &server, &options, given)?;
        let mapping = mapping.unwrap_or(pg_sys::InvalidOid);
        Ok(Self { server: server.oid, name: server.name, dialect, options, mapping, credentials })
    }

    /// What it allows a recipient, as far as it takes the record to tell.
    pub fn rules(&self, recipient: Option<&str>, max_checks: u32, code_lifetime: Option<Micros>) -> Rules {
        let options = &self.options;
        let prefixes = options.allowed_prefixes.as_ref();
        let is_foreign =
            recipient.is_some_and(|recipient| prefixes.is_some_and(|prefixes| !prefixes.allows(recipient)));
        Rules {
            enforce: options.enforce == Enforce::On,
            refused: is_foreign.then_some(Reason::AllowedPrefixes),
            resend_after: micros(options.resend_after),
            send_limit: options.send_limit.clone(),
            provider_limit: options.provider_limit.clone(),
            check_limit: options.check_limit.clone(),
            max_checks,
            checks_reach: code_lifetime.unwrap_or(GUESSED_LIFETIME).min(LONGEST_PENANCE),
        }
    }

    /// Which account at the vendor this is, whatever the provider is called: two of one account share what counts there. By
    /// the credential that names it, not by the secret one, which changes.
    pub fn account(&self) -> Secret {
        let host = self.options.base_url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
        let host = host.trim_end_matches(":443").trim_end_matches(":80").trim_end_matches('.');
        let named = self.dialect.credential_sets.iter().find_map(|set| {
            let is_given = set.iter().all(|name| self.credentials.contains_key(*name));
            set.first().filter(|_| is_given).and_then(|name| self.credentials.get(*name))
        });
        Secret::new(match named {
            Some(name) => format!("{}\0{host}\0{}", self.dialect.name, name.reveal()),
            // Nobody has an account here: the server is one.
            None if self.dialect.base_url.is_none() && self.options.base_url.is_empty() => {
                format!("{}\0{}", self.dialect.name, self.server.to_u32())
            }
            None => format!("{}\0{}", self.dialect.name, self.options.base_url),
        })
    }

    /// Whether it goes to one of test_numbers.
    pub fn is_test_number(&self, prepared: &vendor::Prepared) -> bool {
        let recipient = prepared.recipient.as_ref().map(Secret::reveal);
        let code = self.options.test_numbers.as_ref().zip(recipient).and_then(|(numbers, to)| numbers.code_of(to));
        code.is_some()
    }

    /// How the courier reaches it. `timeout`: what the call's dialect says, if it says something.
    pub fn route(&self, timeout: Option<Duration>) -> Route {
        let options = &self.options;
        let oauth = match (&options.token_url, self.credentials.get("client_id"), self.credentials.get("client_secret"))
        {
            (Some(token_url), Some(client_id), Some(client_secret)) => Some(OAuth {
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
            }),
            _ => None,
        };
        Route {
            provider: self.server.to_u32(),
            base_url: options.base_url.clone(),
            timeout: options.timeout.or(timeout).unwrap_or(TIMEOUT),
            connect_timeout: options.connect_timeout,
            ca_file: options.ca_file.clone(),
            client_cert_file: options.client_cert_file.clone(),
            client_key_file: options.client_key_file.clone(),
            max_in_flight: options.max_in_flight,
            proxy: options.proxy.as_ref().map(|url| Proxy {
                url: url.clone(),
                credentials: self
                    .credentials
                    .get(user_mapping::PROXY_CREDENTIALS[0])
                    .cloned()
                    .zip(self.credentials.get(user_mapping::PROXY_CREDENTIALS[1]).cloned()),
            }),
            oauth,
        }
    }
}

/// The foreign server of that name.
pub fn named(name: &str) -> Result<Server, Misuse> {
    catalog::server(name).ok_or_else(|| no_such_provider(name))
}

fn no_such_provider(name: &str) -> Misuse {
    Misuse::undefined(
        format!("provider \"{}\" does not exist", shown(name)),
        "A provider is a foreign server: CREATE SERVER ... FOREIGN DATA WRAPPER otp_ideamart OPTIONS (...); \\des in psql lists them.",
    )
    .logged_as("provider \"%s\" does not exist")
}

fn not_a_provider(name: &str, wrapper: &str) -> Misuse {
    Misuse::undefined(
        format!("foreign server \"{}\" is not a provider: its foreign data wrapper is {wrapper}", shown(name)),
        format!("Use a server of one of {}.", wrappers()),
    )
}

fn no_usage(name: &str) -> Misuse {
    Misuse::forbidden(
        format!("permission denied for foreign server {}", shown(name)),
        format!("Ask its owner for GRANT USAGE ON FOREIGN SERVER {} TO your role.", shown(name)),
    )
}

/// The vendor that a foreign data wrapper of ours stands for.
fn dialect_of(wrapper: &str) -> Option<&'static Dialect> {
    wrapper.strip_prefix("otp_").and_then(vendor::dialect)
}

/// A name as an error may show it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(63).collect()
}

/// Every foreign data wrapper of ours, for a hint.
fn wrappers() -> String {
    vendor::DIALECTS.iter().map(|dialect| format!("otp_{}", dialect.name)).collect::<Vec<_>>().join(", ")
}

fn may_use(role: pg_sys::Oid, server: pg_sys::Oid) -> bool {
    // SAFETY: a function of Postgres with three arguments that are not null; it returns a boolean.
    unsafe {
        let arguments = [role.into_datum(), server.into_datum(), "USAGE".into_datum()];
        let may = pgrx::direct_function_call_as_datum(pg_sys::has_server_privilege_id_id, &arguments);
        may.and_then(|may| bool::from_datum(may, false)).unwrap_or(false)
    }
}

/// The credentials, with each `<name>_file` read now.
fn credentials(
    dialect: &Dialect,
    server: &catalog::Server,
    options: &ServerOptions,
    mapping: Option<Vec<(String, String)>>,
) -> Result<BTreeMap<String, Secret>, Misuse> {
    let mut credentials = BTreeMap::new();
    for (option, value) in mapping.unwrap_or_default() {
        let (name, value, what) = match option.strip_suffix("_file") {
            None => (option.as_str(), Secret::new(value), format!("user mapping option {option}")),
            Some(name) => {
                owner_must_read_files(server, &option)?;
                (name, read_credential(&option, &value)?, format!("the file of user mapping option {option}"))
            }
        };
        // Written past the validator, by an older version, or into a file.
        user_mapping::check_sendable(dialect, name, value.reveal(), &what, Misuse::not_ready)?;
        credentials.insert(name.to_owned(), value);
    }
    let server = shown(&server.name);
    let given: Vec<&str> = credentials.keys().map(String::as_str).collect();
    user_mapping::credential_set(dialect, &given).map_err(|wanted| {
        Misuse::undefined(
            format!("no user mapping with credentials for server {server} and this role"),
            format!("CREATE USER MAPPING FOR CURRENT_USER (or PUBLIC) SERVER {server} OPTIONS ({wanted})."),
        )
    })?;
    user_mapping::proxy_credentials(&given)?;
    if options.proxy.is_none() && given.contains(&user_mapping::PROXY_CREDENTIALS[0]) {
        return Err(Misuse::invalid(
            "the user mapping has proxy_user and proxy_password, and the server has no option proxy",
            format!("ALTER SERVER {server} OPTIONS (ADD proxy 'http://host:port')."),
        ));
    }
    if credentials.contains_key("client_id")
        && dialect.server_options.contains(&"token_url")
        && options.token_url.is_none()
    {
        return Err(Misuse::invalid(
            "the user mapping has client_id and client_secret, and the server has no option token_url",
            format!("ALTER SERVER {server} OPTIONS (ADD token_url 'https://...')."),
        ));
    }
    Ok(credentials)
}

fn read_credential(option: &str, path: &str) -> Result<Secret, Misuse> {
    let text = fs::read_to_string(path).map_err(|error| {
        Misuse::not_ready(
            format!("the file of user mapping option {option} cannot be read: {}", error.kind()),
            "It must exist on the server and be readable by the server's system user.",
        )
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Misuse::not_ready(
            format!("the file of user mapping option {option} is empty"),
            "It holds the credential, in one line.",
        ));
    }
    Ok(Secret::new(text))
}
