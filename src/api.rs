//! The SQL functions, thin: read the arguments, ask the provider and the dialect, hand the letter over, return the row.

mod argument;
mod lookup;
mod result;

pub use argument::Arguments;
use argument::Payload;
use lookup::Recorded;
use pgrx::pg_sys;
use policy::from_record;
use serde_json::{Map, Value};
use uuid::Uuid;
use vendor::{Call, Operation, Secret};

use crate::{
    letter::{self, Done, Letter, Order, Outgoing, Reply, Target},
    log, mailbox,
    misuse::Misuse,
    provider::Provider,
    seal::Key,
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
    run(Operation::Send, Subject::Provider(&provider), None, &payload)
}));

sql_function!(otp_verify_by_id, |fcinfo| answer(fcinfo, "otp_verify", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    let code = arguments.code(1)?;
    let payload = arguments.payload(2)?;
    run(Operation::Verify, Subject::Verification(id), Some(&code), &payload)
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
    run(Operation::Verify, subject, Some(&code), &payload)
}));

sql_function!(otp_resend, |fcinfo| answer(fcinfo, "otp_resend", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    let payload = arguments.payload(1)?;
    run(Operation::Resend, Subject::Verification(id), None, &payload)
}));

sql_function!(otp_cancel, |fcinfo| answer(fcinfo, "otp_cancel", |arguments| {
    let id = arguments.uuid(0, "verification_id")?;
    run(Operation::Cancel, Subject::Verification(id), None, &Payload::default())
}));

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

fn may_write() -> Result<(), Misuse> {
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

fn run(operation: Operation, subject: Subject, code: Option<&Secret>, payload: &Payload) -> Result<Done, Misuse> {
    let attempt = Uuid::now_v7();
    let order = match subject {
        Subject::Provider(name) => {
            let provider = Provider::find(name)?;
            let id = Uuid::now_v7();
            order(operation, &provider, attempt, id, None, code, payload)?
        }
        Subject::Verification(id) => {
            let recorded = settled(id)?;
            let provider = Provider::find(&recorded.provider)?;
            if (provider.dialect.fields)(operation).is_none() {
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
            order(operation, &provider, attempt, id, Some(&recorded), code, payload)?
        }
    };
    match send(&Letter::Call(Box::new(order)), attempt)? {
        Reply::Done(done) => Ok(*done),
        Reply::Refused(misuse) => Err(misuse),
        Reply::Settled => Err(unexpected()),
    }
}

/// The verification as it is on record, once no send of it is in flight: only then is its reference known.
fn settled(id: Uuid) -> Result<Recorded, Misuse> {
    let recorded = lookup::verification(id)?;
    if recorded.status != policy::Status::Sending {
        return Ok(recorded);
    }
    match send(&Letter::Settle(id), Uuid::nil())? {
        Reply::Settled => lookup::verification(id),
        Reply::Refused(misuse) => Err(misuse),
        Reply::Done(_) => Err(unexpected()),
    }
}

fn send(letter: &Letter, attempt: Uuid) -> Result<Reply, Misuse> {
    letter::read(&mailbox::send(&letter::write(letter), *attempt.as_bytes())?)
}

fn unexpected() -> Misuse {
    Misuse::internal("the worker's reply does not fit the letter", "Restart the server after installing a new build.")
}

fn order(
    operation: Operation,
    provider: &Provider,
    attempt: Uuid,
    id: Uuid,
    recorded: Option<&Recorded>,
    code: Option<&Secret>,
    payload: &Payload,
) -> Result<Order, Misuse> {
    let mut order = Order {
        operation,
        attempt,
        target: Target::Known(id),
        provider: provider.name.clone(),
        vendor: provider.dialect.name.to_owned(),
        created_by: lookup::current_role(),
        outgoing: None,
        recipient_masked: None,
        recipient_key: None,
        reference: None,
        sealed: None,
        code_lifetime: provider.options.code_lifetime.map(crate::provider::micros),
        max_checks: provider.options.max_checks,
    };
    let mut known = Map::new();
    let key = Key::load()?;
    if let Some(recorded) = recorded {
        // What was sealed is erased at the end; a terminal verification answers from the record.
        if from_record(operation, recorded.status).is_some() {
            return Ok(order);
        }
        if let Some(sealed) = &recorded.sealed {
            known = key.open(id, sealed)?;
        }
        if let Some(reference) = &recorded.reference {
            known.insert("reference".to_owned(), Value::String(reference.clone()));
        }
    }
    let (verification_text, attempt_text) = (id.to_string(), attempt.to_string());
    let prepared = (provider.dialect.prepare)(&Call {
        operation,
        payload: payload.fields(),
        defaults: &provider.options.defaults,
        known: &known,
        credentials: &provider.credentials,
        code,
        verification_id: &verification_text,
        attempt_id: &attempt_text,
        code_lifetime: provider.options.code_lifetime,
    })?;
    if recorded.is_none() {
        order.target = match operation {
            Operation::Send => Target::New(id),
            _ => Target::Find(prepared.find_by, id),
        };
    }
    // A cancel or a verify of what is already sealed changes nothing about it.
    if recorded.is_none() || operation == Operation::Resend {
        order.sealed = Some(key.seal(id, &prepared.keep));
    }
    order.recipient_key = prepared.recipient.as_ref().map(|recipient| key.recipient(recipient));
    order.recipient_masked = prepared.recipient_masked;
    order.reference = prepared.reference;
    order.code_lifetime = prepared.code_lifetime.map(crate::provider::micros).or(order.code_lifetime);
    order.max_checks = prepared.max_checks.unwrap_or(order.max_checks);
    order.outgoing = Some(Outgoing {
        request: prepared.request,
        first: prepared.first,
        route: provider.route(),
        secrets: prepared.secrets,
    });
    Ok(order)
}
