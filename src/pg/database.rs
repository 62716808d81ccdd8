//! Databases of this cluster.

use std::ffi::CStr;

use pgrx::{IntoDatum, pg_sys};

/// Returns the database that this process is connected to; 0 if it is connected to none.
pub fn current() -> pg_sys::Oid {
    // SAFETY: a plain variable, set when the process connected.
    unsafe { pg_sys::MyDatabaseId }
}

/// Returns the name of a database of this cluster, in a transaction; None if there is no such database any more.
pub fn name_of(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: a look-up in the catalog, in a transaction; a name that is found is a palloc'ed copy.
    unsafe {
        let name = pg_sys::get_database_name(oid);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

pub struct Database {
    pub owner: pg_sys::Oid,
    pub is_template: bool,
}

/// Returns what the catalog says of a database; None if there is no such database any more.
pub fn database(oid: pg_sys::Oid) -> Option<Database> {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
    // SAFETY: a look-up by the cache's key, in a transaction; released after the values are copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(CACHE, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        let found = Database { owner: row.datdba, is_template: row.datistemplate };
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// Returns whether an extension is in this process' database.
pub fn has_extension(name: &CStr) -> bool {
    // SAFETY: a look-up in the catalog, in a transaction; a C string.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// Returns the owner of a schema of this process' database; None if there is no such schema.
pub fn owner_of_schema(name: &CStr) -> Option<pg_sys::Oid> {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::NAMESPACENAME as i32;
    // SAFETY: a look-up by the cache's key, in a transaction; released after the owner is read.
    unsafe {
        let schema = pg_sys::SearchSysCache1(CACHE, name.into_datum()?);
        if schema.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(schema).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
        pg_sys::ReleaseSysCache(schema);
        Some(owner)
    }
}
