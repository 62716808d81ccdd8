//! A worker is connected to its database, and its database must be free to be dropped, renamed, moved and copied all
//! the same; and with the extension the worker goes. Sessions that do such a thing ask the worker to leave.

use std::{cell::Cell, ffi::CStr};

use pgrx::{PgTryBuilder, pg_sys};

use crate::{
    process,
    roster::{self, Stage},
    shared_memory,
};

/// How long a worker may take to put down what it has in hand.
const PATIENCE_IN_MILLISECONDS: u32 = 2000;

static mut PREVIOUS_UTILITY: pg_sys::ProcessUtility_hook_type = None;
static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;

thread_local! {
    /// This transaction drops an extension.
    static DROPS: Cell<bool> = const { Cell::new(false) };
}

pub fn init() {
    // SAFETY: in _PG_init of the postmaster, single-threaded.
    unsafe {
        PREVIOUS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
    }
}

#[cfg(feature = "pg13")]
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const std::ffi::c_char,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are Postgres' own and are passed on as they came.
    unsafe {
        with_databases_let_go((*statement).utilityStmt, || match PREVIOUS_UTILITY {
            Some(next) => next(statement, query, context, parameters, environment, destination, completion),
            None => pg_sys::standard_ProcessUtility(
                statement,
                query,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        });
    }
}

#[cfg(not(feature = "pg13"))]
#[pgrx::pg_guard]
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const std::ffi::c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are Postgres' own and are passed on as they came.
    unsafe {
        with_databases_let_go((*statement).utilityStmt, || match PREVIOUS_UTILITY {
            Some(next) => next(statement, query, read_only, context, parameters, environment, destination, completion),
            None => pg_sys::standard_ProcessUtility(
                statement,
                query,
                read_only,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        });
    }
}

/// Runs a statement with the databases that it needs free of our workers.
///
/// # Safety
/// `statement` is a parsed utility statement.
unsafe fn with_databases_let_go(statement: *mut pg_sys::Node, run: impl FnOnce()) {
    // SAFETY: as the caller promises.
    let databases = unsafe { databases_to_let_go(statement) };
    if databases.is_empty() {
        return run();
    }
    databases.iter().for_each(|database| let_go(*database));
    PgTryBuilder::new(std::panic::AssertUnwindSafe(run))
        // Those that are still there have their worker back, whatever became of the statement.
        .finally(|| databases.iter().for_each(|database| come_back(*database)))
        .execute();
}

/// The databases that a statement needs for itself.
///
/// # Safety
/// `statement` is a parsed utility statement.
unsafe fn databases_to_let_go(statement: *mut pg_sys::Node) -> Vec<pg_sys::Oid> {
    // SAFETY: the node's tag says which struct it is.
    let names: Vec<*const std::ffi::c_char> = unsafe {
        match (*statement).type_ {
            pg_sys::NodeTag::T_DropdbStmt => vec![(*statement.cast::<pg_sys::DropdbStmt>()).dbname.cast_const()],
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = statement.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    vec![(*rename).subname.cast_const()]
                } else {
                    vec![]
                }
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = statement.cast::<pg_sys::AlterDatabaseStmt>();
                option(&["tablespace"], (*alter).options).map(|_| (*alter).dbname.cast_const()).into_iter().collect()
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                option(&["template"], (*statement.cast::<pg_sys::CreatedbStmt>()).options).into_iter().collect()
            }
            _ => vec![],
        }
    };
    // SAFETY: names in a parse tree are C strings; reading the catalog in a transaction, as every statement is.
    unsafe {
        names
            .into_iter()
            .filter(|name| !name.is_null() && pg_sys::IsTransactionState())
            .map(|name| pg_sys::get_database_oid(name, true))
            .filter(|database| *database != pg_sys::InvalidOid && may_disturb(*database))
            .collect()
    }
}

/// The value of an option of that name.
///
/// # Safety
/// `options` is a list of DefElem.
unsafe fn option(names: &[&str], options: *mut pg_sys::List) -> Option<*const std::ffi::c_char> {
    // SAFETY: as the caller promises.
    unsafe {
        pgrx::PgList::<pg_sys::DefElem>::from_pg(options)
            .iter_ptr()
            .find(|element| CStr::from_ptr((**element).defname).to_str().is_ok_and(|name| names.contains(&name)))
            .filter(|element| !(**element).arg.is_null())
            .map(|element| pg_sys::defGetString(element).cast_const())
    }
}

/// Whether the current role may do such things to the database at all: else a failing statement would be a way to stop
/// the workers of others.
fn may_disturb(database: pg_sys::Oid) -> bool {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
    // SAFETY: a look-up by the cache's key, released after the owner is read.
    unsafe {
        if pg_sys::superuser() {
            return true;
        }
        let tuple = pg_sys::SearchSysCache1(CACHE, pg_sys::Datum::from(database));
        if tuple.is_null() {
            return false;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>()).datdba;
        pg_sys::ReleaseSysCache(tuple);
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner)
    }
}

/// Asks the worker to leave and waits until it has. One that takes too long is Postgres' to complain about.
fn let_go(database: pg_sys::Oid) {
    if shared_memory::check().is_err() || !roster::ask_to_leave(database) {
        return;
    }
    const STEP: u32 = 10;
    for _ in 0..PATIENCE_IN_MILLISECONDS / STEP {
        if roster::stage(database) == Stage::Free {
            return;
        }
        process::wait(i64::from(STEP));
    }
}

fn come_back(database: pg_sys::Oid) {
    roster::ask_for(database);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn access(
    kind: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: std::ffi::c_int,
    argument: *mut std::ffi::c_void,
) {
    if kind == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::ExtensionRelationId {
        DROPS.set(true);
    }
    // SAFETY: the arguments are Postgres' own and are passed on as they came.
    unsafe {
        if let Some(previous) = PREVIOUS_ACCESS {
            previous(kind, class, object, sub_object, argument);
        }
    }
}

/// After the commit of a transaction that drops an extension, ours or not, the worker leaves; if it was not ours, the
/// next call has a new one started. Nothing here can fail: an error would take the server down.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    if !DROPS.get() {
        return;
    }
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            DROPS.set(false);
            // SAFETY: a variable of this session.
            let database = unsafe { pg_sys::MyDatabaseId };
            roster::ask_to_leave(database);
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => DROPS.set(false),
        _ => {}
    }
}
