//! Databases of this cluster.

use pgrx::pg_sys;

/// The one that this process is connected to; 0: none.
pub fn current() -> pg_sys::Oid {
    // SAFETY: a plain variable, set when the process connected.
    unsafe { pg_sys::MyDatabaseId }
}

/// This cluster's own number, the same for its physical copies.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory that is set before any session starts.
    unsafe { pg_sys::GetSystemIdentifier() }
}

pub struct Database {
    pub owner: pg_sys::Oid,
    pub is_template: bool,
}

/// None: there is no such database any more.
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
