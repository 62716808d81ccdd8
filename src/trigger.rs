//! The trigger functions: `send_after_commit`, for tables of the user's, and `note_queued`, for our own.

mod conflict;
mod event;
mod mapping;
mod presence;

use event::{Event, Timing};
use mapping::Mapping;
use pgrx::{IntoDatum, pg_sys};
use serde_json::{Map, Value};
use vendor::Operation;

use crate::{
    api::{Call, current_role, symbol},
    enqueue,
    ledger::{is_queued_here, layout::verification::ENQUEUED},
    log,
    misuse::Misuse,
    provider::Provider,
    shared_memory,
};

pub use conflict::{forget, init};
pub use presence::missing;

symbol!(send_after_commit, |fcinfo| {
    log::one_of_ours_runs();
    // SAFETY: Postgres calls it, with its own record of the call.
    let row = unsafe { event(fcinfo) }.and_then(|event| send(&event).map_err(|misuse| misuse.at(&event.place())));
    row.unwrap_or_else(|misuse| misuse.raise())
});

symbol!(note_queued, |fcinfo| {
    // SAFETY: as above.
    let row = unsafe { event(fcinfo) }.and_then(|event| note(&event));
    row.unwrap_or_else(|misuse| misuse.raise())
});

/// What a function that is declared to return trigger was called for.
///
/// # Safety
/// Postgres' own record of a call that is under way.
unsafe fn event(fcinfo: pg_sys::FunctionCallInfo) -> Result<Event, Misuse> {
    // SAFETY: as the caller promises.
    unsafe { Call::of(fcinfo, &[], pg_sys::TRIGGEROID) }?;
    Event::of(fcinfo)
}

/// Notes the transaction of a verification that is queued. Its column is found by its number: in another table that is
/// something else.
fn note(event: &Event) -> Result<pg_sys::Datum, Misuse> {
    let column = ENQUEUED as i32;
    if !event.is_of_the_record() || event.timing != Timing::Before || event.type_of(column) != pg_sys::XID8OID {
        return Err(Misuse::not_a_trigger(
            "it is for the record of the extension alone",
            "For a table of your own: EXECUTE FUNCTION otp_gateway.send_after_commit(...).",
        )
        .at(&event.place()));
    }
    // What is replicated from another database is that one's to send; but not what a trigger of the user's queues here.
    // SAFETY: looks at what this process is.
    if unsafe { pg_sys::IsLogicalWorker() } && !is_queued_here() {
        return Ok(event.returned(event.new));
    }
    // SAFETY: in a transaction that writes.
    let transaction = unsafe { pg_sys::GetTopFullTransactionId() }.value;
    if shared_memory::check().is_ok() {
        enqueue::tell_at_commit();
    }
    Ok(event.returned(event.with(column, pg_sys::Datum::from(transaction))))
}

/// Enqueues for the row, if it is one to enqueue for, and returns what the trigger returns.
fn send(event: &Event) -> Result<pg_sys::Datum, Misuse> {
    shared_memory::check()?;
    let arguments = event.arguments();
    let (provider, mapping, id_column) = match &arguments[..] {
        [provider, mapping] => (provider, mapping, None),
        [provider, mapping, column] => (provider, mapping, Some(column)),
        _ => {
            return Err(Misuse::invalid(
                "it takes two or three arguments",
                "EXECUTE FUNCTION otp_gateway.send_after_commit('provider', '{\"mobile\": \"column\"}' [, 'column for the verification id']).",
            ));
        }
    };
    let mapping = Mapping::parse(mapping)?;
    let id_column = id_column.map(|name| id_column_of(event, name)).transpose()?;
    let is_doubtful = event.timing == Timing::Before && event.may_not_become_a_row();
    if is_doubtful && id_column.is_none() {
        return Err(Misuse::invalid(
            "before the row is written nobody can tell whether ON CONFLICT, or a trigger that comes after this one, leaves it out",
            "Make it an AFTER trigger, or name a uuid column that takes the verification id as the third argument.",
        ));
    }
    let unchanged = event.returned(event.new);
    // It brings its verification along: a row that is restored, replicated or moved to another partition.
    if event.old.is_none() && id_column.is_some_and(|column| !event.is_null(event.new, column)) {
        return Ok(unchanged);
    }
    let values = mapping.values(event, event.new)?;
    if let Some(old) = event.old
        && mapping.values(event, old)? == values
    {
        return Ok(unchanged);
    }
    let account = enqueue::account(provider, current_role().oid)?;
    // Required by whatever provider the name may lead to.
    let is_required = |name: &str| {
        let needs = |provider: &Provider| {
            let fields = (provider.dialect.fields)(Operation::Send).unwrap_or_default();
            fields.iter().any(|field| field.required && field.is_called(name))
        };
        account.members.iter().all(needs)
    };
    let mut payload = Map::new();
    for (name, value) in values {
        match value {
            Some(value) => drop(payload.insert(name.to_owned(), value)),
            None if is_required(name) => return Ok(unchanged),
            None => {}
        }
    }
    let queued = enqueue::enqueue(provider, &payload, None).map_err(|misuse| {
        let mut columns: Vec<&str> = misuse.fields().iter().filter_map(|field| mapping.column_of(field)).collect();
        columns.dedup();
        match columns.len() {
            0 => misuse,
            1 => misuse.at(&format!("column {}", columns[0])),
            _ => misuse.at(&format!("columns {}", columns.join(", "))),
        }
    })?;
    let Some(column) = id_column else { return Ok(unchanged) };
    let id = pgrx::datum::Uuid::from_bytes(*queued.verification.as_bytes()).into_datum();
    if is_doubtful || event.may_stay_in_its_partition() {
        enqueue::doubt(event.relation_oid(), column, queued.verification);
    }
    Ok(event.returned(event.with(column, id.unwrap_or(pg_sys::Datum::from(0)))))
}

/// The number of the column that takes the verification id.
fn id_column_of(event: &Event, name: &str) -> Result<i32, Misuse> {
    if event.timing != Timing::Before {
        return Err(Misuse::invalid(
            "a column for the verification id takes a BEFORE trigger",
            "CREATE TRIGGER ... BEFORE INSERT OR UPDATE, or leave the third argument out.",
        ));
    }
    let column = event.column(name)?;
    if event.type_of(column) != pg_sys::UUIDOID {
        return Err(Misuse::invalid(
            format!("column {name}, for the verification id, is not of type uuid"),
            "ALTER TABLE ... ALTER COLUMN ... TYPE uuid, or name another column.",
        ));
    }
    Ok(column)
}

/// The payload's values for a row; None: NULL.
type Values<'a> = Vec<(&'a str, Option<Value>)>;
