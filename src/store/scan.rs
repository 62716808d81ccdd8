//! Reading the record as it is now, whatever the caller's snapshot and rights.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{
        relation::of_extension,
        scan::{TupleValues, scan_catalog, scan_table},
    },
    store::SCHEMA_VERSION,
};

/// Scans an index (none: the primary key) of a table of ours. Error: there are no such tables here.
pub fn scan<const N: usize>(
    table: &CStr,
    index: Option<&CStr>,
    keys: [pg_sys::ScanKeyData; N],
    each: impl FnMut(&TupleValues),
) -> Result<(), Error> {
    // Tables of another version lack columns that are asked for.
    let Some(table) = of_extension(table).filter(|_| is_of_this_version()) else { return Err(Error::not_installed()) };
    scan_table(table, index.map(|name| of_extension(name).unwrap_or(pg_sys::InvalidOid)), keys, each);
    Ok(())
}

/// Whether the extension is of this version in this database.
fn is_of_this_version() -> bool {
    let mut version = None;
    scan_catalog(pg_sys::ExtensionRelationId, |row| {
        // SAFETY: the catalog's own struct, and a column of type text, which is copied.
        unsafe {
            let name = CStr::from_ptr((&raw const row.form::<pg_sys::FormData_pg_extension>().extname.data).cast());
            if name == c"otp_gateway" {
                version = row.value::<String>(pg_sys::Anum_pg_extension_extversion as usize);
            }
        }
    });
    version.as_deref() == Some(SCHEMA_VERSION)
}
