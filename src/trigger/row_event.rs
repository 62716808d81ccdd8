//! What Postgres tells a trigger function: relation, rows, timing.

use std::ffi::CStr;

use pgrx::{FromDatum, pg_sys};
use uuid::Uuid;

use crate::{
    enqueue::{
        enqueued_row::{FoundBy, Place},
        row_lookup::related,
    },
    error::Error,
    hooks::executor_start,
    pg::{relation::of_extension, row::Row},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    Before,
    After,
}

pub struct Event {
    data: *mut pg_sys::TriggerData,
    pub timing: Timing,
    pub new: pg_sys::HeapTuple,
    /// For an UPDATE.
    pub old: Option<pg_sys::HeapTuple>,
}

impl Event {
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self, Error> {
        // SAFETY: fcinfo is Postgres' own; its context is a TriggerData if its tag says so.
        unsafe {
            let data = (*fcinfo).context.cast::<pg_sys::TriggerData>();
            if data.is_null() || (*data).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::trigger_protocol_violated(
                    "this is a trigger function",
                    "CREATE TRIGGER ... EXECUTE FUNCTION otp_gateway.send_after_commit(...).",
                ));
            }
            let event = (*data).tg_event;
            let timing = match event & pg_sys::TRIGGER_EVENT_TIMINGMASK {
                pg_sys::TRIGGER_EVENT_BEFORE => Some(Timing::Before),
                pg_sys::TRIGGER_EVENT_AFTER => Some(Timing::After),
                _ => None,
            };
            let operation = event & pg_sys::TRIGGER_EVENT_OPMASK;
            let is_update = operation == pg_sys::TRIGGER_EVENT_UPDATE;
            match timing {
                Some(timing)
                    if event & pg_sys::TRIGGER_EVENT_ROW != 0
                        && (is_update || operation == pg_sys::TRIGGER_EVENT_INSERT) =>
                {
                    let (row, new) = ((*data).tg_trigtuple, (*data).tg_newtuple);
                    let (new, old) = if is_update { (new, Some(row)) } else { (row, None) };
                    Ok(Self { data, timing, new, old })
                }
                _ => Err(Error::trigger_protocol_violated(
                    "it is for row triggers, BEFORE or AFTER INSERT OR UPDATE",
                    "CREATE TRIGGER ... BEFORE INSERT OR UPDATE ON ... FOR EACH ROW.",
                )
                .at(&place(data))),
            }
        }
    }

    /// The trigger and its table, for errors.
    pub fn place(&self) -> String {
        // SAFETY: the trigger's data is good while it runs.
        unsafe { place(self.data) }
    }

    pub fn arguments(&self) -> Vec<String> {
        // SAFETY: tgargs holds tgnargs C strings.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            (0..(*trigger).tgnargs as usize)
                .map(|number| CStr::from_ptr(*(*trigger).tgargs.add(number)).to_string_lossy().into_owned())
                .collect()
        }
    }

    pub fn relation_oid(&self) -> pg_sys::Oid {
        // SAFETY: as above.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// Whether the table is the record of verifications, under the name that it has, or had before 0.3.0.
    pub fn is_of_the_record(&self) -> bool {
        let ours = [c"verification_record", c"verification"];
        ours.into_iter().any(|name| of_extension(name) == Some(self.relation_oid()))
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: as above.
        unsafe { (*(*self.data).tg_relation).rd_att }
    }

    pub fn row(&self, tuple: pg_sys::HeapTuple) -> Row {
        Row { tuple, descriptor: self.descriptor() }
    }

    pub fn trigger(&self) -> pg_sys::Oid {
        // SAFETY: as above.
        unsafe { (*(*self.data).tg_trigger).tgoid }
    }

    pub fn is_of_a_partition(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*(*(*self.data).tg_relation).rd_rel).relispartition }
    }

    /// The number of a column that a trigger of this kind can see.
    pub fn column(&self, name: &str) -> Result<i32, Error> {
        let number = self.row(self.new).column(name).ok_or_else(|| {
            Error::invalid_parameter(
                format!("the table has no column {name}"),
                "The second argument maps payload fields to columns; a constant begins with =.",
            )
        })?;
        // SAFETY: a look-up in the catalog.
        let generated = unsafe { pg_sys::get_attgenerated(self.relation_oid(), number as i16) } as u8;
        match (generated, self.timing) {
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

    pub fn type_of(&self, column: i32) -> pg_sys::Oid {
        self.row(self.new).type_of(column)
    }

    /// The verification id in a column of a row.
    pub fn id(&self, tuple: pg_sys::HeapTuple, column: i32) -> Option<Uuid> {
        let datum = self.row(tuple).datum(column)?;
        // SAFETY: the column is of type uuid, which was looked at when it was named.
        let id = unsafe { pgrx::datum::Uuid::from_datum(datum, false) };
        id.map(|id| Uuid::from_bytes(*id.as_bytes()))
    }

    /// The new row with another value in one column.
    pub fn with(&self, column: i32, value: Option<pg_sys::Datum>) -> pg_sys::HeapTuple {
        let (mut column, mut is_null) = (column, value.is_none());
        let mut value = value.unwrap_or(pg_sys::Datum::from(0));
        // SAFETY: the value is of the column's type, which the caller answers for.
        unsafe {
            pg_sys::heap_modify_tuple_by_cols(self.new, self.descriptor(), 1, &mut column, &mut value, &mut is_null)
        }
    }

    /// What the trigger function returns for this row.
    pub fn returned(&self, row: pg_sys::HeapTuple) -> pg_sys::Datum {
        match self.timing {
            Timing::Before => pg_sys::Datum::from(row),
            // Whatever an AFTER trigger returns is passed over.
            Timing::After => pg_sys::Datum::from(0),
        }
    }

    /// Whether a BEFORE trigger's row may still be left out: by ON CONFLICT, or by a trigger that comes after this one.
    pub fn may_not_become_a_row(&self) -> bool {
        // SAFETY: the relation's triggers are listed in the order in which they fire.
        unsafe {
            let all = (*(*self.data).tg_relation).trigdesc;
            if all.is_null() {
                return true;
            }
            let own = (*(*self.data).tg_trigger).tgoid;
            let same = if self.old.is_some() { pg_sys::TRIGGER_TYPE_UPDATE } else { pg_sys::TRIGGER_TYPE_INSERT };
            let same = (pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_BEFORE | same) as i16;
            let later = (0..(*all).numtriggers as usize)
                .map(|number| &*(*all).triggers.add(number))
                .skip_while(|trigger| trigger.tgoid != own)
                .skip(1)
                .any(|trigger| trigger.tgtype & same == same);
            let relation = (*self.data).tg_relation;
            later
                || self.old.is_none()
                    && executor_start::may_leave_out_rows((*relation).rd_id, (*(*relation).rd_rel).relispartition)
        }
    }

    /// Whether a BEFORE UPDATE may come to nothing though all its triggers let it: a row that moves to another
    /// partition is deleted here and inserted there, and a trigger may refuse either.
    pub fn may_be_lost_on_the_way(&self) -> bool {
        // SAFETY: as above; relations are closed again.
        unsafe {
            let relation = (*self.data).tg_relation;
            if self.old.is_none() || self.timing != Timing::Before || !self.is_of_a_partition() {
                return false;
            }
            let own = (*(*self.data).tg_trigger).tgfoid;
            let refuses = |relation: pg_sys::Relation, operation: u32| {
                let all = (*relation).trigdesc;
                let same = (pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_BEFORE | operation) as i16;
                !all.is_null()
                    && (0..(*all).numtriggers as usize)
                        .map(|number| &*(*all).triggers.add(number))
                        .any(|trigger| trigger.tgtype & same == same && trigger.tgfoid != own)
            };
            refuses(relation, pg_sys::TRIGGER_TYPE_DELETE)
                || related((*relation).rd_id, pg_sys::NoLock as pg_sys::LOCKMODE).into_iter().any(|table| {
                    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
                    // It may be gone by now.
                    let other = pg_sys::try_relation_open(table, lock);
                    if other.is_null() {
                        return false;
                    }
                    let refuses = refuses(other, pg_sys::TRIGGER_TYPE_INSERT);
                    pg_sys::relation_close(other, lock);
                    refuses
                })
        }
    }

    /// How the row that this is about is found again; None: it is of a table that is not here.
    pub fn found_by(&self, id_column: Option<i32>) -> Option<FoundBy> {
        // SAFETY: as above; an AFTER trigger's row stands in its table.
        unsafe {
            let relation = (*self.data).tg_relation;
            Some(match (id_column, self.timing) {
                (Some(column), _) => FoundBy::Id(column),
                (None, Timing::Before) => FoundBy::Values,
                (None, Timing::After) => {
                    let is_here = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION;
                    is_here.then(|| FoundBy::Place(Place::of(relation, (*self.new).t_self)))?
                }
            })
        }
    }

    /// Whether an AFTER trigger's row may be another one by now: somebody has written it since, or the trigger is
    /// deferred.
    pub fn is_late(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            self.timing == Timing::After
                && ((*(*self.data).tg_trigger).tgdeferrable
                    || u32::from((*(*self.new).t_data).t_infomask) & pg_sys::HEAP_XMAX_INVALID == 0)
        }
    }
}

/// # Safety
/// `data` is a trigger's, which runs.
unsafe fn place(data: *mut pg_sys::TriggerData) -> String {
    // SAFETY: as the caller promises; names are C strings.
    unsafe {
        let text = |pointer| CStr::from_ptr(pointer).to_string_lossy().into_owned();
        let relation = (*data).tg_relation;
        let table = text((*(*relation).rd_rel).relname.data.as_ptr());
        let schema = pg_sys::get_namespace_name((*(*relation).rd_rel).relnamespace);
        let schema = if schema.is_null() { String::new() } else { format!("{}.", text(schema)) };
        format!("trigger \"{}\" on table {schema}{table}", text((*(*data).tg_trigger).tgname))
    }
}
