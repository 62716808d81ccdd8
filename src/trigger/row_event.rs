//! The event that a trigger of ours was called for: a row, and what may still become of it.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    enqueue::enqueued_row::FoundBy,
    error::Error,
    hooks::executor_start,
    pg::{
        relation::of_extension,
        row::Row,
        row_trigger::{NoRowTrigger, RowTrigger, Timing},
        table::related,
        values::pg_uuid,
    },
};

pub struct Event<'a>(pub RowTrigger<'a>);

impl Event<'_> {
    pub fn of(trigger: Result<RowTrigger, NoRowTrigger>) -> Result<Event, Error> {
        trigger.map(Event).map_err(|none| match none {
            NoRowTrigger::NoTrigger => Error::trigger_protocol_violated(
                "this is a trigger function",
                "CREATE TRIGGER ... EXECUTE FUNCTION otp_gateway.send_after_commit(...).",
            ),
            NoRowTrigger::Another(place) => Error::trigger_protocol_violated(
                "it is for row triggers, BEFORE or AFTER INSERT OR UPDATE",
                "CREATE TRIGGER ... BEFORE INSERT OR UPDATE ON ... FOR EACH ROW.",
            )
            .at(&place),
        })
    }

    pub fn is_before(&self) -> bool {
        self.0.timing == Timing::Before
    }

    /// Returns whether the table is the record of verifications, under its name, or under the name that it had before
    /// 0.3.0.
    pub fn is_of_the_record(&self) -> bool {
        let ours = [c"verification_record", c"verification"];
        ours.into_iter().any(|name| of_extension(name) == Some(self.0.table()))
    }

    /// Returns the number of a column whose value a trigger of this kind can see.
    pub fn column(&self, name: &str) -> Result<i32, Error> {
        let number = self.0.new_row().column(name).ok_or_else(|| {
            Error::invalid_parameter(
                format!("the table has no column {name}"),
                "The second argument maps payload fields to columns; a constant begins with =.",
            )
        })?;
        match (self.0.generated(number), self.0.timing) {
            (0, _) | (b's', Timing::After) => Ok(number),
            (b's', Timing::Before) => Err(Error::invalid_parameter(
                format!("column {name} is generated, and has no value before the row is written"),
                "Make it an AFTER trigger, or name the column that it is generated from.",
            )),
            _ => Err(Error::invalid_parameter(
                format!("column {name} is generated when it is read, and has no value in a trigger"),
                "Name the column that it is generated from, or have it STORED under an AFTER trigger.",
            )),
        }
    }

    /// Returns what the trigger function returns for the row with this verification id, or NULL, in a column.
    pub fn with_id(&self, column: i32, id: Option<Uuid>) -> pg_sys::Datum {
        self.0.with(column, id.map(pg_uuid))
    }

    /// Returns whether a BEFORE trigger's row may still be left out: by ON CONFLICT, or by a trigger that fires after
    /// this one.
    pub fn may_not_become_a_row(&self) -> bool {
        let on_conflict = || executor_start::may_leave_out_rows(self.0.table(), self.0.is_of_a_partition());
        self.0.is_followed() || !self.0.is_update && on_conflict()
    }

    /// Returns whether a BEFORE UPDATE may come to nothing although all its triggers let it: a row that moves to
    /// another partition is deleted here and inserted there, and a trigger may refuse either.
    pub fn may_be_lost_on_the_way(&self) -> bool {
        if !self.0.is_update || !self.is_before() || !self.0.is_of_a_partition() {
            return false;
        }
        self.0.others_may_refuse_delete()
            || related(self.0.table()).into_iter().any(|table| self.0.others_may_refuse_insert(table))
    }

    /// Returns how the row is found again; None if it is in a table that does not keep its rows in this database.
    pub fn found_by(&self, id_column: Option<i32>) -> Option<FoundBy> {
        match (id_column, self.0.timing) {
            (Some(column), _) => Some(FoundBy::Id(column)),
            (None, Timing::Before) => Some(FoundBy::Values),
            (None, Timing::After) => self.0.stands_at().map(FoundBy::Place),
        }
    }

    /// Returns whether an AFTER trigger's row may have changed by now: somebody has written it since, or the trigger is
    /// deferred.
    pub fn is_late(&self) -> bool {
        !self.is_before() && (self.0.is_deferrable() || self.0.new_row().is_written_again())
    }
}

/// Returns the verification id in a column of a row.
pub fn id_in(row: Row, column: i32) -> Option<Uuid> {
    row.uuid(usize::try_from(column).ok()?)
}
