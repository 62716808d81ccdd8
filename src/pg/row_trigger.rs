//! A trigger function's call for a row: `pgrx::PgTrigger`, and what it leaves out: which other triggers there are, and
//! where the row stands.

use std::num::NonZeroUsize;

use pgrx::{
    AllocatedByPostgres, IntoDatum, PgTrigger, PgTriggerLevel, PgTriggerOperation, PgTriggerWhen,
    heap_tuple::PgHeapTuple, pg_sys,
};

use crate::pg::{row::Row, table::Place};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    Before,
    After,
}

/// A call of a trigger function, BEFORE or AFTER the INSERT or UPDATE of a row.
pub struct RowTrigger<'a> {
    trigger: PgTrigger<'a>,
    pub timing: Timing,
    pub is_update: bool,
}

/// Why a call is not by a trigger for a row.
pub enum NoRowTrigger {
    /// The function was not called by a trigger.
    NoTrigger,
    /// The function was called by a trigger of another kind; its name and table.
    Another(String),
}

type Tuple<'a> = PgHeapTuple<'a, AllocatedByPostgres>;

impl<'a> RowTrigger<'a> {
    /// # Safety
    /// `fcinfo` is Postgres' own record of a call that runs as long as 'a.
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self, NoRowTrigger> {
        // SAFETY: as the caller promises; the trigger's relation is open and locked while it runs.
        let trigger = unsafe { PgTrigger::from_fcinfo(&*fcinfo) }.map_err(|_| NoRowTrigger::NoTrigger)?;
        let is_of_a_row = matches!(trigger.level(), PgTriggerLevel::Row);
        match (trigger.when(), trigger.op()) {
            (
                Ok(when @ (PgTriggerWhen::Before | PgTriggerWhen::After)),
                Ok(operation @ (PgTriggerOperation::Insert | PgTriggerOperation::Update)),
            ) if is_of_a_row => Ok(Self {
                trigger,
                timing: if matches!(when, PgTriggerWhen::Before) { Timing::Before } else { Timing::After },
                is_update: matches!(operation, PgTriggerOperation::Update),
            }),
            _ => Err(NoRowTrigger::Another(place(&trigger))),
        }
    }

    /// Returns the names of the trigger and its table, for errors.
    pub fn place(&self) -> String {
        place(&self.trigger)
    }

    /// Returns the arguments of CREATE TRIGGER; None if they are no UTF-8.
    pub fn arguments(&self) -> Option<Vec<String>> {
        self.trigger.extra_args().ok()
    }

    pub fn oid(&self) -> pg_sys::Oid {
        self.trigger.trigger().tgoid
    }

