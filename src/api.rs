//! The SQL functions, kept thin: they read the arguments, ask the provider and the dialect, hand a request to the
//! worker, and return the row.

pub mod approval;
pub mod channel;
pub mod check;
pub mod fdw_validators;
pub mod function;
pub mod health;
pub mod idempotency;
pub mod maintenance;
pub mod payload;
pub mod provider_view;
pub mod repeated_call;
pub mod result_row;
pub mod shown_verifications;
pub mod statistics;
pub mod try_call;
pub mod version;

use dialect::{Operation, Secret, no_operation};
use pgrx::pg_sys;
use policy::{Micros, Status};
use serde_json::Map;
use uuid::Uuid;

use crate::{
    api::{
        function::sql_function,
        idempotency::Hold,
        payload::{Code, Payload},
    },
    enqueue,
    error::Error,
    ipc::{
        call::{call, interrupted_wait},
        message::{self, Request, Response, ResultRow, unexpected},
        session::{self, Unanswered},
    },
    job::{
        Job,
        prepare::{self, JobSpec},
    },
    pg::{
        arguments::Interval,
        clock::{SinceBoot, since_boot},
        foreign_servers,
        roles::{self, current_role},
    },
    provider::{Provider, candidates::Candidates, lookup::VENDOR_NOT_CHOSEN, route::is_route},
    store::{
        rows::{IdempotencyHashes, WhichSend},
        sealing_key,
        session_reads::{self, VerificationSnapshot, find_by_key},
    },
};

sql_function!(
    fn otp_send(provider: String, payload: Payload, idempotency_key: Option<String>) -> ResultRow {
        send_once(&provider, idempotency_key.as_deref(), &payload)
    }
);

sql_function!(
    fn otp_enqueue(provider: String, payload: Payload, idempotency_key: Option<String>) -> ResultRow {
        enqueue_once(&provider, idempotency_key.as_deref(), &payload)
    }
);

sql_function!(
    fn otp_verify_by_id(verification_id: Uuid, otp: Code, payload: Payload) -> ResultRow {
        run(Operation::Verify, Subject::Verification(verification_id), Some(&otp.0), &payload, None)
    }
);

sql_function!(
    fn otp_verify_by_provider(provider: Option<String>, otp: Code, payload: Payload) -> ResultRow {
        run(Operation::Verify, Subject::read(provider.as_deref())?, Some(&otp.0), &payload, None)
    }
);

sql_function!(
    fn otp_resend(verification_id: Uuid, payload: Payload) -> ResultRow {
        run(Operation::Resend, Subject::Verification(verification_id), None, &payload, None)
    }
);

sql_function!(
    fn otp_cancel(verification_id: Uuid) -> ResultRow {
        run(Operation::Cancel, Subject::Verification(verification_id), None, &Payload::default(), None)
    }
);

sql_function!(
    fn otp_wait(verification_id: Uuid, timeout: Interval) -> ResultRow {
        follow(verification_id, WhichSend::Latest, timeout.0)
    }
);

/// Sends; if the key stands for a send already, returns that send's result as soon as there is one.
fn send_once(provider: &str, key: Option<&str>, payload: &Payload) -> Result<ResultRow, Error> {
    let Some(key) = key else { return run(Operation::Send, Subject::Provider(provider), None, payload, None) };
    let (claim, found) = idempotency::claim(provider, key, payload.fields(), Hold::Call)?;
    match found {
        Some(found) => follow(found.id, WhichSend::Original, Micros::MAX),
        None => {
            let idempotency = claim.idempotency.clone();
            run(Operation::Send, Subject::Provider(provider), None, payload, Some(idempotency))
        }
    }
}

