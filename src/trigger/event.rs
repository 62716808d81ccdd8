//! What Postgres tells a trigger function: relation, rows, timing.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use serde_json::Value;

use super::conflict;
use crate::misuse::Misuse;

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
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self, Misuse> {
        // SAFETY: fcinfo is Postgres' own; its context is a TriggerData if its tag says so.
        unsafe {
            let data = (*fcinfo).context.cast::<pg_sys::TriggerData>();
            if data.is_null() || (*data).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Misuse::not_a_trigger(
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
                _ => Err(Misuse::not_a_trigger(
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
        // SAFETY: look-ups in the catalog.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"otp_gateway".as_ptr(), true);
            [c"verification_record", c"verification"]
                .into_iter()
                .any(|name| pg_sys::get_relname_relid(name.as_ptr(), schema) == self.relation_oid())
        }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: as above.
        unsafe { (*(*self.data).tg_relation).rd_att }
    }

    /// The number of a column.
    pub fn column(&self, name: &str) -> Result<i32, Misuse> {
        let missing = || {
            Misuse::invalid(
                format!("the table has no column {name}"),
                "The second argument maps payload fields to columns; a constant begins with =.",
            )
        };
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: as above.
        let number = unsafe { pg_sys::SPI_fnumber(self.descriptor(), c_name.as_ptr()) };
        if number <= 0 { Err(missing()) } else { Ok(number) }
    }

    pub fn type_of(&self, column: i32) -> pg_sys::Oid {
        // SAFETY: as above.
        unsafe { pg_sys::SPI_gettypeid(self.descriptor(), column) }
    }

    pub fn is_null(&self, row: pg_sys::HeapTuple, column: i32) -> bool {
        let mut is_null = false;
        // SAFETY: the row is one of this event's.
        unsafe { pg_sys::SPI_getbinval(row, self.descriptor(), column, &mut is_null) };
        is_null
    }

    /// A column's value as a payload takes it; None: NULL.
    pub fn value(&self, row: pg_sys::HeapTuple, column: i32) -> Option<Value> {
        // SAFETY: the row is one of this event's; the text is a C string that is freed with the trigger's memory.
        let text = unsafe {
            let text = pg_sys::SPI_getvalue(row, self.descriptor(), column);
            if text.is_null() {
                return None;
            }
            CStr::from_ptr(text).to_string_lossy()
        };
        Some(match self.type_of(column) {
            pg_sys::BOOLOID => Value::Bool(text == "t"),
            pg_sys::JSONOID | pg_sys::JSONBOID => serde_json::from_str(&text).unwrap_or(Value::Null),
            pg_sys::BPCHAROID => Value::String(text.trim_end_matches(' ').to_owned()),
            _ => Value::String(text.into_owned()),
        })
    }

    /// The new row with another value in one column.
    pub fn with(&self, column: i32, value: pg_sys::Datum) -> pg_sys::HeapTuple {
        let (mut column, mut value, mut is_null) = (column, value, false);
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
                    && conflict::may_leave_out_rows((*relation).rd_id, (*(*relation).rd_rel).relispartition)
        }
    }

    /// Whether an UPDATE may come to nothing though all its triggers let it: a row that moves to another partition is
    /// deleted in this one, and a trigger may refuse that.
    pub fn may_stay_in_its_partition(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            let relation = (*self.data).tg_relation;
            let triggers = (*relation).trigdesc;
            self.old.is_some()
                && (*(*relation).rd_rel).relispartition
                && !triggers.is_null()
                && (*triggers).trig_delete_before_row
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
