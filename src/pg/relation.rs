//! The extension's own tables, indexes and types, by name.

use std::ffi::CStr;

use pgrx::pg_sys;

/// A lock for reading a relation, held until it is dropped.
pub struct ReadLock(pg_sys::Oid);

const READ: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

impl ReadLock {
    /// Takes the lock. Returns None if somebody holds a lock that conflicts, or waits for one, or has just dropped the
    /// relation.
    pub fn at_once(relation: pg_sys::Oid) -> Option<Self> {
        // SAFETY: in a transaction; if the relation is dropped meanwhile, the lock is for nothing, and is given back.
        let lock = unsafe { pg_sys::ConditionalLockRelationOid(relation, READ) }.then_some(Self(relation))?;
        // SAFETY: a look-up in the catalog, as it is since the lock; it returns 0 if there is no such relation.
        (unsafe { pg_sys::get_rel_relkind(relation) } != 0).then_some(lock)
    }
}

impl Drop for ReadLock {
    fn drop(&mut self) {
        // SAFETY: held since at_once(): an error that passes by has not ended the transaction yet.
        unsafe { pg_sys::UnlockRelationOid(self.0, READ) };
    }
}

/// Returns the OID of a relation in the schema `otp_gateway_internal`. Takes no lock.
pub fn of_extension(name: &CStr) -> Option<pg_sys::Oid> {
    let found = relation(c"otp_gateway_internal", name);
    (found != pg_sys::InvalidOid).then_some(found)
}

/// Returns the OID of the composite type `otp_gateway.result`; invalid if there is none, as before 0.6.0. Takes no
/// lock.
pub fn result_type() -> pg_sys::Oid {
    // SAFETY: a look-up in the catalog, in a transaction; it returns an invalid OID if there is no such relation.
    unsafe { pg_sys::get_rel_type_id(relation(c"otp_gateway", c"result")) }
}

/// The OID of the view `otp_gateway.verification`; invalid where there is none. Takes no lock.
pub fn verification_view() -> pg_sys::Oid {
    relation(c"otp_gateway", c"verification")
}

/// The OID of the type of arrays of its rows; invalid where there is no such view. Takes no lock.
pub fn verification_array_type() -> pg_sys::Oid {
    // SAFETY: look-ups in the catalog, in a transaction; what is not there has an invalid OID.
    unsafe { pg_sys::get_array_type(pg_sys::get_rel_type_id(verification_view())) }
}

fn relation(schema: &CStr, name: &CStr) -> pg_sys::Oid {
    // SAFETY: look-ups in the catalog, in a transaction; both names are C strings.
    unsafe { pg_sys::get_relname_relid(name.as_ptr(), pg_sys::get_namespace_oid(schema.as_ptr(), true)) }
}
