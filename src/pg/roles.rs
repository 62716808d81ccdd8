//! Roles: looking them up, and acting as the record's owner. Sessions read and write the record with the owner's
//! rights, since callers have no rights on its tables.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{relation::of_extension, values::quoted},
};

/// Acts with the rights of another role, until dropped. Meanwhile no trigger of anybody else's fires, only our own,
/// which is ENABLE ALWAYS; and no plan is printed to the caller, who may ask for plans: keys and seals would stand in
/// them.
pub struct ActsAs {
    role: pg_sys::Oid,
    context: i32,
    triggers: i32,
    prints: [bool; 3],
}

impl ActsAs {
    fn act_as(role: pg_sys::Oid) -> Self {
        // session_replication_role is set without Postgres' own way to set it, which would throw away every plan of the
        // session: only the owner can make rules, and triggers are looked at when they fire. SAFETY: variables of this
        // session; each change is undone on drop, which an error passes, too.
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
        let table = of_extension(c"verification_record").ok_or_else(Error::not_installed)?;
        // SAFETY: the table is there, and closed again.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let owner = (*(*relation).rd_rel).relowner;
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            Ok(Self::act_as(owner))
        }
    }
}

impl Drop for ActsAs {
    fn drop(&mut self) {
        // SAFETY: sets the values that act_as() found.
        unsafe {
            pg_sys::SetUserIdAndSecContext(self.role, self.context);
            pg_sys::SessionReplicationRole = self.triggers;
            print(self.prints);
        }
    }
}

/// Sets debug_print_parse, _rewritten and _plan.
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

/// A role: its OID and its name.
#[derive(Clone)]
pub struct Role {
    pub oid: pg_sys::Oid,
    pub name: String,
}

/// Returns the OID of the role that is in force (in a SECURITY DEFINER function, its owner).
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: a variable of this session.
    unsafe { pg_sys::GetUserId() }
}

pub fn current_role() -> Role {
    let oid = current_user();
    // SAFETY: a look-up in the catalog, whose error is Postgres' own where the current role has been dropped.
    let name = unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(oid, false)) };
    Role { oid, name: name.to_string_lossy().into_owned() }
}

/// Returns the name of a role; None if there is no such role any more.
pub fn name_of(role: pg_sys::Oid) -> Option<String> {
    // SAFETY: a look-up in the catalog, which gives a C string or null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Says, in a hint about missing rights, whose rights a SECURITY DEFINER function has; empty outside such a function.
pub fn acting_owner() -> String {
    // SAFETY: a variable of this session.
    if unsafe { pg_sys::InLocalUserIdChange() } {
        format!(" In a SECURITY DEFINER function your role is its owner, {}.", quoted(&current_role().name))
    } else {
        String::new()
    }
}

pub fn role_named(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: a look-up in the catalog; the result is invalid if there is no such role.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (role != pg_sys::InvalidOid).then_some(role)
}

pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether all data is a role's to read, the rows of every table included.
pub fn reads_all_data(role: pg_sys::Oid) -> bool {
    has_privileges_of(role, pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_DATA))
}

/// Whether a role may read a whole table or view.
pub fn may_select(role: pg_sys::Oid, relation: pg_sys::Oid) -> bool {
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: look-ups in the catalog.
    unsafe {
        let all = pg_sys::AclMaskHow::ACLMASK_ALL;
        pg_sys::pg_class_aclcheck(relation, role, select) == pg_sys::AclResult::ACLCHECK_OK
            || pg_sys::pg_attribute_aclcheck_all(relation, role, select, all) == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Returns whether a role has all the privileges of another: it is that role, inherits from it, or is a superuser.
pub fn has_privileges_of(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { pg_sys::has_privs_of_role(role, other) }
}

/// Returns whether a role may see the statistics of all roles, as in Postgres' own views: pg_monitor may.
pub fn reads_all_stats(role: pg_sys::Oid) -> bool {
    // The predefined role pg_read_all_stats; its OID is fixed, its name in the headers is not.
    const PG_READ_ALL_STATS: u32 = 3375;
    has_privileges_of(role, pg_sys::Oid::from(PG_READ_ALL_STATS))
}

/// Returns whether a role is another role or a member of it; a superuser counts only if it is.
pub fn is_member_of(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalog.
    unsafe { pg_sys::is_member_of_role_nosuper(role, other) }
}

/// Returns whether a role has CREATEDB.
pub fn may_create_databases(role: pg_sys::Oid) -> bool {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::AUTHOID as i32;
    // SAFETY: a look-up by the cache's key, released after the flag is read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(CACHE, pg_sys::Datum::from(role));
        if tuple.is_null() {
            return false;
        }
        let may = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>()).rolcreatedb;
        pg_sys::ReleaseSysCache(tuple);
        may
    }
}
