//! Makes workers leave databases that a statement needs for itself. A worker is connected to its database, which must
//! nevertheless be free to be dropped, renamed, moved and copied; and the worker must go with the extension. Sessions
//! that run such a statement ask the worker to leave; a database that is still there afterwards gets its worker back.

use std::{
    cell::{Cell, RefCell},
    ffi::{CStr, c_char},
};

use pgrx::pg_sys;

use crate::{
    hooks::{dropped_triggers, row_watch},
    ipc::{
        segment,
        worker_registry::{self, ExitReason},
    },
    pg::{
        database, process,
        roles::{current_user, has_privileges_of, may_create_databases},
        wait_event::WaitEvent,
    },
};

/// How long other sessions may take to disconnect: as long as Postgres itself would wait, or a little less.
const PATIENCE_IN_MILLISECONDS: u32 = 2000;
/// How long a worker may take, in milliseconds: it finishes what is under way and puts the results on record.
const PATIENCE_WITH_WORKER: u32 = (worker_registry::GRACE / 1000) as u32 + 3000;
const STEP: u32 = 10;

static mut PREVIOUS_UTILITY: pg_sys::ProcessUtility_hook_type = None;
static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;

thread_local! {
    /// Whether this transaction renames or drops a server; below it, a role.
    static SERVERS: Cell<bool> = const { Cell::new(false) };
    static ROLES: Cell<bool> = const { Cell::new(false) };
    /// Whether this transaction drops the extension.
    static DROPS: Cell<bool> = const { Cell::new(false) };
    /// The databases whose worker this transaction made leave, and whether it drops the database.
    static LET_GO: RefCell<Vec<(pg_sys::Oid, bool)>> = const { RefCell::new(Vec::new()) };
}

pub fn init() {
    // SAFETY: in _PG_init of the postmaster, single-threaded.
    unsafe {
        PREVIOUS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
    }
}

// Postgres' own function, without pgrx's guard: an error that passes through a guard is made anew from its message,
// detail and hint, and would lose its position, table and constraint. The hooks below have no guard for the same
// reason: every utility statement of the cluster comes through them. They hold nothing that a longjmp would leave
// behind.
unsafe extern "C-unwind" {
    #[link_name = "standard_ProcessUtility"]
    fn standard_utility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are Postgres' own and are passed on as they came.
    unsafe {
        free_databases_for(statement);
        // Asked before the statement runs: it may be gone afterwards.
        let commits_prepared = is_commit_prepared(statement);
        match PREVIOUS_UTILITY {
            Some(next) => next(statement, query, read_only, context, parameters, environment, destination, completion),
            None => {
                standard_utility(
                    statement,
                    query,
                    read_only,
                    context,
                    parameters,
                    environment,
                    destination,
                    completion,
                );
            }
        }
        if commits_prepared {
            worker_registry::notify_queued_here();
        }
        dropped_triggers::warn();
    }
}

/// Returns whether a statement is COMMIT PREPARED. Nobody knows any more what such a transaction has enqueued, so the
/// worker has to look.
///
/// # Safety
/// `statement` is a parsed utility statement.
unsafe fn is_commit_prepared(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the node's tag says which struct it is.
    unsafe {
        let node = (*statement).utilityStmt;
        (*node).type_ == pg_sys::NodeTag::T_TransactionStmt
            && (*node.cast::<pg_sys::TransactionStmt>()).kind == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
            && segment::check().is_ok()
    }
}

/// Makes the workers leave that a statement needs gone.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn free_databases_for(statement: *mut pg_sys::PlannedStmt) {
    // SAFETY: a parsed utility statement.
    unsafe {
        let Some(need) = needs((*statement).utilityStmt) else { return };
        if need.database.is_null() || !pg_sys::IsTransactionState() || segment::check().is_err() {
            return;
        }
        let database = pg_sys::get_database_oid(need.database, true);
        if database == pg_sys::InvalidOid || !worker_registry::is_there(database) || !may_disturb(database) {
            return;
        }
        if need.by_force || others_leave(database) {
            // Noted before the wait: if an interrupt ends the wait, the database gets its worker back, too.
            LET_GO.with_borrow_mut(|let_go| let_go.push((database, need.is_drop)));
            let_go(database, if need.is_drop { ExitReason::Dropped } else { ExitReason::Database });
        }
    }
}

/// Waits until no other session is connected, and returns false if some stay. With others connected the statement fails
/// anyway, and calls in flight need not suffer for it; but a session that has just disconnected may take a moment, for
/// which Postgres itself waits, too.
fn others_leave(database: pg_sys::Oid) -> bool {
    for _ in 0..PATIENCE_IN_MILLISECONDS / STEP {
        // SAFETY: counts processes in shared memory.
        if unsafe { pg_sys::CountDBConnections(database) } == 0 {
            return true;
        }
        process::wait(WaitEvent::Worker, i64::from(STEP));
    }
    false
}

/// A database that a statement needs for itself.
struct Need {
    database: *const c_char,
    is_drop: bool,
    by_force: bool,
}

