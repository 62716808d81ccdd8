//! One call, from waiting for a place to the reading of the answer.

use dialect::{CallResult, HttpRequest, Operation, Outcome, Secret};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::{
    client::{CompletedCall, OutboundCall},
    connection_pools::ConnectionPools,
    oauth::TokenCache,
    post::{Bearer, header, own_result, send_once},
};

/// Makes one call, from waiting for a place to reading the answer.
pub async fn run_call(
    mut outbound: OutboundCall,
    pools: &ConnectionPools,
    tokens: &TokenCache,
    place: &Semaphore,
) -> CompletedCall {
    let mut end = End::default();
    let result = call(&outbound, pools, tokens, place, &mut end).await.unwrap_or_else(|ended| ended);
    outbound.secrets.append(&mut end.tokens);
    let (result, record) = result.redacted(&outbound.dialect, &outbound.secrets);
    CompletedCall {
        call_id: outbound.call_id,
        http_status: end.http_status,
        result,
        record,
        voided: end.voided,
        not_begun: end.not_begun,
        is_ours: end.is_ours,
        certificate_ends: end.certificate_ends,
    }
}

/// Returns the end of a call that had not begun when the HTTP client was closed.
pub fn not_begun(call_id: u64) -> CompletedCall {
    let why = "the background worker stopped before the call began; nothing was sent";
    CompletedCall {
        call_id,
        http_status: None,
        result: own_result(Outcome::Unreachable, why),
        record: None,
        voided: false,
        not_begun: true,
        is_ours: false,
        certificate_ends: None,
    }
}

/// What is known of a call's end besides its result.
#[derive(Default)]
struct End {
    http_status: Option<u16>,
    voided: bool,
    not_begun: bool,
    is_ours: bool,
    certificate_ends: Option<i64>,
    /// The access tokens that the call has used: an answer may repeat them, as it may repeat any credential.
    tokens: Vec<Secret>,
}

/// What the vendor has answered to one request.
struct Answered {
    result: CallResult,
    status: u16,
    certificate_ends: Option<i64>,
}

/// Makes the call. `Err` holds a result, too: one that ends the call early.
async fn call(
    outbound: &OutboundCall,
    pools: &ConnectionPools,
    tokens: &TokenCache,
    place: &Semaphore,
    end: &mut End,
) -> Result<CallResult, CallResult> {
    let endpoint = &outbound.endpoint;
    let began = Instant::now();
    let deadline = began + endpoint.timeout;
    // The wait takes half of the time at most: what is left must be enough to tell a connection that failed from an
    // answer that did not come.
    let _place = match timeout_at(began + endpoint.timeout / 2, place.acquire()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_closed)) => {
            end.not_begun = true;
            return Err(not_begun(outbound.call_id).result);
        }
        Err(_elapsed) => {
            return Err(own_result(
                Outcome::Unreachable,
                format!(
                    "no place among max_in_flight ({}) came free within half of timeout; nothing was sent",
                    endpoint.max_in_flight
                ),
            ));
        }
    };
    if !can_be_sent(outbound) {
        end.is_ours = true;
        return Err(own_result(
            Outcome::Unreachable,
            "a credential or id cannot stand in an HTTP header; nothing was sent",
        ));
    }
    let client = pools.get(endpoint).map_err(|why| own_result(Outcome::Unreachable, why))?;
    let exchange = async |request: &HttpRequest,
                          operation: Operation,
                          used_tokens: &mut Vec<Secret>|
           -> Result<Answered, CallResult> {
        let mut bearer = match &endpoint.oauth {
            Some(oauth) => Some(tokens.get(oauth, &client, deadline).await?),
            None => None,
        };
        loop {
            used_tokens.extend(bearer.iter().map(|bearer| bearer.token().clone()));
            let arrived =
                send_once(&client, ("base_url", &endpoint.base_url), request, bearer.as_ref(), deadline).await?;
            // A 401 means that the call was not processed: renew a token that was not fetched for this call, and repeat
            // once.
            if arrived.status == 401
                && let (Some(oauth), Some(used)) = (&endpoint.oauth, bearer.take_if(|token| !token.is_fresh()))
            {
                bearer = Some(tokens.renew(oauth, &used, &client, deadline).await?);
                continue;
            }
            let result = dialect::interpret(&outbound.dialect, operation, &arrived.as_response());
            return Ok(Answered { result, status: arrived.status, certificate_ends: arrived.certificate_ends });
        }
    };
    if let Some(first) = &outbound.first {
        let voiding = exchange(first, Operation::Cancel, &mut end.tokens).await?;
        if !matches!(voiding.result.outcome, Outcome::Canceled | Outcome::NotFound | Outcome::Expired) {
            (end.http_status, end.certificate_ends) = (Some(voiding.status), voiding.certificate_ends);
            return Err(voiding.result);
        }
        end.voided = true;
    }
    let answered = exchange(&outbound.request, outbound.operation, &mut end.tokens).await?;
    (end.http_status, end.certificate_ends) = (Some(answered.status), answered.certificate_ends);
    Ok(answered.result)
}

/// Returns whether every header can be written.
fn can_be_sent(outbound: &OutboundCall) -> bool {
    let requests = [Some(&outbound.request), outbound.first.as_ref()];
    requests.into_iter().flatten().flat_map(|request| &request.headers).all(|(_, value)| header(value).is_ok())
}
