//! One call, from waiting for a place to the reading of the answer.

use dialect::{Operation, Outcome, Reading, Request};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::{
    client::{Delivery, Parcel},
    connection_pools::Clients,
    oauth::Tokens,
    post::{header, post, reading},
};

/// Makes the call that a parcel asks for, from waiting for a place to the reading of the answer.
pub async fn carry(parcel: Parcel, clients: &Clients, tokens: &Tokens, place: &Semaphore) -> Delivery {
    let mut end = End::default();
    let reading = call(&parcel, clients, tokens, place, &mut end).await.unwrap_or_else(|reading| reading);
    let (reading, record) = reading.redacted(parcel.dialect, &parcel.secrets);
    Delivery {
        ticket: parcel.ticket,
        http_status: end.http_status,
        reading,
        record,
        voided: end.voided,
        unbegun: end.unbegun,
        is_callers_fault: end.is_callers_fault,
    }
}

/// What the courier was closed before.
pub fn unbegun(ticket: u64) -> Delivery {
    let why = "the background worker stopped before the call began; nothing was sent";
    Delivery {
        ticket,
        http_status: None,
        reading: reading(Outcome::Unreachable, why),
        record: None,
        voided: false,
        unbegun: true,
        is_callers_fault: false,
    }
}

/// What is known of a call besides its reading.
#[derive(Default)]
struct End {
    http_status: Option<u16>,
    voided: bool,
    unbegun: bool,
    is_callers_fault: bool,
}

/// `Err` is a reading, too: one that ends the call early.
async fn call(
    parcel: &Parcel,
    clients: &Clients,
    tokens: &Tokens,
    place: &Semaphore,
    end: &mut End,
) -> Result<Reading, Reading> {
    let route = &parcel.route;
    let began = Instant::now();
    let deadline = began + route.timeout;
    // Half of the time at most: so that what is left is enough to tell a connection that failed from an answer that
    // did not come.
    let _place = match timeout_at(began + route.timeout / 2, place.acquire()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_closed)) => {
            end.unbegun = true;
            return Err(unbegun(parcel.ticket).reading);
        }
        Err(_elapsed) => {
            return Err(reading(
                Outcome::Unreachable,
                format!(
                    "no place among max_in_flight ({}) came free within half of timeout; nothing was sent",
                    route.max_in_flight
                ),
            ));
        }
    };
    if !can_be_sent(parcel) {
        end.is_callers_fault = true;
        return Err(reading(
            Outcome::Unreachable,
            "a credential or id cannot stand in an HTTP header; nothing was sent",
        ));
    }
    let client = clients.get(route).map_err(|why| reading(Outcome::Unreachable, why))?;
    let post = async |request: &Request, operation: Operation| -> Result<(Reading, u16), Reading> {
        let mut bearer = match &route.oauth {
            Some(oauth) => Some(tokens.get(oauth, &client, deadline).await?),
            None => None,
        };
        loop {
            let arrived = post(&client, ("base_url", &route.base_url), request, bearer.as_ref(), deadline).await?;
            // A 401 means that the call was not processed: renew the token, and repeat once.
            if arrived.status == 401
                && let (Some(oauth), Some(used)) = (&route.oauth, bearer.take_if(|token| !token.is_fresh()))
            {
                bearer = Some(tokens.renew(oauth, &used, &client, deadline).await?);
                continue;
            }
            return Ok((dialect::read(parcel.dialect, operation, &arrived.answer()), arrived.status));
        }
    };
    if let Some(first) = &parcel.first {
        let (voiding, status) = post(first, Operation::Cancel).await?;
        if !matches!(voiding.outcome, Outcome::Canceled | Outcome::NotFound | Outcome::Expired) {
            end.http_status = Some(status);
            return Err(voiding);
        }
        end.voided = true;
    }
    let (reading, status) = post(&parcel.request, parcel.operation).await?;
    end.http_status = Some(status);
    Ok(reading)
}

/// Whether every header can be written.
fn can_be_sent(parcel: &Parcel) -> bool {
    let requests = [Some(&parcel.request), parcel.first.as_ref()];
    requests.into_iter().flatten().flat_map(|request| &request.headers).all(|(_, value)| header(value).is_ok())
}
