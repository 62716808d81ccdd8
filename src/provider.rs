//! Providers: from the catalog to a foreign server, its options, the caller's user mapping, and the right to use them.

pub mod account_breaker;
pub mod candidates;
pub mod credentials;
pub mod description;
pub mod effective_settings;
pub mod file_rights;
pub mod findings;
pub mod lookback;
pub mod lookup;
pub mod option_file;
pub mod option_value;
pub mod ownership;
pub mod recipient;
pub mod route;
pub mod server_options;

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use dialect::{Dialect, Secret, TIMEOUT};
use http_client::{Endpoint, OAuthClient, Proxy};
use pgrx::pg_sys;
use policy::{BlockReason, LimitRules, Micros, NumberRange};

use crate::{
    error::Error,
    pg::{
        fingerprint::FingerprintBuilder,
        foreign_servers::{self, Server},
    },
    provider::{
        credentials::credentials,
        file_rights::is_open_to_all,
        lookup::{MAX_CHECK_WINDOW, check_usage, named},
        option_value::micros,
        ownership::owner_must_read_files,
        server_options::{Enforce, ServerOptions},
    },
};

/// For how long wrong codes count against a recipient if nothing says how long a code lives, in microseconds.
const DEFAULT_CHECK_WINDOW: Micros = 600_000_000;

/// A configured account at a vendor, as the caller may use it.
pub struct Provider {
    /// The foreign server.
    pub server: pg_sys::Oid,
    pub name: String,
    pub dialect: Dialect,
    pub options: Rc<ServerOptions>,
    /// The user mapping that the credentials come from; 0 if none is needed.
    pub mapping: pg_sys::Oid,
    pub credentials: BTreeMap<String, Secret>,
    /// The server's options as they are written.
    pub given: Vec<(String, String)>,
}

impl Provider {
    /// Finds a provider by name, checks that the role has USAGE, and reads its user mapping, else PUBLIC's.
    pub fn find(name: &str, role: pg_sys::Oid) -> Result<Self, Error> {
        Self::of(named(name)?, role)
    }

    /// Reads a provider from its server as it is now, after the check of USAGE.
    fn of(server: Server, role: pg_sys::Oid) -> Result<Self, Error> {
        // Before the options are looked at: an error about them is not for everybody.
        check_usage(&server, role)?;
        Self::of_member(server, role)
    }

    /// Reads a provider as [`Self::of`] does, for a role that may use it, itself or by a route.
    fn of_member(server: Server, role: pg_sys::Oid) -> Result<Self, Error> {
        let dialect = description::of_server(&server)?;
        let options = ServerOptions::read(&dialect, &server.options)?;
        let mut files =
            server.options.iter().filter(|(option, _)| server_options::FILE_OPTIONS.contains(&option.as_str()));
        files.try_for_each(|(option, _)| owner_must_read_files(&server, option))?;
        let (mapping, of_mapping) = foreign_servers::user_mapping(role, server.oid).unzip();
        let credentials = credentials(&dialect, &server, &options, of_mapping)?;
        let mapping = mapping.unwrap_or(pg_sys::InvalidOid);
        let given = server.options;
        Ok(Self { server: server.oid, name: server.name, dialect, options, mapping, credentials, given })
    }

    /// Returns the rules for sends and checks: those that hold without the record, already decided for this recipient,
    /// and those that the record decides.
    pub fn rules(&self, recipient: Option<&str>, max_checks: u32, code_lifetime: Option<Micros>) -> LimitRules {
        let options = &self.options;
        // A user id is neither number nor address, whatever it looks like.
        let is_number = self.dialect.recipient_field().name == "mobile";
        let prefixes = options.allowed_prefixes.as_ref().filter(|_| is_number);
        let is_foreign =
            recipient.is_some_and(|recipient| prefixes.is_some_and(|prefixes| !prefixes.allows(recipient)));
        LimitRules {
            enforce: options.enforce == Enforce::On,
            refused: if options.is_paused {
                Some(BlockReason::Paused)
            } else {
                is_foreign.then_some(BlockReason::AllowedPrefixes)
            },
            resend_after: micros(options.resend_after),
            send_limit: options.send_limit.clone(),
            provider_limit: options.provider_limit.clone(),
            min_conversion: options.min_conversion,
            range: recipient.filter(|_| is_number).and_then(NumberRange::of),
            check_limit: options.check_limit.clone(),
            max_checks,
            check_window: code_lifetime.unwrap_or(DEFAULT_CHECK_WINDOW).min(MAX_CHECK_WINDOW),
        }
    }

