//! The functions that keep the record in order: `otp_gateway.purge`, `forget`, `release` and `rotate_key`, and `find`,
//! which reads the record by number. The worker does the work in parts; the session asks for one part after the other,
//! tells how far it has come, and can be interrupted between two parts.

use dialect::Secret;
use policy::{Micros, NumberRange};
use uuid::Uuid;

use crate::{
    api::{function::sql_function, shown_verifications::ShownVerifications},
    crypto::key_file,
    error::Error,
    ipc::{
        call::call,
        message::{Maintenance, Request, Response, unexpected},
        session, worker_registry,
    },
    pg::{
        arguments::Interval, clock::clock, database, foreign_servers, roles::current_role, values::pg_uuid,
        writable::may_write,
    },
    provider::{lookback, lookup, ownership, recipient, route::is_route_server},
    store::{
        identity::{Kind, identities_of},
        recipient_lookup::{ShownVerification, visible_verifications},
        sealing_key,
    },
};

/// How often the caller is told how far the work has come, in microseconds.
const PROGRESS: Micros = 5_000_000;

sql_function!(
    fn purge(older_than: Interval) -> i64 {
        may_write()?;
        let providers = ownership::owned(current_role().oid)?;
        let memory = lookback::longest_memory();
        if older_than.0 < memory {
            return Err(Error::invalid_parameter(
                format!(
                    "older_than is shorter than the {} s that limits and idempotency keys look back on",
                    memory / 1_000_000
                ),
                "Give that or more; a provider's send_limit, check_limit or provider_limit with a long window can be \
                made shorter.",
            ));
        }
        let before = clock() - older_than.0;
        in_parts(|from| Maintenance::Purge { before, providers: providers.clone(), from })
    }
);

sql_function!(
    fn forget(provider: String, mobile: Secret) -> i64 {
        may_write()?;
        let kept = ownership::kept(&provider, current_role().oid)?;
        let recipient_keys = keys_of(&recipient::recipients(&kept.members, &mobile)?)?;
        in_parts(|_| Maintenance::Forget {
            provider: kept.identities.clone(),
            owned: kept.owned.clone(),
            recipient_keys: recipient_keys.clone(),
        })
    }
);

sql_function!(
    fn release_range(provider: String, range: String) -> bool {
        may_write()?;
        let server = lookup::named(&provider)?;
        ownership::must_own(&server, current_role().oid)?;
        if is_route_server(&server) {
            return Err(Error::invalid_parameter(
                "a range is held back at a provider, and this is a route",
                "Name the provider that otp_gateway.ranges shows.",
            ));
        }
        let range = NumberRange::read(&range).ok_or_else(|| {
            Error::invalid_parameter(
                "range is none",
                "As otp_gateway.ranges has it: + and how the numbers begin, without their last six digits.",
            )
        })?;
        let providers = identities_of(Kind::Server, server.oid)?;
        Ok(in_parts(|_| Maintenance::Release { providers: providers.clone(), range: range.clone() })? > 0)
    }
);

sql_function!(
    fn rotate_key() -> i64 {
        may_write()?;
        key_file::lock();
        // The key that this database needs must be there before the file changes.
        sealing_key::keys()?;
        key_file::add_key()?;
        worker_registry::notify_new_key_elsewhere(database::current());
        in_parts(|from| Maintenance::Reseal { from })
    }
);

sql_function!(
    fn found_verifications(provider: String, mobile: Secret) -> ShownVerifications {
        at_provider(&provider, &mobile).map(ShownVerifications)
    }
);

sql_function!(
    fn found_verifications_anywhere(mobile: Secret) -> ShownVerifications {
        anywhere(&mobile).map(ShownVerifications)
    }
);

// By the name that the scripts before 0.7.0 have.
sql_function!(
    fn recipient_verifications(provider: String, mobile: Secret) -> Vec<pgrx::datum::Uuid> {
        at_provider(&provider, &mobile).map(ids)
    }
);

sql_function!(
    fn recipient_verifications_anywhere(mobile: Secret) -> Vec<pgrx::datum::Uuid> {
        anywhere(&mobile).map(ids)
    }
);

fn at_provider(provider: &str, mobile: &Secret) -> Result<Vec<ShownVerification>, Error> {
    let recipients = recipient::recipients(&recipient::members(provider)?, mobile)?;
    visible_verifications(Some(foreign_servers::oid_of(provider)), &keys_of(&recipients)?)
}

fn anywhere(mobile: &Secret) -> Result<Vec<ShownVerification>, Error> {
    visible_verifications(None, &keys_of(&recipient::recipients_anywhere(mobile)?)?)
}

fn ids(found: Vec<ShownVerification>) -> Vec<pgrx::datum::Uuid> {
    found.iter().map(|one| pg_uuid(one.id)).collect()
}

/// Returns the keys by which the record finds these recipients.
fn keys_of(recipients: &[Secret]) -> Result<Vec<Vec<u8>>, Error> {
    let keys = sealing_key::keys()?;
    Ok(recipients.iter().flat_map(|recipient| keys.recipients(recipient)).collect())
}

/// Has the worker do one part after the other; returns how many verifications the parts changed.
pub fn in_parts(part: impl Fn(Uuid) -> Maintenance) -> Result<i64, Error> {
    // Only here: find works on a standby, too, which has no launcher.
    session::await_launcher()?;
    let (mut count, mut from, mut said) = (0u64, Uuid::nil(), clock());
    loop {
        match call(&Request::Maintain(part(from)), Uuid::nil())? {
            Response::Progress(progress) => {
                count += progress.count;
                match progress.next {
                    Some(next) => from = next,
                    None => return Ok(i64::try_from(count).unwrap_or(i64::MAX)),
                }
            }
            // Another worker has taken over meanwhile: ask for the part again.
            Response::Retry => {}
            Response::Error(error) => return Err(error),
            Response::Row(_) | Response::Idle | Response::Checked(_) | Response::Budget(_) | Response::Unknown => {
                return Err(unexpected());
            }
        }
        if clock().since(said) > PROGRESS {
            pgrx::notice!("otp_gateway: {count} verifications so far");
            said = clock();
        }
    }
}
