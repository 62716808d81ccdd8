//! The trigger functions: `send_after_commit`, for tables of the user's, and `note_queued`, for our own.

pub mod row_event;

use std::rc::Rc;

use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use crate::{
    api::{
        approval::SEND_AGAIN,
        function::{Call, symbol},
    },
    enqueue::{
        self,
        enqueued_row::Enqueued,
        mapping::{Mapping, Values},
        transaction,
    },
    error::Error,
    hooks::emit_log,
    ipc::segment,
    pg::roles::current_role,
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
    let row = EventRow::read(event)?;
    let mut is_doubtful = event.timing == Timing::Before && event.may_not_become_a_row();
    if is_doubtful && row.id_column.is_none() {
        return Err(cannot_tell());
    }
    // SAFETY: looks at what this process is; what it applies is no statement, so that none was seen to begin.
    if event.old.is_some() && unsafe { pg_sys::IsLogicalWorker() } {
        transaction::doubt_rows_of(event.relation_oid());
    }
    // It brings its verification along: a row that is restored, replicated or moved to another partition.
    if event.old.is_none() && row.id.is_some() && !row.is_asked_for {
        return Ok(event.returned(event.new));
    }
    for column in row.mapping.columns() {
        event.column(column)?;
    }
    let values = row.values(event.new)?;
    if let Some(old) = event.old
        && !row.is_asked_for
        && row.values(old)? == values
    {
        return Ok(row.unchanged_since(old));
    }
    let is_at_risk = event.may_be_lost_on_the_way();
    if is_at_risk && row.id_column.is_none() {
        return Err(cannot_tell());
    }
    is_doubtful |= is_at_risk || event.is_late();
    match row.enqueue(&values, is_doubtful)? {
        Some(id) => Ok(row.with_id(id)),
        None => Ok(row.unqueued()),
    }
}

/// A row that the trigger runs for, by what the trigger's arguments say of it.
struct EventRow<'a> {
    event: &'a Event,
    provider: String,
    mapping: Rc<Mapping>,
    /// The column that takes the verification id.
    id_column: Option<i32>,
    /// What the new row has there.
    id: Option<Uuid>,
    /// It asks for a send, whatever has changed.
    is_asked_for: bool,
}

impl<'a> EventRow<'a> {
    fn read(event: &'a Event) -> Result<Self, Error> {
        let arguments = event.arguments();
        let (provider, mapping, id_column) = match &arguments[..] {
            [provider, mapping] => (provider, mapping, None),
            [provider, mapping, column] => (provider, mapping, Some(column)),
            _ => {
                return Err(Error::invalid_parameter(
                    "it takes two or three arguments",
                    "EXECUTE FUNCTION otp_gateway.send_after_commit('provider', '{\"mobile\": \"column\"}' [, 'column \
                    for the verification id']).",
                ));
            }
        };
        let mapping = Mapping::parse(mapping)?;
        let id_column = id_column.map(|name| id_column_of(event, name)).transpose()?;
        let id = id_column.and_then(|column| event.id(event.new, column));
        let is_asked_for = id == Some(SEND_AGAIN);
        Ok(Self { event, provider: provider.clone(), mapping, id_column, id, is_asked_for })
    }

    fn values(&self, tuple: pg_sys::HeapTuple) -> Result<Values, Error> {
        self.mapping.values(self.event.row(tuple)).ok_or_else(|| Error::internal("a column is gone", "Report it."))
    }

    /// What an old or new row has in the column for the verification id.
    fn link(&self, tuple: pg_sys::HeapTuple) -> Option<pg_sys::Datum> {
        self.event.row(tuple).datum(self.id_column?)
    }

    /// What the trigger returns where nothing is enqueued. Nobody else is to see what asks for a send.
    fn unqueued(&self) -> pg_sys::Datum {
        let event = self.event;
        match self.id_column {
            Some(column) if self.is_asked_for => {
                event.returned(event.with(column, event.old.and_then(|old| self.link(old))))
            }
            _ => event.returned(event.new),
        }
    }

    /// What the trigger returns where the mapped columns are as they were: the row keeps its verification. Whoever
    /// writes all columns does not mean this one: it is NULL to them, or what an INSERT proposed to them that ON
    /// CONFLICT made an UPDATE.
    fn unchanged_since(&self, old: pg_sys::HeapTuple) -> pg_sys::Datum {
        let Some(column) = self.id_column else { return self.unqueued() };
        let keeps = self.id != self.event.id(old, column) && self.id.is_none_or(transaction::is_of_a_row);
        match self.link(old).filter(|_| keeps) {
            Some(id) => self.event.returned(self.event.with(column, Some(id))),
            None => self.unqueued(),
        }
    }

    /// Enqueues the send, and returns its id. None: a field that it needs is NULL, so that there is nothing to send.
    fn enqueue(&self, values: &Values, is_doubtful: bool) -> Result<Option<Uuid>, Error> {
        let event = self.event;
        // What is sent again is whose it was.
        let before = event.old.filter(|_| self.is_asked_for).and_then(|old| event.id(old, self.id_column?));
        let role = before.map(role_of).transpose()?.flatten().unwrap_or_else(current_role);
        let candidates = transaction::candidates(&self.provider, role.oid)?;
        let id = match enqueue::enqueue(role.clone(), &self.provider, &values.payload(), None) {
            Ok(queued) => queued.verification,
            Err(error) if values.lack(&error, &candidates) => return Ok(None),
            Err(error) => return Err(self.mapping.blame(error, &candidates)),
        };
        if let Some(found_by) = event.found_by(self.id_column) {
            transaction::add_row(Enqueued {
                id,
                trigger: event.trigger(),
                table: event.relation_oid(),
                is_partition: event.is_of_a_partition(),
                found_by,
                fingerprint: values.fingerprint(),
                mapping: Rc::clone(&self.mapping),
                provider: self.provider.clone(),
                role,
                at: event.place(),
                is_doubtful,
                is_emptied: false,
                is_foreign: false,
            });
        }
        Ok(Some(id))
    }

    /// What the trigger returns with the id of the send that it has enqueued.
    fn with_id(&self, id: Uuid) -> pg_sys::Datum {
        let Some(column) = self.id_column else { return self.unqueued() };
        let id = pgrx::datum::Uuid::from_bytes(*id.as_bytes()).into_datum();
        self.event.returned(self.event.with(column, id))
    }
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