/// Enqueues; if the key stands for a send already, returns the row of that send as it is.
fn enqueue_once(provider: &str, key: Option<&str>, payload: &Payload) -> Result<ResultRow, Error> {
    let Some(key) = key else { return enqueue::enqueue(current_role(), provider, payload.fields(), None) };
    let (claim, found) = idempotency::claim(provider, key, payload.fields(), Hold::Transaction)?;
    match found {
        Some(found) => {
            let recorded = session_reads::verification(found.id)?;
            match recorded.status {
                Status::Queued | Status::Sending => Ok(ResultRow::without_outcome(found.id, recorded)),
                _ => follow(found.id, WhichSend::Original, 0),
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
    /// Reads the first argument of otp_verify, which takes a provider's name: two untyped literals, or a NULL, resolve
    /// to that form. A text that reads as a uuid is a verification id; one that almost does is a damaged id, and an
    /// error.
    fn read(text: Option<&'a str>) -> Result<Self, Error> {
        const HINT: &str =
            "Give the verification_id that otp_send returned; for a flow begun elsewhere, the name of its provider.";
        let Some(text) = text else {
            return Err(Error::invalid_parameter("verification_id (or provider) is null", HINT));
        };
        if let Ok(id) = Uuid::try_parse(text.trim()) {
            return Ok(Self::Verification(id));
        }
        let digits = text.chars().filter(char::is_ascii_hexdigit).count();
        let is_like_one = digits > 24 && text.chars().all(|c| c.is_ascii_alphanumeric() || " -{}".contains(c));
        if is_like_one && foreign_servers::server(text).is_none() {
            return Err(Error::invalid_parameter(
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
    idempotency: Option<IdempotencyHashes>,
) -> Result<ResultRow, Error> {
    loop {
        let attempt = Uuid::now_v7();
        let job = job(operation, subject, attempt, code, payload, idempotency.as_ref())?;
        let verification = job.action.verification();
        match call(&Request::Run(Box::new(job)), attempt)? {
            Response::Row(row) => return Ok(*row),
            Response::Error(error) => return Err(error),
            Response::Unknown => return Ok(ResultRow::unknown(verification, attempt)),
            // The queue was quicker, or another call with the same key.
            Response::Retry => {
                if let Some(idempotency) = &idempotency
                    && let Some(found) = find_by_key(&idempotency.keys, idempotency::since())?
                {
                    return follow(found.id, WhichSend::Original, Micros::MAX);
                }
            }
            Response::Idle | Response::Progress(_) | Response::Checked(_) | Response::Budget(_) => {
                return Err(unexpected());
            }
        }
    }
}

fn job(
    operation: Operation,
    subject: Subject,
    attempt: Uuid,
    code: Option<&Secret>,
    payload: &Payload,
    idempotency: Option<&IdempotencyHashes>,
) -> Result<Job, Error> {
    let role = roles::current_role();
    let wanted = JobSpec {
        operation,
        attempt,
        verification: Uuid::now_v7(),
        recorded: None,
        role: role.oid.to_u32(),
        created_by: &role.name,
        code,
        payload: payload.fields(),
        idempotency,
    };
    match subject {
        Subject::Provider(name) if operation == Operation::Send => {
            wanted.send(&Candidates::find(name, role.oid)?, &*sealing_key::keys()?)
        }
        Subject::Provider(name) if is_route(name) => Err(Error::invalid_parameter(
            "a route begins flows, and takes none that was begun elsewhere",
            "otp_verify(verification_id, ...) goes to the provider that sent; or name that provider.",
        )),
        Subject::Provider(name) => wanted.job(&Provider::find(name, role.oid)?, &*sealing_key::keys()?),
        Subject::Verification(id) => job_on_record(&JobSpec { verification: id, ..wanted }),
    }
}

/// Returns the job of an operation on a verification on record, by the record as it is now.
fn job_on_record(wanted: &JobSpec) -> Result<Job, Error> {
    let recorded = settled(wanted.verification)?;
    let prior = prepare::PriorState {
        status: recorded.status,
        reference: recorded.reference.as_deref(),
        sealed: recorded.sealed.as_deref(),
        send_count: recorded.send_count,
    };
    let wanted = JobSpec { recorded: Some(prior), ..*wanted };
    if recorded.vendor == VENDOR_NOT_CHOSEN {
        // Nothing was sent yet: the record answers.
        return Ok(wanted.answered_from_record(&recorded.provider, recorded.provider_id));
    }
    let role = pg_sys::Oid::from(wanted.role);
    let provider = Candidates::of_verification(&recorded.provider, recorded.provider_id, recorded.route_id, role)?;
    // A queued send is canceled without the vendor.
    if provider.dialect.fields(wanted.operation).is_none() && recorded.status != Status::Queued {
        return Err(Error::from(no_operation(&provider.dialect, wanted.operation)));
    }
    if provider.dialect.name != recorded.vendor {
        return Err(Error::undefined_object(
            format!("provider \"{}\" now belongs to another vendor than this verification", recorded.provider),
            "Begin anew with otp_send.",
        ));
    }
    wanted.job(&provider, &*sealing_key::keys()?)
}

/// Returns the verification as it is on record, once no send of it is in flight: only then is its reference known.
fn settled(id: Uuid) -> Result<VerificationSnapshot, Error> {
    loop {
        let recorded = session_reads::committed(id)?;
        if recorded.status != Status::Sending {
            return Ok(recorded);
        }
        match call(&Request::AwaitIdle(id), Uuid::nil())? {
            Response::Idle => return session_reads::committed(id),
            Response::Retry => {}
            Response::Error(error) => return Err(error),
            Response::Row(_)
            | Response::Progress(_)
            | Response::Checked(_)
            | Response::Budget(_)
            | Response::Unknown => {
                return Err(unexpected());
            }
        }
    }
}

/// Returns the job of a check of this verification's code, by the provider's rules as they are now for the caller.
/// Returns None if there is no code to check, or if the caller may not check it; then only the verification's own count
/// of checks is told.
fn check_of(id: Uuid, recorded: &VerificationSnapshot) -> Option<Job> {
    if !matches!(recorded.status, Status::Pending | Status::Unknown) {
        return None;
    }
    let role = current_role();
    let (name, route) = (&recorded.provider, recorded.route_id);
    let provider = Candidates::of_verification(name, recorded.provider_id, route, role.oid).ok()?;
    let nothing = Map::new();
    let wanted = JobSpec {
        operation: Operation::Verify,
        attempt: Uuid::nil(),
        verification: id,
        recorded: None,
        role: role.oid.to_u32(),
        created_by: &role.name,
        code: None,
        payload: &nothing,
        idempotency: None,
    };
    Some(wanted.check_of(&provider, recorded.max_checks))
}

/// Returns the verification's row once its send has an outcome, or as it is when the time is over.
fn follow(id: Uuid, which: WhichSend, timeout: Micros) -> Result<ResultRow, Error> {
    let until = since_boot() + timeout;
    loop {
        // Read in each round: the verification must be there, and the caller must be allowed to see it.
        let recorded = session_reads::committed(id)?;
        // A send that has an outcome is answered at once, however short the timeout.
        let until = recorded.status.awaits_send().then_some(until);
        let check = check_of(id, &recorded).map(Box::new);
        let request = message::write(&Request::AwaitSend(id, which, recorded.status, check, SinceBoot::default()));
        let response = match session::send(&request, *Uuid::nil().as_bytes(), until) {
            // The error tells the verification's id: a caller with a key has not yet heard of it.
            Err(Unanswered::Interrupted { error, .. }) if matches!(which, WhichSend::Original) => {
                interrupted_wait(&error, Some(id))
            }
            response => response.map_err(Unanswered::error)?,
        };
        match response.map(|response| message::read(&response)).transpose()? {
            None => return Ok(ResultRow::without_outcome(id, recorded)),
            Some(Response::Row(row)) => return Ok(*row),
            Some(Response::Retry) => {}
            Some(Response::Error(error)) => return Err(error),
            Some(
                Response::Idle | Response::Progress(_) | Response::Checked(_) | Response::Budget(_) | Response::Unknown,
            ) => {
                return Err(unexpected());
            }
        }
    }
}
