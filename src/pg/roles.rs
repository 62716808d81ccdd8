//! What a session does with the record itself, it does with the rights of the record's owner: callers have none on the
//! tables.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::error::Error;

/// Acts with the rights of another role, until dropped; fires no trigger of somebody else's with them, only ours, which
/// is ENABLE ALWAYS; and prints no plan for the caller, who may ask for it, with the keys and seals that stand in it.
pub struct ActsAs {
    role: pg_sys::Oid,
    context: i32,
    triggers: i32,
    prints: [bool; 3],
}

impl ActsAs {
    fn act_as(role: pg_sys::Oid) -> Self {
        // The setting itself, which would throw away every plan of the session, stays as it is: rules are only the
        // owner's to make, and triggers are looked at when they fire. SAFETY: variables of this session; what is
        // changed is put back on drop, which an error passes, too.
        unsafe {
            let mut before = Self {
                role: pg_sys::InvalidOid,
                context: 0,
                triggers: pg_sys::SessionReplicationRole,
                prints: [pg_sys::Debug_print_parse, pg_sys::Debug_print_rewritten, pg_sys::Debug_print_plan],
            };
            print([false; 3]);
            pg_sys::SessionReplicationRole = pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32;
            pg_sys::GetUserIdAndSecContext(&mut before.role, &mut before.context);
            pg_sys::SetUserIdAndSecContext(role, before.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            before
        }
    }

    pub fn owner_of_the_record() -> Result<Self, Error> {
        // SAFETY: look-ups in the catalog; the table is closed again.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"otp_gateway".as_ptr(), true);
            let table = pg_sys::get_relname_relid(c"verification_record".as_ptr(), schema);
            if table == pg_sys::InvalidOid {
                return Err(Error::not_installed());
            }
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let owner = (*(*relation).rd_rel).relowner;
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            Ok(Self::act_as(owner))
        }
    }
}

impl Drop for ActsAs {
    fn drop(&mut self) {
        // SAFETY: what was there before.
        unsafe {
            pg_sys::SetUserIdAndSecContext(self.role, self.context);
            pg_sys::SessionReplicationRole = self.triggers;
            print(self.prints);
        }
    }
}

/// debug_print_parse, _rewritten and _plan.
///
/// # Safety
/// On the main thread.
pub unsafe fn print([parse, rewritten, plan]: [bool; 3]) {
    // SAFETY: settings of this session, which Postgres reads where it prints.
    unsafe {
        pg_sys::Debug_print_parse = parse;
        pg_sys::Debug_print_rewritten = rewritten;
        pg_sys::Debug_print_plan = plan;
    }
}

/// The role that is in force (in a SECURITY DEFINER function, its owner).
#[derive(Clone)]
pub struct Role {
    pub oid: pg_sys::Oid,
    pub name: String,
}

pub fn current_role() -> Role {
    // SAFETY: the current role exists for as long as this statement runs.
    unsafe {
        let oid = pg_sys::GetUserId();
        let name = CStr::from_ptr(pg_sys::GetUserNameFromId(oid, false)).to_string_lossy().into_owned();
        Role { oid, name }
    }
}
