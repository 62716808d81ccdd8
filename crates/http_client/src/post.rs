//! One request, never repeated, and what is known if it fails.

use std::time::{Duration, SystemTime};

use dialect::{CallResult, HttpRequest, HttpResponse, MAX_RESPONSE_BYTES, Outcome, Secret};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    tls::TlsInfo,
};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{certificate::not_after, connection_pools::PooledClient};

/// Returns the URL that a request goes to.
pub fn call_url(base: &str, request: &HttpRequest) -> Option<Url> {
    let path = request.path.reveal();
    // The URL of a token is called as it is written.
    let base = if path.is_empty() { base } else { base.trim_end_matches('/') };
    let mut url = Url::parse(&format!("{base}{path}")).ok()?;
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(request.query.iter().map(|(name, value)| (name, value.reveal())));
    }
    Some(url)
}

/// An HTTP answer, read into memory.
pub struct ReceivedResponse {
    pub status: u16,
    retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
    /// As [`CompletedCall::certificate_ends`](crate::client::CompletedCall).
    pub certificate_ends: Option<i64>,
}

impl ReceivedResponse {
    pub fn as_response(&self) -> HttpResponse<'_> {
        HttpResponse { status: self.status, retry_after: self.retry_after, body: &self.body }
    }
}

/// A bearer token for one request.
pub trait Bearer {
    fn token(&self) -> &Secret;
}

/// Sends one request, never repeated, to the URL that an option holds.
pub async fn send_once(
    client: &PooledClient,
    (option, base): (&str, &str),
    request: &HttpRequest,
    bearer: Option<&impl Bearer>,
    deadline: Instant,
) -> Result<ReceivedResponse, CallResult> {
    let unsent = |why: &str| own_result(Outcome::Unreachable, format!("{why}; nothing was sent"));
    let url = call_url(base, request).ok_or_else(|| unsent(&format!("{option} is no URL")))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsent("a header's name is malformed"))?;
        headers.insert(name, header(value).map_err(|()| unsent("a credential or id cannot stand in an HTTP header"))?);
    }
    if let Some(bearer) = bearer {
        let value = Secret::new(format!("Bearer {}", bearer.token().reveal()));
        headers
            .insert("authorization", header(&value).map_err(|()| unsent("the access token cannot stand in a header"))?);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(unsent("timeout ran out before the call"));
    }
    // A request to an http URL is handed to the proxy, and the answer may be the proxy's own.
    let is_handed_on = client.proxy().is_some() && url.scheme() == "http";
    let mut message = client.request(request.method, option, url).map_err(|why| unsent(&why))?;
    if !request.body.reveal().is_empty() {
        message = message.body(request.body.reveal().to_owned());
    }
    let sent = message.headers(headers).timeout(left).send().await;
    let mut response = sent.map_err(|error| failure(option, client.proxy(), is_handed_on, &error))?;
    let status = response.status().as_u16();
    if let (407, true, Some(proxy)) = (status, is_handed_on, client.proxy()) {
        return Err(unpaid(option, proxy));
    }
    let certificate_ends =
        response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).and_then(not_after);
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| wait_of(value.to_str().ok()?.trim()));
    let mut body = Zeroizing::new(Vec::new());
    // One byte over the limit is enough to know that the answer is too long; the rest is not read.
    while body.len() <= MAX_RESPONSE_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) if error.is_timeout() => {
                return Err(own_result(Outcome::Unknown, "the answer was not complete within timeout"));
            }
            Err(_) => return Err(own_result(Outcome::Unknown, "the connection broke in the middle of the answer")),
        }
    }
    body.truncate(MAX_RESPONSE_BYTES + 1);
    Ok(ReceivedResponse { status, retry_after, body, certificate_ends })
}

/// Returns how long to wait by `Retry-After`: seconds, or a date. Returns None for a date that has passed.
fn wait_of(text: &str) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

pub fn header(value: &Secret) -> Result<HeaderValue, ()> {
    let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Tells whether anything can have left. The error's own text is not used: it holds the URL, and so the query.
pub fn failure(option: &str, proxy: Option<&Url>, is_handed_on: bool, error: &reqwest::Error) -> CallResult {
    if error.is_connect() {
        let why = if error.is_timeout() { "no connection within connect_timeout".to_owned() } else { cause(error) };
        let Some(proxy) = proxy else {
            return own_result(Outcome::Unreachable, format!("no connection to {option}: {why}; nothing was sent"));
        };
        let of_tunnel = |what: &str| causes(error).any(|cause| cause.to_string() == format!("tunnel error: {what}"));
        if of_tunnel("proxy authorization required") {
            return unpaid(option, proxy);
        }
        let shown = proxy.as_str().trim_end_matches('/');
        let to = if is_handed_on || of_tunnel("failed to create underlying connection") {
            format!("proxy {shown}")
        } else {
            format!("{option} through proxy {shown}")
        };
        let why = match why.strip_prefix("tunnel error: ") {
            Some("unsuccessful") => "the proxy made none",
            Some("unexpected end of file") => "the proxy hung up",
            Some(why) => why,
            None => &why,
        };
        own_result(Outcome::Unreachable, format!("no connection to {to}: {why}; nothing was sent"))
    } else if error.is_builder() {
        own_result(Outcome::Unreachable, format!("the request could not be built: check {option}; nothing was sent"))
    } else if error.is_timeout() {
        own_result(Outcome::Unknown, "no answer within timeout")
    } else {
        own_result(Outcome::Unknown, "the connection closed before an answer that can be read")
    }
}

/// Returns the innermost cause: what the system or TLS said.
fn cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

pub fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

/// Returns the result of a proxy that wants other credentials. The call is not made again: it would send the same ones.
pub fn unpaid(option: &str, proxy: &Url) -> CallResult {
    let shown = proxy.as_str().trim_end_matches('/');
    own_result(
        Outcome::AuthFailed,
        format!(
            "no connection to {option}: proxy {shown} refused the user mapping's proxy_user and proxy_password, or \
             wants some; the vendor was not reached"
        ),
    )
}

/// Returns a result in the gateway's own words.
pub fn own_result(outcome: Outcome, why: impl Into<String>) -> CallResult {
    CallResult::new(outcome, None, Some(why.into()))
}