    /// Returns which account at the vendor this is, whatever the provider is called: two providers of one account share
    /// what the account has used. It goes by the credential that names the account, not by the secret one, which
    /// changes.
    pub fn account(&self) -> Secret {
        let host = &self.options.host;
        let by_option = self.dialect.server_options.iter().find(|option| option.names_account);
        if let Some(account) = by_option.and_then(|option| self.options.vendors_own.get(option.name)) {
            return Secret::new(format!("{}\0{host}\0{account}", self.dialect.name));
        }
        let named = self.dialect.credential_sets().iter().find_map(|set| {
            let is_given = set.iter().all(|name| self.credentials.contains_key(*name));
            set.first().filter(|_| is_given).and_then(|name| self.credentials.get(*name))
        });
        Secret::new(match named {
            Some(name) => format!("{}\0{host}\0{}", self.dialect.name, name.reveal()),
            // The vendor runs on the customer's premises and has no account: the server stands for one.
            None if self.dialect.base_url.is_none() && self.options.base_url.is_empty() => {
                format!("{}\0{}", self.dialect.name, self.server.to_u32())
            }
            None => format!("{}\0{}", self.dialect.name, self.options.base_url),
        })
    }

    /// Returns a fingerprint of what the provider's calls depend on, which is no secret as long as it stays in memory.
    /// After a change of it the provider is tried anew.
    pub fn configuration(&self) -> Secret {
        let mut builder = FingerprintBuilder::of("configuration");
        for (name, value) in &self.given {
            builder.add(Some(name.as_bytes()));
            builder.add(Some(value.as_bytes()));
        }
        builder.add(None);
        for (name, value) in &self.credentials {
            builder.add(Some(name.as_bytes()));
            builder.add(Some(value.reveal().as_bytes()));
        }
        Secret::new(builder.finish().to_string())
    }

    /// Returns the options that name a file of credentials which every user of the machine can read.
    pub fn open_files(&self) -> Vec<String> {
        let of_mapping = foreign_servers::options_of_mapping(self.mapping).into_iter();
        let of_server = self.options.client_key_file.iter().map(|path| ("client_key_file".to_owned(), path.clone()));
        let files = of_mapping.filter(|(option, _)| option.ends_with("_file")).chain(of_server);
        files.filter(|(_, path)| is_open_to_all(path)).map(|(option, _)| option).collect()
    }

    /// Returns whether a call goes to one of test_numbers.
    pub fn is_test_number(&self, prepared: &dialect::Prepared) -> bool {
        let recipient = prepared.recipient.as_ref().map(Secret::reveal);
        let code = self.options.test_numbers.as_ref().zip(recipient).and_then(|(numbers, to)| numbers.code_of(to));
        code.is_some()
    }

    /// Returns how long a call may take. `timeout` is what the call's dialect says, if it says anything.
    pub fn timeout(&self, timeout: Option<Duration>) -> Duration {
        self.options.timeout.or(timeout).unwrap_or(TIMEOUT)
    }

    /// Returns how the HTTP client reaches the provider, for a call of that timeout.
    pub fn endpoint(&self, timeout: Option<Duration>) -> Endpoint {
        let options = &self.options;
        let oauth =
            match (options.token_url(), self.credentials.get("client_id"), self.credentials.get("client_secret")) {
                (Some(token_url), Some(client_id), Some(client_secret)) => Some(OAuthClient {
                    token_url: token_url.clone(),
                    client_id: client_id.clone(),
                    client_secret: client_secret.clone(),
                }),
                _ => None,
            };
        Endpoint {
            provider: self.server.to_u32(),
            base_url: options.base_url.clone(),
            timeout: self.timeout(timeout),
            connect_timeout: options.connect_timeout,
            ca_file: options.ca_file.clone(),
            client_cert_file: options.client_cert_file.clone(),
            client_key_file: options.client_key_file.clone(),
            max_in_flight: options.max_in_flight,
            proxy: options.proxy.as_ref().map(|url| Proxy {
                url: url.clone(),
                credentials: self
                    .credentials
                    .get(server_options::PROXY_CREDENTIALS[0])
                    .cloned()
                    .zip(self.credentials.get(server_options::PROXY_CREDENTIALS[1]).cloned()),
            }),
            oauth,
        }
    }
}
