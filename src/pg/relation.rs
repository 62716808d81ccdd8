//! The extension's own tables and indexes, by name.

use std::ffi::CStr;

use pgrx::pg_sys;

/// The OID of a relation in the schema `otp_gateway_internal`. Takes no lock.
pub fn of_extension(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: look-ups in the catalog, in a transaction; both names are C strings.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(c"otp_gateway_internal".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (found != pg_sys::InvalidOid).then_some(found)
}
