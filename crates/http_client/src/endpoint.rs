//! How to reach a provider.

use std::time::Duration;

use dialect::Secret;
use serde::{Deserialize, Serialize};

/// How to reach a provider, by its server options.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The provider whose `max_in_flight` this call counts against: a number that stays when the provider is renamed.
    pub provider: u32,
    pub base_url: String,
    /// For the whole call; at most half of it is spent waiting for a place among `max_in_flight`.
    pub timeout: Duration,
    /// For DNS, TCP and TLS; never more than 45 % of `timeout`.
    pub connect_timeout: Duration,
    pub ca_file: Option<String>,
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
    pub max_in_flight: u32,
    pub proxy: Option<Proxy>,
    pub oauth: Option<OAuthClient>,
}

/// The only way out of some networks. An https host is reached through a tunnel, so that the proxy sees no more than
/// the host's name; an http request is handed to the proxy, which sees all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proxy {
    /// Scheme, host and port.
    pub url: String,
    /// User and password.
    pub credentials: Option<(Secret, Secret)>,
}

/// OAuth2 client credentials: the access token is fetched, kept until shortly before it ends, and put on each call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OAuthClient {
    pub token_url: String,
    pub client_id: Secret,
    pub client_secret: Secret,
}
