//! The SQL functions, thin: read the arguments, ask the provider and the dialect, hand the letter over, return the row.

pub mod approval;
pub mod fdw_validators;
pub mod function;
pub mod idempotency;
pub mod maintenance;
pub mod payload;
pub mod provider_view;
pub mod repeated_call;
pub mod result_row;

use dialect::{Operation, Secret};
use policy::{Micros, Status};
use uuid::Uuid;

use crate::{
    api::{
        function::sql_function,
        idempotency::Hold,
        payload::{Code, Payload},
    },
    crypto::key_file,
    enqueue,
    error::Misuse,
    ipc::{
        call::send,
        message::{self, Done, Letter, Reply, unexpected},
        session::{self, Unanswered},
    },
    job::{
        Order, Target,
        prepare::{self, Wanted},
    },
    pg::{
        arguments::Interval,
        clock::since_boot,
        foreign_servers,
        roles::{self, current_role},
    },
    provider::{Provider, candidates::Account, lookup::UNROUTED, route::is_route},
    store::{
        rows::{Idempotency, Which},
        session_reads::{self, Recorded, find_by_key},
    },
};

sql_function!(
    fn otp_send(provider: String, payload: Payload, idempotency_key: Option<String>) -> Done {
        send_once(&provider, idempotency_key.as_deref(), &payload)
    }
);

sql_function!(
    fn otp_enqueue(provider: String, payload: Payload, idempotency_key: Option<String>) -> Done {
        enqueue_once(&provider, idempotency_key.as_deref(), &payload)
    }
);

sql_function!(
    fn otp_verify_by_id(verification_id: Uuid, otp: Code, payload: Payload) -> Done {
        run(Operation::Verify, Subject::Verification(verification_id), Some(&otp.0), &payload, None)
    }
);

sql_function!(
    fn otp_verify_by_provider(provider: Option<String>, otp: Code, payload: Payload) -> Done {
        run(Operation::Verify, Subject::read(provider.as_deref())?, Some(&otp.0), &payload, None)
    }
);

sql_function!(
    fn otp_resend(verification_id: Uuid, payload: Payload) -> Done {
        run(Operation::Resend, Subject::Verification(verification_id), None, &payload, None)
    }
);

sql_function!(
    fn otp_cancel(verification_id: Uuid) -> Done {
        run(Operation::Cancel, Subject::Verification(verification_id), None, &Payload::default(), None)
    }
);

sql_function!(
    fn otp_wait(verification_id: Uuid, timeout: Interval) -> Done {
        follow(verification_id, Which::Latest, timeout.0)
    }
);

/// Sends, unless the key stands for a send already: then its result is the answer, as soon as there is one.
fn send_once(provider: &str, key: Option<&str>, payload: &Payload) -> Result<Done, Misuse> {
    let Some(key) = key else { return run(Operation::Send, Subject::Provider(provider), None, payload, None) };
    let (claim, found) = idempotency::claim(provider, key, payload.fields(), Hold::Call)?;
    match found {
        Some(found) => follow(found.id, Which::Original, Micros::MAX),
        None => {
            let idempotency = claim.idempotency.clone();
            run(Operation::Send, Subject::Provider(provider), None, payload, Some(idempotency))
        }
    }
}

/// Enqueues, unless the key stands for a send already: then its row is the answer, as it is.
fn enqueue_once(provider: &str, key: Option<&str>, payload: &Payload) -> Result<Done, Misuse> {
    let Some(key) = key else { return enqueue::enqueue(current_role(), provider, payload.fields(), None) };
    let (claim, found) = idempotency::claim(provider, key, payload.fields(), Hold::Transaction)?;
    match found {
        Some(found) => {
            let recorded = session_reads::verification(found.id)?;
            match recorded.status {
                Status::Queued | Status::Sending => Ok(Done::without_outcome(found.id, recorded)),
                _ => follow(found.id, Which::Original, 0),
            }
        }
        None => enqueue::enqueue(current_role(), provider, payload.fields(), Some(claim.idempotency.clone())),
    }
}

/// What an operation is about, as the caller names it.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Provider(&'a str),
    Verification(Uuid),
}

impl<'a> Subject<'a> {
    /// Two untyped literals resolve to the form of otp_verify that takes a provider, and so does a NULL: what reads as a
    /// uuid is a verification id, and what all but does is one that is spoilt.
    fn read(text: Option<&'a str>) -> Result<Self, Misuse> {
        const HINT: &str =
            "Give the verification_id that otp_send returned; for a flow begun elsewhere, the name of its provider.";
        let Some(text) = text else {
            return Err(Misuse::invalid("verification_id (or provider) is null", HINT));
        };
        if let Ok(id) = Uuid::try_parse(text.trim()) {
            return Ok(Self::Verification(id));
        }
        let digits = text.chars().filter(char::is_ascii_hexdigit).count();
        let is_like_one = digits > 24 && text.chars().all(|c| c.is_ascii_alphanumeric() || " -{}".contains(c));
        if is_like_one && foreign_servers::server(text).is_none() {
            return Err(Misuse::invalid(
                format!("verification_id is not a uuid: it has {digits} hexadecimal digits, and should have 32"),
                HINT,
            ));
        }
        Ok(Self::Provider(text))
    }
}

