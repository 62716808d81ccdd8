//! OAuth 2.0 client credentials (RFC 6749, section 4.4).

use std::time::Duration;

use serde_json::Value;

use crate::{
    call::{HttpRequest, Method},
    outcome::Outcome,
    response::{HttpResponse, is_success, json, scalar},
    secret::{Private, Secret},
};

/// An access token of the authorization server that the option `token_url` names (REL-ID).
#[derive(Debug)]
pub struct Token {
    pub access_token: Secret,
    /// How long the token lives, if the server says so.
    pub expires_in: Option<Duration>,
}

/// Writes the request for a token by client credentials (RFC 6749, 4.4); its URL is the server option `token_url`.
pub fn token_request(client_id: &Secret, client_secret: &Secret) -> HttpRequest {
    let basic = format!("Basic {}", Secret::basic(client_id, client_secret).reveal());
    HttpRequest {
        method: Method::Post,
        path: Secret::default(),
        query: Vec::new(),
        headers: vec![
            ("Authorization".into(), Secret::new(basic)),
            ("Content-Type".into(), Secret::new("application/x-www-form-urlencoded")),
        ],
        body: Secret::new("grant_type=client_credentials&scope=all"),
    }
}

/// Reads the answer to [`token_request`]. A failure is told in the gateway's own words: those of an authorization
/// server may hold a secret.
pub fn read_token(answer: &HttpResponse) -> Result<Token, (Outcome, String)> {
    let body = Private::from(json(answer.body).unwrap_or_default());
    let status = answer.status;
    let error = body.get("error").and_then(Value::as_str).unwrap_or_default();
    if matches!(status, 401 | 403) || matches!(error, "invalid_client" | "unauthorized_client" | "access_denied") {
        return Err((
            Outcome::AuthFailed,
            format!("HTTP {status} from token_url: the client_id and client_secret were refused"),
        ));
    }
    let token = body.get("access_token").and_then(Value::as_str);
    // A token must fit into a header.
    let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
    match token {
        Some(token) if is_success(status) => Ok(Token {
            access_token: Secret::new(token),
            expires_in: scalar(body.get("expires_in")).and_then(|text| text.parse().ok()).map(Duration::from_secs),
        }),
        _ => Err((Outcome::ProviderError, format!("HTTP {status} from token_url, and no access token in the answer"))),
    }
}
