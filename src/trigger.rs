//! The trigger functions: `send_after_commit`, for tables of the user's, and `note_queued`, for our own.

pub mod row_event;

use pgrx::{IntoDatum, pg_sys};

use crate::{
    api::{
        approval::SEND_AGAIN,
        function::{Call, symbol},
    },
    enqueue::{self, enqueued_row::Enqueued, mapping::Mapping, transaction},
    error::Error,
    hooks::emit_log,
    ipc::segment,
    pg::{roles::current_role, uuid_time::is_earlier},
    store::{columns::verification::ENQUEUED, session_reads::role_of, session_writes::is_queued_here},
    trigger::row_event::{Event, Timing},
};

symbol!(send_after_commit, |fcinfo| {
    emit_log::mark_statement();
    // SAFETY: Postgres calls it, with its own record of the call.
    let row = unsafe { event(fcinfo) }.and_then(|event| send(&event).map_err(|error| error.at(&event.place())));
    row.unwrap_or_else(|error| error.raise())
});

symbol!(note_queued, |fcinfo| {
    // SAFETY: as above.
    let row = unsafe { event(fcinfo) }.and_then(|event| note(&event));
    row.unwrap_or_else(|error| error.raise())
});

/// What a function that is declared to return trigger was called for.
///
/// # Safety
/// Postgres' own record of a call that is under way.
unsafe fn event(fcinfo: pg_sys::FunctionCallInfo) -> Result<Event, Error> {
    // SAFETY: as the caller promises.
    unsafe { Call::of(fcinfo, &[], pg_sys::TRIGGEROID) }?;
    Event::of(fcinfo)
}

/// Notes the transaction of a verification that is queued. Its column is found by its number: in another table that is
/// something else.
fn note(event: &Event) -> Result<pg_sys::Datum, Error> {
    let column = ENQUEUED as i32;
    if !event.is_of_the_record() || event.timing != Timing::Before || event.type_of(column) != pg_sys::XID8OID {
        return Err(Error::trigger_protocol_violated(
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
    if segment::check().is_ok() {
        transaction::tell_at_commit();
    }
    Ok(event.returned(event.with(column, Some(pg_sys::Datum::from(transaction)))))
}

/// Enqueues for the row, if it is one to enqueue for, and returns what the trigger returns.
fn send(event: &Event) -> Result<pg_sys::Datum, Error> {
    segment::check()?;
    let arguments = event.arguments();
    let (provider, mapping, id_column) = match &arguments[..] {
        [provider, mapping] => (provider, mapping, None),
        [provider, mapping, column] => (provider, mapping, Some(column)),
        _ => {
            return Err(Error::invalid_parameter(
                "it takes two or three arguments",
                "EXECUTE FUNCTION otp_gateway.send_after_commit('provider', '{\"mobile\": \"column\"}' [, 'column for \
                the verification id']).",
            ));
        }
    };
    let mapping = Mapping::parse(mapping)?;
    let id_column = id_column.map(|name| id_column_of(event, name)).transpose()?;
    let mut is_doubtful = event.timing == Timing::Before && event.may_not_become_a_row();
    if is_doubtful && id_column.is_none() {
        return Err(cannot_tell());
    }
    // SAFETY: looks at what this process is; what it applies is no statement, so that none was seen to begin.
    if event.old.is_some() && unsafe { pg_sys::IsLogicalWorker() } {
        transaction::doubt_rows_of(event.relation_oid());
    }
    let given = id_column.and_then(|column| event.id(event.new, column));
    let is_asked_for = given == Some(SEND_AGAIN);
    // It brings its verification along: a row that is restored, replicated or moved to another partition.
    if event.old.is_none() && given.is_some() && !is_asked_for {
        return Ok(event.returned(event.new));
    }
    for column in mapping.columns() {
        event.column(column)?;
    }
    let values =
        |tuple| mapping.values(event.row(tuple)).ok_or_else(|| Error::internal("a column is gone", "Report it."));
    let now = values(event.new)?;
    let link = |tuple| event.row(tuple).datum(id_column?);
    // Nobody else is to see what asks for a send.
    let unchanged = || match id_column {
        Some(column) if is_asked_for => event.returned(event.with(column, event.old.and_then(link))),
        _ => event.returned(event.new),
    };
    if let Some(old) = event.old
        && !is_asked_for
        && values(old)? == now
    {
        let Some(column) = id_column else { return Ok(unchanged()) };
        let present = event.id(old, column);
        let link = link(old).filter(|_| given != present);
        // Whoever writes all columns does not mean this one: it is NULL to them, the id that they read before there was
        // this one, or what an INSERT proposed to them that ON CONFLICT made an UPDATE.
        let is_older = |id| present.is_some_and(|present| is_earlier(id, present));
        let link = link.filter(|_| given.is_none_or(|id| is_older(id) || transaction::is_of_a_row(id)));
        return Ok(link.map_or_else(unchanged, |id| event.returned(event.with(column, Some(id)))));
    }
    let is_at_risk = event.may_be_lost_on_the_way();
    if is_at_risk && id_column.is_none() {
        return Err(cannot_tell());
    }
    is_doubtful |= is_at_risk || event.is_late();
    // What is sent again is whose it was.
    let before = event.old.filter(|_| is_asked_for).and_then(|old| event.id(old, id_column?));
    let role = before.map(role_of).transpose()?.flatten().unwrap_or_else(current_role);
    let candidates = transaction::candidates(provider, role.oid)?;
    let queued = match enqueue::enqueue(role.clone(), provider, &now.payload(), None) {
        Ok(queued) => queued.verification,
        Err(error) if now.lack(&error, &candidates) => return Ok(unchanged()),
        Err(error) => return Err(mapping.blame(error, &candidates)),
    };
    if let Some(found_by) = event.found_by(id_column) {
        transaction::add_row(Enqueued {
            id: queued,
            trigger: event.trigger(),
            table: event.relation_oid(),
            is_partition: event.is_of_a_partition(),
            found_by,
            print: now.print(),
            mapping: mapping.clone(),
            provider: provider.clone(),
            role,
            at: event.place(),
            is_doubtful,
            is_emptied: false,
            is_foreign: false,
        });
    }
    let Some(column) = id_column else { return Ok(unchanged()) };
    let id = pgrx::datum::Uuid::from_bytes(*queued.as_bytes()).into_datum();
    Ok(event.returned(event.with(column, id)))
}

fn cannot_tell() -> Error {
    Error::invalid_parameter(
        "before the row is written nobody can tell whether ON CONFLICT, another trigger or another partition leaves \
        it out",
        "Make it an AFTER trigger, or name a uuid column that takes the verification id as the third argument.",
    )
}

/// The number of the column that takes the verification id.
fn id_column_of(event: &Event, name: &str) -> Result<i32, Error> {
    if event.timing != Timing::Before {
        return Err(Error::invalid_parameter(
            "a column for the verification id takes a BEFORE trigger",
            "CREATE TRIGGER ... BEFORE INSERT OR UPDATE, or leave the third argument out.",
        ));
    }
    let column = event.column(name)?;
    if event.type_of(column) != pg_sys::UUIDOID {
        return Err(Error::invalid_parameter(
            format!("column {name}, for the verification id, is not of type uuid"),
            "ALTER TABLE ... ALTER COLUMN ... TYPE uuid, or name another column.",
        ));
    }
    Ok(column)
}
