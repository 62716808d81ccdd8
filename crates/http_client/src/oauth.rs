//! OAuth access tokens, fetched when they are needed and kept until shortly before they end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dialect::{CallResult, Outcome, Secret, read_token, token_request};
use tokio::{
    sync,
    time::{Instant, timeout_at},
};

use crate::{
    connection_pools::PooledClient,
    endpoint::OAuthClient,
    post::{Bearer, own_result, send_once},
    recent::Recent,
};

/// How much earlier than the server says a token ends for us, so that none ends on its way to the vendor.
const EARLY: Duration = Duration::from_secs(30);
/// The life of a token whose answer does not say it. REL-ID says that its tokens live about five minutes.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);
/// The longest life of a token here, whatever its answer says: what never ends may say so by any number.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// The access tokens in use, one for each account.
#[derive(Default)]
pub struct TokenCache(Mutex<Recent<OAuthClient, Arc<sync::Mutex<Option<CachedToken>>>>>);

#[derive(Clone)]
struct CachedToken {
    token: Secret,
    ends: Instant,
}

/// A token that is handed out for one call.
pub struct AccessToken {
    token: Secret,
    fresh: bool,
}

impl AccessToken {
    /// Returns whether the token is new to this call (fetched for it, or in place of the refused one): if the vendor
    /// refuses such a token, another one will not help.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

impl Bearer for AccessToken {
    fn token(&self) -> &Secret {
        &self.token
    }
}

impl TokenCache {
    /// Returns the token in use, or fetches a new one. Many calls that find no token wait for one fetch.
    pub async fn get(
        &self,
        oauth: &OAuthClient,
        client: &PooledClient,
        deadline: Instant,
    ) -> Result<AccessToken, CallResult> {
        self.fetch_unless(oauth, client, deadline, |held| held.ends > Instant::now()).await
    }

    /// Returns another token than the one that was refused.
    pub async fn renew(
        &self,
        oauth: &OAuthClient,
        refused: &AccessToken,
        client: &PooledClient,
        deadline: Instant,
    ) -> Result<AccessToken, CallResult> {
        let renewed = self.fetch_unless(oauth, client, deadline, |held| held.token != refused.token).await?;
        Ok(AccessToken { fresh: true, ..renewed })
    }

    async fn fetch_unless(
        &self,
        oauth: &OAuthClient,
        client: &PooledClient,
        deadline: Instant,
        serves: impl Fn(&CachedToken) -> bool,
    ) -> Result<AccessToken, CallResult> {
        let account = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(
            oauth.clone(),
            Arc::default,
            // A call that waits for the fetch holds the account, too.
            |account| Arc::strong_count(account) == 1,
        );
        // Another call's fetch may have a longer timeout than this call.
        let mut held = timeout_at(deadline, account.lock()).await.map_err(|_elapsed| {
            no_token(Outcome::Unreachable, "another call was still fetching it when timeout ran out")
        })?;
        if let Some(held) = held.as_ref().filter(|held| serves(held)) {
            return Ok(AccessToken { token: held.token.clone(), fresh: false });
        }
        let request = token_request(&oauth.client_id, &oauth.client_secret);
        // Whatever goes wrong here, no code was sent and none was checked.
        let arrived = send_once(client, ("token_url", &oauth.token_url), &request, None::<&AccessToken>, deadline)
            .await
            .map_err(|failed| {
                let why = failed.vendor_message.unwrap_or_default();
                // That the proxy refused the credentials must stay visible.
                let outcome = match failed.outcome {
                    Outcome::AuthFailed => Outcome::AuthFailed,
                    _ => Outcome::Unreachable,
                };
                no_token(outcome, &why)
            })?;
        let token = read_token(&arrived.as_response()).map_err(|(outcome, why)| own_result(outcome, why))?;
        let life = token.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
        *held =
            Some(CachedToken { token: token.access_token.clone(), ends: Instant::now() + life.saturating_sub(EARLY) });
        Ok(AccessToken { token: token.access_token, fresh: true })
    }
}

fn no_token(outcome: Outcome, why: &str) -> CallResult {
    own_result(outcome, format!("no access token from token_url ({why}); nothing else was sent"))
}
