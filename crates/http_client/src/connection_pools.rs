//! Pools of warm connections: one for each set of TLS files, proxy and connect timeout.

use std::{
    fs,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::{Certificate, ClientBuilder, Identity, Method, Proxy, RequestBuilder, Url, redirect, retry, tls};

use crate::{
    allowed_hosts::{AllowedHosts, Resolver},
    endpoint::Endpoint,
    option_file::{file_error, open_file},
    recent::Recent,
};

/// One reqwest client, and so one pool of warm connections, for each [`Key`]; all under one list of allowed hosts.
pub struct ConnectionPools(Mutex<Pools>);

struct Pools {
    /// The allowed hosts; or why the list cannot be read: then nothing is allowed.
    allowed: Result<Arc<AllowedHosts>, String>,
    pools: Recent<Key, PooledClient>,
}

/// An HTTP client that connects to allowed hosts alone.
#[derive(Clone)]
pub struct PooledClient {
    http: reqwest::Client,
    allowed: Arc<AllowedHosts>,
    proxy: Option<Url>,
}

impl PooledClient {
    fn new(endpoint: &Endpoint, allowed: &Arc<AllowedHosts>, builder: ClientBuilder) -> Result<Self, String> {
        let http = builder.build().map_err(|_| "the TLS settings of the server do not fit together".to_owned())?;
        let proxy = endpoint.proxy.as_ref().map(|proxy| Url::parse(&proxy.url));
        let proxy = proxy.transpose().map_err(|_| "proxy is no URL; nothing was sent")?;
        Ok(Self { http, allowed: Arc::clone(allowed), proxy })
    }

    /// Begins a request to the URL that an option holds. An error says why no connection can be made.
    pub fn request(&self, method: dialect::Method, option: &str, url: Url) -> Result<RequestBuilder, String> {
        let no_way = |option: &str, why: &dyn std::fmt::Display| format!("no connection to {option}: {why}");
        match &self.proxy {
            None => self.allowed.check(&url).map_err(|refused| no_way(option, &refused))?,
            Some(proxy) => {
                self.allowed.check(proxy).map_err(|refused| no_way("proxy", &refused))?;
                self.allowed.check_behind_proxy(&url).map_err(|refused| no_way(option, &refused))?;
            }
        }
        let method = match method {
            dialect::Method::Get => Method::GET,
            dialect::Method::Post => Method::POST,
            dialect::Method::Put => Method::PUT,
            dialect::Method::Patch => Method::PATCH,
            dialect::Method::Delete => Method::DELETE,
        };
        Ok(self.http.request(method, url))
    }

    /// Returns the proxy's URL, without its credentials.
    pub fn proxy(&self) -> Option<&Url> {
        self.proxy.as_ref()
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    connect_timeout: Duration,
    files: [Option<(String, Option<SystemTime>)>; 3],
    /// The proxy with its credentials: a tunnel that was made for one account must not carry another account's calls.
    proxy: Option<crate::endpoint::Proxy>,
}

impl ConnectionPools {
    pub fn new(allowed: Result<AllowedHosts, String>) -> Self {
        Self(Mutex::new(Pools { allowed: allowed.map(Arc::new), pools: Recent::default() }))
    }

    /// Sets the list for every call that begins from now on. The pools are emptied: a warm connection may lead to a
    /// host that the new list does not allow.
    pub fn set_allowed_hosts(&self, allowed: Result<AllowedHosts, String>) {
        let allowed = allowed.map(Arc::new);
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.allowed != allowed {
            *pools = Pools { allowed, pools: Recent::default() };
        }
    }

    /// Returns the client for an endpoint, made anew if a certificate file has changed. The error is for the user.
    pub fn get(&self, endpoint: &Endpoint) -> Result<PooledClient, String> {
        let file = |path: &Option<String>| {
            path.as_ref().map(|path| (path.clone(), fs::metadata(path).and_then(|meta| meta.modified()).ok()))
        };
        let key = Key {
            connect_timeout: connect_timeout(endpoint),
            files: [file(&endpoint.ca_file), file(&endpoint.client_cert_file), file(&endpoint.client_key_file)],
            proxy: endpoint.proxy.clone(),
        };
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Pools { allowed, pools } = &mut *pools;
        let allowed = readable(allowed)?;
        pools.retain(|other| other.files.iter().zip(&key.files).all(|(a, b)| !replaces(a, b)));
        let connect_timeout = key.connect_timeout;
        let make =
            || PooledClient::new(endpoint, allowed, builder(endpoint, connect_timeout, Resolver(Arc::clone(allowed)))?);
        // A pool may go while a call uses it: the call holds the pool itself.
        pools.try_get(key, make, |_| true)
    }

    /// Makes a client of the same settings for a look at the connection alone; the client is not kept.
    pub fn watched(
        &self,
        endpoint: &Endpoint,
        watch: impl FnOnce(ClientBuilder, Resolver) -> ClientBuilder,
    ) -> Result<PooledClient, String> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = Arc::clone(readable(&pools.allowed)?);
        drop(pools);
        let resolver = Resolver(Arc::clone(&allowed));
        let plain = builder(endpoint, connect_timeout(endpoint), Resolver(Arc::clone(&allowed)))?;
        PooledClient::new(endpoint, &allowed, watch(plain, resolver))
    }
}

fn readable(allowed: &Result<Arc<AllowedHosts>, String>) -> Result<&Arc<AllowedHosts>, String> {
    allowed.as_ref().map_err(|why| format!("otp_gateway.allowed_hosts cannot be read: {why}; nothing was sent"))
}

/// Returns how long a connect may take. It times out before the whole call does, also after the longest wait for a
/// place: so a connection that failed is told from an answer that did not come, and is `unreachable`.
fn connect_timeout(endpoint: &Endpoint) -> Duration {
    endpoint.connect_timeout.min(endpoint.timeout.mul_f32(0.45))
}

/// Returns whether a file has the same path and another time.
fn replaces(old: &Option<(String, Option<SystemTime>)>, new: &Option<(String, Option<SystemTime>)>) -> bool {
    matches!((old, new), (Some(old), Some(new)) if old.0 == new.0 && old.1 != new.1)
}

fn builder(endpoint: &Endpoint, connect_timeout: Duration, resolver: Resolver) -> Result<ClientBuilder, String> {
    let mut builder = reqwest::Client::builder()
        .dns_resolver(resolver)
        .connect_timeout(connect_timeout)
        // No request whose bytes may have left is repeated, and none is taken to another host.
        .retry(retry::never())
        .redirect(redirect::Policy::none())
        // No proxy of the environment's, which would take numbers and credentials wherever it points.
        .no_proxy()
        .user_agent(concat!("otp_gateway/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .tcp_nodelay(true)
        // When the certificate ends is told before it does.
        .tls_info(true)
        .pool_idle_timeout(Duration::from_secs(90))
        .tls_version_min(tls::Version::TLS_1_2);
    if let Some(proxy) = &endpoint.proxy {
        let mut way = Proxy::all(&proxy.url).map_err(|_| "proxy is no URL; nothing was sent".to_owned())?;
        if let Some((user, password)) = &proxy.credentials {
            way = way.basic_auth(user.reveal(), password.reveal());
        }
        builder = builder.proxy(way);
    }
    if let Some(path) = &endpoint.ca_file {
        let pem = read("ca_file", path)?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())
            .ok_or_else(|| format!("ca_file {path} holds no certificate in PEM form"))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let (Some(certificate), Some(key)) = (&endpoint.client_cert_file, &endpoint.client_key_file) {
        let mut pem = read("client_cert_file", certificate)?;
        pem.push(b'\n');
        pem.extend(read("client_key_file", key)?);
        let identity = Identity::from_pem(&pem)
            .map_err(|_| format!("{certificate} and {key} are no certificate and key in PEM form"))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn read(option: &str, path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open_file(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| format!("{option} {path} cannot be read: {}", file_error(&error)))?;
    Ok(bytes)
}