/// # Safety
/// `statement` is a parsed utility statement.
unsafe fn needs(statement: *mut pg_sys::Node) -> Option<Need> {
    let need = |database: *const c_char| Some(Need { database, is_drop: false, by_force: false });
    // SAFETY: the node's tag says which struct it is.
    unsafe {
        match (*statement).type_ {
            pg_sys::NodeTag::T_DropdbStmt => {
                let drop = statement.cast::<pg_sys::DropdbStmt>();
                let by_force = option(c"force", (*drop).options).is_some();
                Some(Need { database: (*drop).dbname, is_drop: true, by_force })
            }
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = statement.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType == pg_sys::ObjectType::OBJECT_DATABASE { need((*rename).subname) } else { None }
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = statement.cast::<pg_sys::AlterDatabaseStmt>();
                option(c"tablespace", (*alter).options).and_then(|_| need((*alter).dbname))
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                let template = option(c"template", (*statement.cast::<pg_sys::CreatedbStmt>()).options);
                match template.filter(|element| !(**element).arg.is_null()) {
                    Some(element) => need(pg_sys::defGetString(element)),
                    None => need(c"template1".as_ptr()),
                }
            }
            _ => None,
        }
    }
}

/// Returns the option of that name.
///
/// # Safety
/// `options` is a list of DefElem.
unsafe fn option(name: &CStr, options: *mut pg_sys::List) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: as the caller promises.
    unsafe {
        pgrx::PgList::<pg_sys::DefElem>::from_pg(options)
            .iter_ptr()
            .find(|element| CStr::from_ptr((**element).defname) == name)
    }
}

/// Returns whether the current role may do such things to the database at all: otherwise a statement that is going to
/// fail could stop the workers of others.
fn may_disturb(database: pg_sys::Oid) -> bool {
    let Some(database) = database::database(database) else { return false };
    // A role that may create databases may copy a template.
    has_privileges_of(current_user(), database.owner) || (database.is_template && may_create_databases(current_user()))
}

/// Asks the worker to leave and waits until it has. If the worker takes too long, Postgres' own statement fails.
fn let_go(database: pg_sys::Oid, why: ExitReason) {
    worker_registry::request_exit(database, why);
    for _ in 0..PATIENCE_WITH_WORKER / STEP {
        if !worker_registry::is_there(database) {
            break;
        }
        process::wait(WaitEvent::Worker, i64::from(STEP));
    }
}

unsafe extern "C-unwind" fn access(
    kind: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: std::ffi::c_int,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: the arguments are Postgres' own and are passed on as they came.
    unsafe {
        if kind == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::ExtensionRelationId {
            note_drop(object);
        }
        if kind == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::TriggerRelationId {
            dropped_triggers::note_trigger(object);
        }
        // Not of a column that is dropped.
        if class == pg_sys::RelationRelationId && sub_object == 0 && is_emptied(kind) && row_watch::is_on() {
            note_emptied(object);
        }
        if matches!(kind, pg_sys::ObjectAccessType::OAT_DROP | pg_sys::ObjectAccessType::OAT_POST_ALTER) {
            match class {
                pg_sys::ForeignServerRelationId => SERVERS.set(true),
                pg_sys::AuthIdRelationId => ROLES.set(true),
                _ => {}
            }
        }
        if let Some(previous) = PREVIOUS_ACCESS {
            previous(kind, class, object, sub_object, argument);
        }
    }
}

/// Returns whether a table is dropped, or emptied by TRUNCATE.
fn is_emptied(kind: pg_sys::ObjectAccessType::Type) -> bool {
    kind == pg_sys::ObjectAccessType::OAT_TRUNCATE || kind == pg_sys::ObjectAccessType::OAT_DROP
}

// With a guard, as the listener looks into the catalog: no panic of Rust's may reach Postgres' own frames.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn note_emptied(table: pg_sys::Oid) {
    row_watch::empties(table);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn note_drop(extension: pg_sys::Oid) {
    // SAFETY: the extension is still in the catalog when its drop is announced; the name is a copy.
    unsafe {
        let name = pg_sys::get_extension_name(extension);
        if !name.is_null() && CStr::from_ptr(name) == c"otp_gateway" {
            DROPS.set(true);
            dropped_triggers::extension_is_dropped();
        }
    }
}

/// Tells the workers after a transaction: a worker whose extension was dropped leaves, and databases whose worker had
/// to leave get it back. Cannot fail.
pub fn after_transaction(is_committed: bool) {
    let (servers, roles) = (SERVERS.replace(false), ROLES.replace(false));
    if roles && is_committed {
        worker_registry::notify_identities_everywhere();
    } else if servers && is_committed {
        worker_registry::notify_identities(database::current());
    }
    if DROPS.replace(false) && is_committed {
        let database = database::current();
        worker_registry::request_exit(database, ExitReason::Dropped);
    }
    LET_GO.with(|let_go| {
        if let Ok(mut let_go) = let_go.try_borrow_mut() {
            for (database, is_drop) in let_go.drain(..) {
                if !(is_committed && is_drop) {
                    worker_registry::request_worker(database);
                }
            }
        }
    });
}
