//! The trigger functions: `send_after_commit`, for users' tables, and `note_queued`, for our own.

pub mod row_event;

use std::rc::Rc;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    api::{approval::SEND_AGAIN, function::trigger_function},
    enqueue::{
        self,
        enqueued_row::Enqueued,
        mapping::{Mapping, Values},
        transaction,
    },
    error::Error,
    hooks::emit_log,
    ipc::segment,
    pg::{roles::current_role, row::Row, session::is_logical_worker, uuid_time::is_earlier, values::Transaction},
    store::{columns::verification::ENQUEUED, session_reads::role_of},
    trigger::row_event::{Event, id_in},
};

trigger_function!(send_after_commit, emit_log::mark_statement, |trigger| {
    let event = Event::of(trigger)?;
    send(&event).map_err(|error| error.of_trigger(&event.0.place()))
});

trigger_function!(note_queued, || (), |trigger| note(&Event::of(trigger)?));

/// Notes the transaction of a verification that is queued, where no session has written it: in a restored dump. Its
/// column is found by its number: in another table that is something else.
fn note(event: &Event) -> Result<pg_sys::Datum, Error> {
    let column = ENQUEUED as i32;
    if !event.is_of_the_record() || !event.is_before() || event.0.new_row().type_of(column) != pg_sys::XID8OID {
        return Err(Error::trigger_protocol_violated(
            "it is for the record of the extension alone",
            "For a table of your own: EXECUTE FUNCTION otp_gateway.send_after_commit(...).",
        )
        .at(&event.0.place()));
    }
    // What is replicated from another database is that one's to send.
    if is_logical_worker() {
        return Ok(event.0.unchanged());
    }
    if segment::check().is_ok() {
        transaction::tell_at_commit();
    }
    Ok(event.0.with(column, Some(Transaction::current())))
}

/// Enqueues a send for the row, if it is to have one, and returns what the trigger returns.
fn send(event: &Event) -> Result<pg_sys::Datum, Error> {
    segment::check()?;
    let row = EventRow::read(event)?;
    let mut is_doubtful = event.is_before() && event.may_not_become_a_row();
    if is_doubtful && row.id_column.is_none() {
        return Err(cannot_tell());
    }
    // The changes that a subscription applies are no statements, so that no statement was seen to begin, and none that
    // deletes the row will be.
    let is_applied = is_logical_worker();
    if event.0.is_update && is_applied {
        transaction::doubt_rows_of(event.0.table());
    }
    // A row that is restored, replicated or moved to another partition brings its verification along.
    if !event.0.is_update && row.id.is_some() && !row.is_asked_for {
        return Ok(event.0.unchanged());
    }
    for column in row.mapping.columns() {
        event.column(column)?;
    }
    let values = row.values(event.0.new_row())?;
    if let Some(old) = event.0.old_row()
        && !row.is_asked_for
        && row.values(old)? == values
    {
        return Ok(row.unchanged());
    }
    let is_at_risk = event.may_be_lost_on_the_way();
    if is_at_risk && row.id_column.is_none() {
        return Err(cannot_tell());
    }
    is_doubtful |= is_at_risk || event.is_late() || is_applied && (row.id_column.is_some() || !event.is_before());
    match row.enqueue(&values, is_doubtful)? {
        Some(id) => Ok(row.with_id(id)),
        None => Ok(row.unqueued()),
    }
}

/// A row that the trigger runs for, read by the trigger's arguments.
struct EventRow<'a> {
    event: &'a Event<'a>,
    provider: String,
    mapping: Rc<Mapping>,
    /// The column that takes the verification id.
    id_column: Option<i32>,
    /// The new row's value in that column.
    id: Option<Uuid>,
    /// Whether the row asks for a send, whatever has changed.
    is_asked_for: bool,
}

impl<'a> EventRow<'a> {
    fn read(event: &'a Event<'a>) -> Result<Self, Error> {
        let arguments = event.0.arguments().unwrap_or_default();
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
        let id = id_column.and_then(|column| id_in(event.0.new_row(), column));
        let is_asked_for = id == Some(SEND_AGAIN);
        Ok(Self { event, provider: provider.clone(), mapping, id_column, id, is_asked_for })
    }

