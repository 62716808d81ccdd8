//! Reads the record as it is now, whatever the caller's snapshot and rights.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{
        invalidation::Answer,
        relation::{ReadLock, of_extension},
        row::Row,
        scan::{By, Key, name, scan_catalog, scan_table},
    },
    store::SCHEMA_VERSION,
};

/// Scans an index (none: the primary key) of a table of ours. Error: there are no such tables here.
pub fn scan<const N: usize>(
    table: &CStr,
    index: Option<&CStr>,
    keys: [Key; N],
    each: impl FnMut(Row),
) -> Result<(), Error> {
    // Tables of another version lack columns that are asked for.
    let Some(table) = of_extension(table).filter(|_| is_of_this_version()) else { return Err(Error::not_installed()) };
    let by = match index {
        Some(index) => of_extension(index).map_or(By::Table, By::Index),
        None => By::PrimaryKey,
    };
    scan_table(table, by, keys, each);
    Ok(())
}

/// Looks at each row of a small table of ours. Where somebody's lock is in the way, that is an error, and not waited
/// for.
pub fn scan_at_once<const N: usize>(table: &CStr, keys: [Key; N], each: impl FnMut(Row)) -> Result<(), Error> {
    let Some(oid) = of_extension(table).filter(|_| is_of_this_version()) else { return Err(Error::not_installed()) };
    let Some(_lock) = ReadLock::at_once(oid) else {
        return Err(Error::lock_not_available(
            format!("otp_gateway_internal.{} is locked by another transaction", table.to_string_lossy()),
            "The row record of otp_gateway.check(provider) says by whom. Call again after its end.",
        ));
    };
    scan_table(oid, By::Table, keys, each);
    Ok(())
}

/// Returns whether the extension is of this version in this database. Nobody hears of a change of pg_extension itself,
/// but each of our scripts makes functions, which is heard of.
fn is_of_this_version() -> bool {
    static IS_OF_THIS: Answer = Answer::unknown();
    IS_OF_THIS.get(&[pg_sys::SysCacheIdentifier::PROCOID], || version().as_deref() == Some(SCHEMA_VERSION))
}

/// Returns the version of the extension in this database; None if the extension is not here.
pub fn version() -> Option<String> {
    let mut version = None;
    scan_catalog(|extension: &pg_sys::FormData_pg_extension, row| {
        if name(&extension.extname) == "otp_gateway" {
            version = row.get::<String>(pg_sys::Anum_pg_extension_extversion as usize);
        }
    });
    version
}