fn run(
    operation: Operation,
    subject: Subject,
    code: Option<&Secret>,
    payload: &Payload,
    idempotency: Option<Idempotency>,
) -> Result<Done, Misuse> {
    loop {
        let attempt = Uuid::now_v7();
        let mut order = order(operation, subject, attempt, code, payload)?;
        order.idempotency.clone_from(&idempotency);
        let verification = match order.target {
            Target::New(id) | Target::Known(id) | Target::Onward(id) | Target::Find(_, id) => id,
        };
        match send(&Letter::Call(Box::new(order)), attempt)? {
            Reply::Done(done) => return Ok(*done),
            Reply::Refused(misuse) => return Err(misuse),
            Reply::Unknown => return Ok(Done::unknown(verification, attempt)),
            // The queue was quicker, or another call with the same key.
            Reply::Again => {
                if let Some(idempotency) = &idempotency
                    && let Some(found) = find_by_key(&idempotency.keys, idempotency::since())?
                {
                    return follow(found.id, Which::Original, Micros::MAX);
                }
            }
            Reply::Settled | Reply::Kept(_) => return Err(unexpected()),
        }
    }
}

fn order(
    operation: Operation,
    subject: Subject,
    attempt: Uuid,
    code: Option<&Secret>,
    payload: &Payload,
) -> Result<Order, Misuse> {
    let role = roles::current_role();
    let wanted = Wanted {
        operation,
        attempt,
        verification: Uuid::now_v7(),
        recorded: None,
        role: role.oid.to_u32(),
        created_by: &role.name,
        code,
        payload: payload.fields(),
    };
    match subject {
        Subject::Provider(name) if operation == Operation::Send => {
            wanted.send(&Account::find(name, role.oid)?, &*key_file::keys()?)
        }
        Subject::Provider(name) if is_route(name) => Err(Misuse::invalid(
            "a route begins flows, and takes none that was begun elsewhere",
            "otp_verify(verification_id, ...) goes to the provider that sent; or name that provider.",
        )),
        Subject::Provider(name) => wanted.order(&Provider::find(name, role.oid)?, &*key_file::keys()?),
        Subject::Verification(id) => {
            let recorded = settled(id)?;
            if recorded.vendor == UNROUTED {
                // It went nowhere yet: the record answers.
                return Ok(Order { provider_id: recorded.provider_id, ..wanted.unsent(id, &recorded.provider) });
            }
            let provider =
                Account::of_verification(&recorded.provider, recorded.provider_id, recorded.route_id, role.oid)?;
            // A queued one is canceled without the vendor.
            if (provider.dialect.fields)(operation).is_none() && recorded.status != Status::Queued {
                return Err(Misuse::invalid(
                    format!("{} has no {}", provider.dialect.name, operation.as_str()),
                    "The README's table of vendors and operations says which vendor has which.",
                ));
            }
            if provider.dialect.name != recorded.vendor {
                return Err(Misuse::undefined(
                    format!("provider \"{}\" now belongs to another vendor than this verification", recorded.provider),
                    "Begin anew with otp_send.",
                ));
            }
            let on_record = prepare::Recorded {
                status: recorded.status,
                reference: recorded.reference.as_deref(),
                sealed: recorded.sealed.as_deref(),
                send_count: recorded.send_count,
            };
            Wanted { verification: id, recorded: Some(on_record), ..wanted }.order(&provider, &*key_file::keys()?)
        }
    }
}

/// The verification as it is on record, once no send of it is in flight: only then is its reference known.
fn settled(id: Uuid) -> Result<Recorded, Misuse> {
    loop {
        let recorded = session_reads::committed(id)?;
        if recorded.status != Status::Sending {
            return Ok(recorded);
        }
        match send(&Letter::Settle(id), Uuid::nil())? {
            Reply::Settled => return session_reads::committed(id),
            Reply::Again => {}
            Reply::Refused(misuse) => return Err(misuse),
            Reply::Done(_) | Reply::Kept(_) | Reply::Unknown => return Err(unexpected()),
        }
    }
}

/// The verification's row once its send has an outcome, or as it is when the time is over.
fn follow(id: Uuid, which: Which, timeout: Micros) -> Result<Done, Misuse> {
    let until = since_boot().saturating_add(timeout);
    loop {
        // Each time: whether it is the caller's to see, and there at all.
        let recorded = session_reads::committed(id)?;
        // One that has an outcome is answered at once, however short the timeout.
        let until = matches!(recorded.status, Status::Queued | Status::Sending).then_some(until);
        let reply = session::send(&message::write(&Letter::Follow(id, which)), *Uuid::nil().as_bytes(), until)
            .map_err(Unanswered::misuse)?;
        match reply.map(|reply| message::read(&reply)).transpose()? {
            None => return Ok(Done::without_outcome(id, recorded)),
            Some(Reply::Done(done)) => return Ok(*done),
            Some(Reply::Again) => {}
            Some(Reply::Refused(misuse)) => return Err(misuse),
            Some(Reply::Settled | Reply::Kept(_) | Reply::Unknown) => return Err(unexpected()),
        }
    }
}
