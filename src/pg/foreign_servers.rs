//! Reads foreign servers and user mappings from the system caches.

use std::ffi::{CStr, CString, c_char};

use pgrx::{IntoDatum, PgList, pg_sys};

use crate::pg::scan::scan_catalog;

/// A foreign server as the catalog has it.
pub struct Server {
    pub oid: pg_sys::Oid,
    pub name: String,
    pub owner: pg_sys::Oid,
    pub wrapper: pg_sys::Oid,
    pub options: Vec<(String, String)>,
}

pub fn server_of(oid: pg_sys::Oid) -> Option<Server> {
    // SAFETY: a look-up by OID; a server that is found is a palloc'ed copy, good until its memory context ends.
    unsafe { pg_sys::GetForeignServerExtended(oid, pg_sys::FSV_MISSING_OK as _).as_ref().map(|server| read(server)) }
}

pub fn server(name: &str) -> Option<Server> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a C string; a server that is found is a palloc'ed copy, good until its memory context ends.
    unsafe { pg_sys::GetForeignServerByName(name.as_ptr(), true).as_ref().map(|server| read(server)) }
}

/// The OID of the foreign server of that name; invalid: there is none.
pub fn oid_of(name: &str) -> pg_sys::Oid {
    let Ok(name) = CString::new(name) else { return pg_sys::InvalidOid };
    // SAFETY: a look-up in the catalog by a C string.
    unsafe { pg_sys::get_foreign_server_oid(name.as_ptr(), true) }
}

pub fn owner_of(server: pg_sys::Oid) -> Option<pg_sys::Oid> {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::FOREIGNSERVEROID as i32;
    // SAFETY: a look-up by the cache's key, released after the owner is read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(CACHE, pg_sys::Datum::from(server));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_foreign_server>()).srvowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// Returns every foreign server of this database, ours or not.
pub fn servers() -> Vec<Server> {
    let mut oids = Vec::new();
    scan_catalog(|server: &pg_sys::FormData_pg_foreign_server, _| oids.push(server.oid));
    oids.into_iter().filter_map(server_of).collect()
}

/// Returns every user mapping of this database, with its server.
pub fn user_mappings() -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    let mut found = Vec::new();
    scan_catalog(|mapping: &pg_sys::FormData_pg_user_mapping, _| found.push((mapping.umserver, mapping.oid)));
    found
}

/// # Safety
/// `server` is a server as Postgres returns it, with its name and options.
unsafe fn read(server: &pg_sys::ForeignServer) -> Server {
    // SAFETY: as the caller promises.
    let (name, options) = unsafe { (text(server.servername), options(server.options)) };
    Server { oid: server.serverid, name, owner: server.owner, wrapper: server.fdwid, options }
}

pub fn wrapper_name(wrapper: pg_sys::Oid) -> String {
    // SAFETY: the OID comes from a server, which keeps its wrapper from being dropped.
    unsafe { text((*pg_sys::GetForeignDataWrapper(wrapper)).fdwname) }
}

/// Returns whether a role has USAGE on a server.
pub fn may_use(role: pg_sys::Oid, server: pg_sys::Oid) -> bool {
    let arguments = [role.into_datum(), server.into_datum(), "USAGE".into_datum()];
    // SAFETY: a function of Postgres with three arguments that are not null; it returns a boolean.
    let may = unsafe { pgrx::direct_function_call::<bool>(pg_sys::has_server_privilege_id_id, &arguments) };
    may.unwrap_or(false)
}

/// Returns the dialect of a provider, or `route`: the name of its foreign data wrapper without `otp_`.
pub fn vendor_of(server: &Server) -> String {
    wrapper_name(server.wrapper).trim_start_matches("otp_").to_owned()
}

/// Returns the role's user mapping and its options, else those of PUBLIC; None if there is neither.
pub fn user_mapping(role: pg_sys::Oid, server: pg_sys::Oid) -> Option<(pg_sys::Oid, Vec<(String, String)>)> {
    // GetUserMapping is not used: it raises an error of its own if there is no mapping, and ours says more.
    [role, pg_sys::InvalidOid].into_iter().find_map(|role| user_mapping_of(role, server))
}

fn user_mapping_of(role: pg_sys::Oid, server: pg_sys::Oid) -> Option<(pg_sys::Oid, Vec<(String, String)>)> {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
    // SAFETY: a look-up by the two keys of this cache; the tuple is released after its OID is copied.
    let mapping = unsafe {
        let tuple = pg_sys::SearchSysCache2(CACHE, pg_sys::Datum::from(role), pg_sys::Datum::from(server));
        if tuple.is_null() {
            return None;
        }
        let mapping = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_user_mapping>()).oid;
        pg_sys::ReleaseSysCache(tuple);
        mapping
    };
    Some((mapping, options_of_mapping(mapping)))
}

/// Returns the options of a user mapping, by its OID; the OID 0 has none.
pub fn options_of_mapping(mapping: pg_sys::Oid) -> Vec<(String, String)> {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::USERMAPPINGOID as i32;
    // SAFETY: a look-up by the cache's key; the tuple is released after its options are copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(CACHE, pg_sys::Datum::from(mapping));
        if tuple.is_null() {
            return Vec::new();
        }
        let mut is_null = false;
        let datum = pg_sys::SysCacheGetAttr(CACHE, tuple, pg_sys::Anum_pg_user_mapping_umoptions as _, &mut is_null);
        let found = if is_null { Vec::new() } else { options(pg_sys::untransformRelOptions(datum)) };
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}

/// Returns a list of DefElem as names and values.
///
/// # Safety
/// `list` is a list of DefElem with text values, or null.
pub unsafe fn options(list: *mut pg_sys::List) -> Vec<(String, String)> {
    // SAFETY: as the caller promises.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(list)
            .iter_ptr()
            .map(|element| (text((*element).defname), text(pg_sys::defGetString(element))))
            .collect()
    }
}

/// # Safety
/// `pointer` is a C string.
unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
