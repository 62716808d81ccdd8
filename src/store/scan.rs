//! Reads the record as it is now, whatever the caller's snapshot and rights.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::{
    error::Error,
    pg::{
        invalidation::Answer,
        relation::{ReadLock, of_extension},
        row::Row,
        scan::{By, Key, Sees, name, scan_catalog, scan_table, scan_table_that},
    },
    store::SCHEMA_VERSION,
};

/// Scans an index (none: the primary key) of a table of ours, as it is now. Error: there are no such tables here.
pub fn scan<const N: usize>(
    table: &CStr,
    index: Option<&CStr>,
    keys: [Key; N],
    each: impl FnMut(Row),
) -> Result<(), Error> {
    let by = match index {
        Some(index) => of_extension(index).map_or(By::Table, By::Index),
        None => By::PrimaryKey,
    };
    scan_table(table_of_this_version(table)?, by, keys, each);
    Ok(())
}

/// The same, as the statement sees it that asks; without keys each row is looked at.
pub fn scan_as_statement<const N: usize>(
    table: &CStr,
    index: Option<&CStr>,
    keys: [Key; N],
    each: impl FnMut(Row),
) -> Result<(), Error> {
    let by = index.and_then(of_extension).map_or(By::Table, By::Index);
    scan_table_that(Sees::AsStatement, table_of_this_version(table)?, by, keys, each);
    Ok(())
}

/// Tables of another version lack columns that are asked for.
pub fn table_of_this_version(name: &CStr) -> Result<pg_sys::Oid, Error> {
    of_extension(name).filter(|_| is_of_this_version()).ok_or_else(Error::not_installed)
}

/// Looks at each row of a small table of ours. Fails, instead of waiting, if somebody has the table locked.
pub fn scan_at_once<const N: usize>(table: &CStr, keys: [Key; N], each: impl FnMut(Row)) -> Result<(), Error> {
    let oid = table_of_this_version(table)?;
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
