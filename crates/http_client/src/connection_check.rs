//! Checks how far a connection comes, by the very client that makes the calls: its resolver, its list of allowed hosts,
//! its proxy and its TLS. A connection is given up as soon as it stands, so that no request ever leaves.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper_util::{client::legacy::connect::Connection, rt::TokioIo};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
    tls::TlsInfo,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, timeout},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    allowed_hosts::{Refused, Resolver},
    certificate::not_after,
    connection_pools::ConnectionPools,
    endpoint::Endpoint,
    post::{causes, failure},
};

/// How far a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reached {
    /// No connection was tried: a TLS file, or a URL, cannot be read.
    Nothing,
    /// `otp_gateway.allowed_hosts` does not allow the host.
    Refused,
    /// The host's name was looked up, and not found.
    Lookup,
    /// The host is known (or needs no look-up), and accepts no connection.
    Address,
    /// The host accepts connections, but TLS cannot be agreed on.
    Connection,
    /// The whole connection stands: a request could go.
    All,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCheck {
    pub reached: Reached,
    /// Why the connection came no further.
    pub why: Option<String>,
    /// When the host's certificate ends, in seconds since 1970; through a proxy the certificate is not seen.
    pub certificate_ends: Option<i64>,
}

impl ConnectionCheck {
    fn ended(reached: Reached, why: impl Into<String>) -> Self {
        Self { reached, why: Some(why.into()), certificate_ends: None }
    }

    pub(crate) fn fault() -> Self {
        Self::ended(Reached::Nothing, "the check ended by a fault in the gateway")
    }
}

/// What has been seen of a connection while it is made.
#[derive(Default)]
struct Seen {
    /// Whether the URL is of https.
    is_secure: bool,
    is_resolved: AtomicBool,
    /// Set when the whole connection stands; None if there is no certificate, or it cannot be seen, as in a proxy's
    /// tunnel.
    certificate_ends: OnceLock<Option<i64>>,
}

/// Connects to the URL that an option holds. Ends after twice the endpoint's `connect_timeout`, and little more.
pub async fn check(option: &str, endpoint: &Endpoint, pools: &ConnectionPools) -> ConnectionCheck {
    let Ok(mut url) = Url::parse(&endpoint.base_url) else {
        return ConnectionCheck::ended(Reached::Nothing, format!("{option} is no URL"));
    };
    let (check, is_late) = connect(option, endpoint, pools, url.clone()).await;
    let port = url.port_or_known_default();
    if !is_late || url.scheme() != "https" || url.set_scheme("http").and_then(|()| url.set_port(port)).is_err() {
        return check;
    }
    // The client has one timeout for both TCP and TLS: a second try without TLS tells which of them takes so long.
    match connect(option, endpoint, pools, url).await {
        (plain, _) if plain.reached == Reached::All => ConnectionCheck { reached: Reached::Connection, ..check },
        _ => check,
    }
}

