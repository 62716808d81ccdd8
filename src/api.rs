//! The SQL functions, thin: read the arguments, ask the provider and the dialect, hand the letter over, return the row.

mod argument;
mod lookup;
mod result;

pub use argument::Arguments;
use argument::Payload;
use lookup::Recorded;
pub use lookup::{Keyed, current_role, find_by_key};
use pgrx::pg_sys;
use policy::{Micros, Status};
use uuid::Uuid;
use vendor::{Operation, Secret};

use crate::{
    enqueue,
    idempotency::{self, Hold},
    key_file, ledger,
    letter::{self, Done, Idempotency, Letter, Order, Reply, Which},
    log, mailbox,
    misuse::Misuse,
    order::{self, Wanted},
    provider::{Account, Provider, UNROUTED, is_route},
    shared_memory, statement,
};

/// Exports a function in Postgres' calling convention, version 1, with its info record.
macro_rules! sql_function {
    ($name:ident, $body:expr) => {
        #[pgrx::pg_guard]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            let body: fn(pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum = $body;
            body(fcinfo)
        }

        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn info() -> &'static pgrx::pg_sys::Pg_finfo_record {
                static RECORD: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &RECORD
            }
        };
    };
}
pub(crate) use sql_function;

sql_function!(otp_send, |fcinfo| answer(fcinfo, "otp_send", |arguments| {
    let provider = arguments.text(0, "provider")?;
    let payload = arguments.payload(1)?;
    let key = arguments.optional_text(2, "idempotency_key")?;
    send_once(&provider, key.as_deref(), &payload)
}));

sql_function!(otp_enqueue, |fcinfo| answer(fcinfo, "otp_enqueue", |arguments| {
    let provider = arguments.text(0, "provider")?;
    let payload = arguments.payload(1)?;
    let key = arguments.optional_text(2, "idempotency_key")?;
    enqueue_once(&provider, key.as_deref(), &payload)
}));

sql_function!(otp_verify_by_id, |fcinfo| answer(fcinfo, "otp_verify", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    let code = arguments.code(1)?;
    let payload = arguments.payload(2)?;
    run(Operation::Verify, Subject::Verification(id), Some(&code), &payload, None)
}));

sql_function!(otp_verify_by_provider, |fcinfo| answer(fcinfo, "otp_verify", |arguments| {
    let provider = arguments.text(0, "provider")?;
    let code = arguments.code(1)?;
    let payload = arguments.payload(2)?;
    // Two untyped literals resolve to this form: what reads as a uuid is a verification id.
    let subject = match Uuid::try_parse(provider.trim()) {
        Ok(id) => Subject::Verification(id),
        Err(_) => Subject::Provider(&provider),
    };
    run(Operation::Verify, subject, Some(&code), &payload, None)
}));

sql_function!(otp_resend, |fcinfo| answer(fcinfo, "otp_resend", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    let payload = arguments.payload(1)?;
    run(Operation::Resend, Subject::Verification(id), None, &payload, None)
}));

sql_function!(otp_cancel, |fcinfo| answer(fcinfo, "otp_cancel", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    run(Operation::Cancel, Subject::Verification(id), None, &Payload::default(), None)
}));

sql_function!(otp_wait, |fcinfo| answer(fcinfo, "otp_gateway.wait", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    follow(id, Which::Latest, arguments.interval(1, "timeout")?)
}));

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
    let Some(key) = key else { return enqueue::enqueue(provider, payload.fields(), None) };
    let (claim, found) = idempotency::claim(provider, key, payload.fields(), Hold::Transaction)?;
    match found {
        Some(found) => Ok(lookup::verification(found.id)?.done(found.id)),
        None => enqueue::enqueue(provider, payload.fields(), Some(claim.idempotency.clone())),
    }
}

/// What an operation is about, as the caller names it.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Provider(&'a str),
    Verification(Uuid),
}

/// The frame of every function: what must hold before, once in a statement, the row after.
fn answer(
    fcinfo: pg_sys::FunctionCallInfo,
    function: &str,
    body: impl FnOnce(&Arguments) -> Result<Done, Misuse>,
) -> pg_sys::Datum {
    log::one_of_ours_runs();
    let outcome = shared_memory::check().and_then(|()| may_write()).and_then(|()| {
        let arguments = Arguments::of(fcinfo);
        // The row's type is found before the call: nothing after it may fail for want of a catalog.
        let row = result::Row::of(fcinfo);
        let call = statement::fingerprint(function, &arguments)?;
        if let Some(done) = statement::recall(&call) {
            return Ok(row.fill(&done));
        }
        let done = body(&arguments)?;
        let datum = row.fill(&done);
        statement::remember(call, done);
        Ok(datum)
    });
    outcome.unwrap_or_else(|misuse| misuse.raise())
}

pub fn may_write() -> Result<(), Misuse> {
    // SAFETY: reads state of this session and of the server.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            return Err(Misuse::read_only(
                "cannot run on a standby: every attempt is put on record",
                "Connect to the primary.",
            ));
        }
        if pg_sys::XactReadOnly {
            return Err(Misuse::read_only(
                "cannot run in a read-only transaction: every attempt is put on record",
                "SET TRANSACTION READ WRITE, or call it outside.",
            ));
        }
    }
    Ok(())
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
        match send(&Letter::Call(Box::new(order)), attempt)? {
            Reply::Done(done) => return Ok(*done),
            Reply::Refused(misuse) => return Err(misuse),
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
    let role = lookup::current_role();
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
            let on_record = order::Recorded {
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
        let recorded = lookup::committed(id)?;
        if recorded.status != Status::Sending {
            return Ok(recorded);
        }
        match send(&Letter::Settle(id), Uuid::nil())? {
            Reply::Settled => return lookup::committed(id),
            Reply::Again => {}
            Reply::Refused(misuse) => return Err(misuse),
            Reply::Done(_) | Reply::Kept(_) => return Err(unexpected()),
        }
    }
}

/// The verification's row once its send has an outcome, or as it is when the time is over.
fn follow(id: Uuid, which: Which, timeout: Micros) -> Result<Done, Misuse> {
    let until = ledger::clock().saturating_add(timeout);
    loop {
        // Each time: whether it is the caller's to see, and there at all.
        let recorded = lookup::committed(id)?;
        // One that has an outcome is answered at once, however short the timeout.
        let until = matches!(recorded.status, Status::Queued | Status::Sending).then_some(until);
        let reply = mailbox::send(&letter::write(&Letter::Follow(id, which)), *Uuid::nil().as_bytes(), until)?;
        match reply.map(|reply| letter::read(&reply)).transpose()? {
            None => return Ok(recorded.done(id)),
            Some(Reply::Done(done)) => return Ok(*done),
            Some(Reply::Again) => {}
            Some(Reply::Refused(misuse)) => return Err(misuse),
            Some(Reply::Settled | Reply::Kept(_)) => return Err(unexpected()),
        }
    }
}

pub fn send(letter: &Letter, attempt: Uuid) -> Result<Reply, Misuse> {
    let reply = mailbox::send(&letter::write(letter), *attempt.as_bytes(), None)?;
    letter::read(&reply.ok_or_else(unexpected)?)
}

pub fn unexpected() -> Misuse {
    Misuse::internal("the worker's reply does not fit the letter", "Restart the server after installing a new build.")
}