    /// Returns the row as it is to become, or has become.
    pub fn new_row(&self) -> Row<'_> {
        self.row(self.new_tuple())
    }

    /// Returns the row as it was, for an UPDATE.
    pub fn old_row(&self) -> Option<Row<'_>> {
        self.trigger.old().map(|tuple| self.row(tuple))
    }

    fn new_tuple(&self) -> Tuple<'_> {
        self.trigger.new().expect("a trigger for the INSERT or UPDATE of a row has the new one")
    }

    fn row(&self, tuple: Tuple) -> Row<'_> {
        // SAFETY: a tuple of the trigger's relation; both are there while the trigger runs.
        unsafe { Row::new(tuple.into_pg(), (*self.relation()).rd_att) }
    }

    /// Returns what the function has to return to leave the new row as it is. Of an AFTER trigger, Postgres ignores it.
    pub fn unchanged(&self) -> pg_sys::Datum {
        match self.timing {
            Timing::Before => self.new_tuple().into_trigger_datum().expect("a tuple is no NULL"),
            Timing::After => pg_sys::Datum::from(0),
        }
    }

    /// Returns what the function has to return to set a column of the new row; the column is of the value's type.
    pub fn with<T: IntoDatum>(&self, column: i32, value: Option<T>) -> pg_sys::Datum {
        if self.timing == Timing::After {
            return self.unchanged();
        }
        let mut tuple = self.new_tuple().into_owned();
        let column = usize::try_from(column).ok().and_then(NonZeroUsize::new);
        let written = column.map(|column| tuple.set_by_index(column, value));
        assert!(matches!(written, Some(Ok(()))), "the column is of the value's type");
        tuple.into_trigger_datum().expect("a tuple is no NULL")
    }

    /// Returns how a column is generated, as pg_attribute.attgenerated has it; 0 if it is not generated.
    pub fn generated(&self, column: i32) -> u8 {
        // SAFETY: a look-up in the catalog.
        unsafe { pg_sys::get_attgenerated(self.table(), column as i16) as u8 }
    }

    fn relation(&self) -> pg_sys::Relation {
        self.trigger.trigger_data().tg_relation
    }

    pub fn table(&self) -> pg_sys::Oid {
        // SAFETY: the trigger's relation is open while it runs.
        unsafe { (*self.relation()).rd_id }
    }

    pub fn is_of_a_partition(&self) -> bool {
        // SAFETY: the trigger's relation is open while it runs.
        unsafe { (*(*self.relation()).rd_rel).relispartition }
    }

    /// Returns whether a trigger that fires after this one, for the same row, may still leave the row out.
    pub fn is_followed(&self) -> bool {
        let operation = if self.is_update { pg_sys::TRIGGER_TYPE_UPDATE } else { pg_sys::TRIGGER_TYPE_INSERT };
        // SAFETY: the trigger's relation is open while it runs.
        let all = unsafe { row_triggers(self.relation(), operation) };
        all.iter().skip_while(|(oid, _)| *oid != self.oid()).nth(1).is_some()
    }

    /// Returns whether a trigger with another function than this one may refuse the DELETE of the row.
    pub fn others_may_refuse_delete(&self) -> bool {
        // SAFETY: the trigger's relation is open while it runs.
        let all = unsafe { row_triggers(self.relation(), pg_sys::TRIGGER_TYPE_DELETE) };
        all.iter().any(|(_, function)| *function != self.trigger.trigger().tgfoid)
    }

    /// Returns whether a trigger with another function than this one may refuse an INSERT into another table, which may
    /// be gone by now.
    pub fn others_may_refuse_insert(&self, table: pg_sys::Oid) -> bool {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: the relation is open while it is looked at, and closed again.
        let all = unsafe {
            let relation = pg_sys::try_relation_open(table, lock);
            if relation.is_null() {
                return false;
            }
            let all = row_triggers(relation, pg_sys::TRIGGER_TYPE_INSERT);
            pg_sys::relation_close(relation, lock);
            all
        };
        all.iter().any(|(_, function)| *function != self.trigger.trigger().tgfoid)
    }

    /// Returns where the row of an AFTER trigger stands; None if its table does not keep its rows itself, as a foreign
    /// table.
    pub fn stands_at(&self) -> Option<Place> {
        // SAFETY: the trigger's relation is open while it runs.
        unsafe {
            let is_here = (*(*self.relation()).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION;
            (is_here && self.timing == Timing::After).then(|| Place::of(self.relation(), self.new_row().tid()))
        }
    }

    pub fn is_deferrable(&self) -> bool {
        self.trigger.trigger().tgdeferrable
    }
}

fn place(trigger: &PgTrigger) -> String {
    let name = trigger.name().unwrap_or_default();
    let (schema, table) = (trigger.table_schema().unwrap_or_default(), trigger.table_name().unwrap_or_default());
    format!("trigger \"{name}\" on table {schema}.{table}")
}

/// Returns the triggers that fire BEFORE an operation on a row, and their functions, in the order in which they fire.
///
/// # Safety
/// The relation is open.
unsafe fn row_triggers(relation: pg_sys::Relation, operation: u32) -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    let same = (pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_BEFORE | operation) as i16;
    // SAFETY: as the caller promises; the array has numtriggers elements.
    unsafe {
        let all = (*relation).trigdesc;
        if all.is_null() {
            return Vec::new();
        }
        (0..(*all).numtriggers as usize)
            .map(|number| &*(*all).triggers.add(number))
            .filter(|trigger| trigger.tgtype & same == same)
            .map(|trigger| (trigger.tgoid, trigger.tgfoid))
            .collect()
    }
}