/// Returns how far the connection comes, and whether it ended because it took too long.
async fn connect(option: &str, endpoint: &Endpoint, pools: &ConnectionPools, url: Url) -> (ConnectionCheck, bool) {
    let seen = Arc::new(Seen { is_secure: url.scheme() == "https", ..Seen::default() });
    let watched = pools.watched(endpoint, |builder, resolver| {
        let resolver = WatchedResolver(resolver, Arc::clone(&seen));
        builder.tls_info(true).dns_resolver(resolver).connector_layer(Watch(Arc::clone(&seen)))
    });
    let client = match watched {
        Ok(client) => client,
        Err(why) => return (ConnectionCheck::ended(Reached::Nothing, plain(&why)), false),
    };
    let is_handed_on = client.proxy().is_some() && url.scheme() == "http";
    let has_name = client.proxy().unwrap_or(&url).domain().is_some();
    let request = match client.request(dialect::Method::Post, option, url) {
        Ok(request) => request,
        Err(why) => return (ConnectionCheck::ended(Reached::Refused, why), false),
    };
    let sent = timeout(endpoint.timeout, request.send()).await;
    if let Some(certificate_ends) = seen.certificate_ends.get() {
        let all = ConnectionCheck { reached: Reached::All, why: None, certificate_ends: *certificate_ends };
        return (all, false);
    }
    let is_resolved = !has_name || seen.is_resolved.load(Ordering::Relaxed);
    match sent {
        Ok(Err(error)) => {
            let why = failure(option, client.proxy(), is_handed_on, &error).vendor_message.unwrap_or_default();
            (ConnectionCheck::ended(reached(&error, is_resolved), plain(&why)), is_resolved && error.is_timeout())
        }
        // No answer comes from a connection that stands: `Watched` gives it up.
        Ok(Ok(_)) | Err(_) => {
            let reached = if is_resolved { Reached::Address } else { Reached::Lookup };
            (ConnectionCheck::ended(reached, format!("no connection to {option} within timeout")), is_resolved)
        }
    }
}

fn reached(error: &reqwest::Error, is_resolved: bool) -> Reached {
    let is_at = |words: String| ["tcp ", "tunnel "].iter().any(|place| words.starts_with(place));
    if causes(error).any(|cause| cause.is::<Refused>()) {
        Reached::Refused
    } else if !is_resolved {
        Reached::Lookup
    } else if error.is_timeout() || causes(error).any(|cause| is_at(cause.to_string())) {
        Reached::Address
    } else {
        Reached::Connection
    }
}

/// Leaves out that nothing was sent: a check never sends anything.
fn plain(why: &str) -> &str {
    why.strip_suffix("; nothing was sent").unwrap_or(why)
}

struct WatchedResolver(Resolver, Arc<Seen>);

impl Resolve for WatchedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolving, seen) = (self.0.resolve(name), Arc::clone(&self.1));
        Box::pin(async move {
            let addresses: Addrs = resolving.await?;
            seen.is_resolved.store(true, Ordering::Relaxed);
            Ok(addresses)
        })
    }
}

/// Wraps the client's own way to connect, proxy and TLS included.
#[derive(Clone)]
struct Watch(Arc<Seen>);

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, seen: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
struct Watched<S> {
    inner: S,
    seen: Arc<Seen>,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Connection + Send,
    TokioIo<S::Response>: AsyncRead + Unpin,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    /// Returns an error even if the connection stands: nobody may use it.
    fn call(&mut self, destination: R) -> Self::Future {
        let (connecting, seen, began) = (self.inner.call(destination), Arc::clone(&self.seen), Instant::now());
        Box::pin(async move {
            let connection = connecting.await?;
            let mut extras = http::Extensions::new();
            connection.connected().get_extras(&mut extras);
            let ends = extras.get::<TlsInfo>().and_then(TlsInfo::peer_certificate).and_then(not_after);
            if seen.is_secure {
                is_accepted(&mut TokioIo::new(connection), began.elapsed()).await?;
            }
            let _ = seen.certificate_ends.set(ends);
            Err("a connection stands, and is given up".into())
        })
    }
}

/// Waits for the host's word on our certificate. In TLS 1.3 the host looks at it after the connection counts as made
/// for us; a host that wants another certificate says so a moment later. It says nothing else before a request comes.
async fn is_accepted(connection: &mut (impl AsyncRead + Unpin), took: Duration) -> Result<(), BoxError> {
    let word = std::future::poll_fn(|context| {
        let mut byte = [0];
        Poll::Ready(ready!(Pin::new(&mut *connection).poll_read(context, &mut ReadBuf::new(&mut byte))))
    });
    // Look-up and handshake took at least twice as long as such a word takes.
    match timeout(took.clamp(Duration::from_millis(50), Duration::from_secs(1)), word).await {
        Ok(said) => said.map_err(Into::into),
        Err(_elapsed) => Ok(()),
    }
}