    fn values(&self, row: Row) -> Result<Values, Error> {
        self.mapping.values(row).ok_or_else(|| Error::internal("a column is gone", "Report it."))
    }

    /// Returns the old row's verification id.
    fn id_before(&self) -> Option<Uuid> {
        id_in(self.event.0.old_row()?, self.id_column?)
    }

    /// Returns what the trigger returns if nothing is enqueued. The value that asks for a send does not stay in the
    /// row.
    fn unqueued(&self) -> pg_sys::Datum {
        match self.id_column {
            Some(column) if self.is_asked_for => self.event.with_id(column, self.id_before()),
            _ => self.event.0.unchanged(),
        }
    }

    /// Returns what the trigger returns if the mapped columns have not changed: the row keeps its verification. A
    /// statement that writes all columns may write another id without meaning it: NULL, the id that it read before the
    /// present one was there, or the id that an INSERT proposed before ON CONFLICT made an UPDATE of it.
    fn unchanged(&self) -> pg_sys::Datum {
        let (Some(column), Some(before)) = (self.id_column, self.id_before()) else { return self.unqueued() };
        let is_not_meant = |id| is_earlier(id, before) || transaction::is_of_a_row(id);
        if self.id != Some(before) && self.id.is_none_or(is_not_meant) {
            self.event.with_id(column, Some(before))
        } else {
            self.unqueued()
        }
    }

    /// Enqueues the send, and returns its id. Returns None if a field that it needs is NULL, so that there is nothing
    /// to send.
    fn enqueue(&self, values: &Values, is_doubtful: bool) -> Result<Option<Uuid>, Error> {
        // A send that is repeated belongs to the role that it belonged to.
        let before = self.id_before().filter(|_| self.is_asked_for);
        let role = before.map(role_of).transpose()?.flatten().unwrap_or_else(current_role);
        let candidates = transaction::candidates(&self.provider, role.oid)?;
        let id = match enqueue::enqueue(role.clone(), &self.provider, &values.payload(), None) {
            Ok(queued) => queued.verification,
            Err(error) if values.lack(&error, &candidates) => return Ok(None),
            Err(error) => return Err(self.mapping.blame(error, &candidates)),
        };
        let trigger = &self.event.0;
        if let Some(found_by) = self.event.found_by(self.id_column) {
            transaction::add_row(Enqueued {
                id,
                trigger: trigger.oid(),
                table: trigger.table(),
                is_partition: trigger.is_of_a_partition(),
                found_by,
                fingerprint: values.fingerprint(),
                mapping: Rc::clone(&self.mapping),
                provider: self.provider.clone(),
                role,
                at: trigger.place(),
                is_doubtful,
                is_emptied: false,
                is_foreign: false,
            });
        }
        Ok(Some(id))
    }

    /// Returns what the trigger returns with the id of the enqueued send.
    fn with_id(&self, id: Uuid) -> pg_sys::Datum {
        match self.id_column {
            Some(column) => self.event.with_id(column, Some(id)),
            None => self.unqueued(),
        }
    }
}

fn cannot_tell() -> Error {
    Error::invalid_parameter(
        "before the row is written nobody can tell whether ON CONFLICT, another trigger or another partition leaves \
        it out",
        "Make it an AFTER trigger, or name a uuid column that takes the verification id as the third argument.",
    )
}

/// Returns the number of the column that takes the verification id.
fn id_column_of(event: &Event, name: &str) -> Result<i32, Error> {
    if !event.is_before() {
        return Err(Error::invalid_parameter(
            "a column for the verification id takes a BEFORE trigger",
            "CREATE TRIGGER ... BEFORE INSERT OR UPDATE, or leave the third argument out.",
        ));
    }
    let column = event.column(name)?;
    if event.0.new_row().type_of(column) != pg_sys::UUIDOID {
        return Err(Error::invalid_parameter(
            format!("column {name}, for the verification id, is not of type uuid"),
            "ALTER TABLE ... ALTER COLUMN ... TYPE uuid, or name another column.",
        ));
    }
    Ok(column)
}
