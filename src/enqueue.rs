//! Sending after COMMIT, the session's part: a queued verification is written in the caller's own transaction, and the
//! commit tells the worker. Rolled back, it never was.

pub mod row_exists;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use pgrx::pg_sys;
use policy::Verification;
use serde_json::{Map, Value};
use uuid::Uuid;
use vendor::Operation;

use crate::{
    crypto::{key_file, seal::Place},
    error::Misuse,
    gucs,
    ipc::{identify::identity, message::Done, worker_registry},
    job::prepare::Wanted,
    pg::{clock, roles::Role},
    provider::{candidates::Account, lookup::UNROUTED},
    store::{
        identity::{Kind, Subject},
        replica,
        rows::{Idempotency, NewVerification},
        session_writes,
    },
    trigger::committed::{self, Enqueued},
};

/// What this transaction has enqueued.
#[derive(Default)]
struct Transaction {
    sends: u32,
    /// How many sends and rows there were when each open subtransaction began.
    before: Vec<(pg_sys::SubTransactionId, u32, usize)>,
    /// A row was queued, by us or by somebody who restores a dump.
    tells: bool,
    /// For rows, which may be others at the end, or not be there.
    rows: Vec<Enqueued>,
    /// Looked up once for many rows.
    accounts: HashMap<(String, pg_sys::Oid), Rc<Account>>,
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::default();
}

/// Somebody has changed a server, a user mapping or a role: look it up again.
static STALE: AtomicBool = AtomicBool::new(false);

pub fn init() {
    // SAFETY: in _PG_init of the postmaster, single-threaded; sessions inherit it.
    unsafe {
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction), std::ptr::null_mut());
        for cache in [
            pg_sys::SysCacheIdentifier::FOREIGNSERVEROID,
            pg_sys::SysCacheIdentifier::FOREIGNDATAWRAPPEROID,
            pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER,
            pg_sys::SysCacheIdentifier::AUTHOID,
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(at_change), pg_sys::Datum::from(0));
        }
    }
}

unsafe extern "C-unwind" fn at_change(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    STALE.store(true, Relaxed);
}

/// Checks payload and rights now, writes the verification as queued, and returns its row.
pub fn enqueue(
    role: Role,
    provider: &str,
    payload: &Map<String, Value>,
    idempotency: Option<Idempotency>,
) -> Result<Done, Misuse> {
    let (verification, row) = prepare(Uuid::now_v7(), role, provider, payload, idempotency)?;
    count()?;
    session_writes::insert_queued(verification)?;
    Ok(row)
}

/// The same in the place of what this transaction has enqueued under that id, for that role.
pub fn replace(id: Uuid, role: Role, provider: &str, payload: &Map<String, Value>) -> Result<(), Misuse> {
    let (verification, _) = prepare(id, role, provider, payload, None)?;
    session_writes::take_back(&[id])?;
    session_writes::insert_queued(verification)
}

fn prepare(
    id: Uuid,
    role: Role,
    provider: &str,
    payload: &Map<String, Value>,
    idempotency: Option<Idempotency>,
) -> Result<(NewVerification, Done), Misuse> {
    let account = account(provider, role.oid)?;
    replica::must_be_original()?;
    let wanted = Wanted {
        operation: Operation::Send,
        attempt: id,
        verification: id,
        recorded: None,
        role: role.oid.to_u32(),
        created_by: &role.name,
        code: None,
        payload,
    };
    let (first, prepared) = wanted.check(&account)?;
    let keys = key_file::keys()?;
    let mut state = Verification::queued(prepared.max_checks.unwrap_or(first.options.max_checks));
    let is_test = first.is_test_number(&prepared);
    state.reference = prepared.reference;
    let row = Done::without_attempt(id, &state);
    // Of a route it is seen when its turn has come.
    let (server, vendor) = match &account.route {
        Some(route) => (route.server, UNROUTED),
        None => (first.server, first.dialect.name),
    };
    let provider_id = identity(&Subject {
        kind: Kind::Server,
        object: server.to_u32(),
        name: provider.to_owned(),
        vendor: Some(vendor.to_owned()),
    })?;
    let role_id =
        identity(&Subject { kind: Kind::Role, object: role.oid.to_u32(), name: role.name.clone(), vendor: None })?;
    let verification = NewVerification {
        id,
        provider: provider.to_owned(),
        provider_id,
        vendor: vendor.to_owned(),
        route: account.route.as_ref().map(|route| (route.name.clone(), provider_id)),
        created_by: role.name,
        role_id,
        created_at: clock::clock(),
        recipient_masked: prepared.recipient_masked,
        recipient_key: prepared.recipient.as_ref().and_then(|recipient| keys.recipients(recipient).into_iter().next()),
        // The payload, not what a verify needs of it: the message is written when its turn has come.
        sealed: Some(keys.seal(&Place::Queued(id), payload)),
        is_test,
        idempotency,
        state,
    };
    Ok((verification, row))
}

/// Whether somebody has changed a server, a user mapping or a role; asked once.
pub fn catalog_has_changed() -> bool {
    STALE.swap(false, Relaxed)
}

/// What the name stands for, as this role may use it.
pub fn account(name: &str, role: pg_sys::Oid) -> Result<Rc<Account>, Misuse> {
    let known = (name.to_owned(), role);
    let found = TRANSACTION.with_borrow_mut(|transaction| {
        if catalog_has_changed() {
            transaction.accounts.clear();
        }
        transaction.accounts.get(&known).cloned()
    });
    if let Some(account) = found {
        return Ok(account);
    }
    let account = Rc::new(Account::find(name, role)?);
    TRANSACTION.with_borrow_mut(|transaction| transaction.accounts.insert(known, Rc::clone(&account)));
    Ok(account)
}

/// One more in this transaction.
fn count() -> Result<(), Misuse> {
    let most = gucs::max_sends_per_transaction();
    TRANSACTION.with_borrow_mut(|transaction| {
        if transaction.sends >= most {
            return Err(Misuse::too_many(
                format!("one transaction may enqueue {most} sends at most, and this one wants more; nothing is sent"),
                "If so many are meant, enqueue them in several transactions, or raise otp_gateway.max_sends_per_transaction.",
            ));
        }
        transaction.sends += 1;
        Ok(())
    })
}

/// This transaction has queued a row: its commit is to tell the worker.
pub fn tell_at_commit() {
    TRANSACTION.with_borrow_mut(|transaction| transaction.tells = true);
}

/// A send was enqueued for this row.
pub fn add_row(row: Enqueued) {
    TRANSACTION.with_borrow_mut(|transaction| transaction.rows.push(row));
}

pub fn has_rows() -> bool {
    TRANSACTION.with(|transaction| transaction.try_borrow().is_ok_and(|transaction| !transaction.rows.is_empty()))
}

/// Whether a trigger has enqueued the verification, in this transaction.
pub fn is_of_a_row(id: Uuid) -> bool {
    TRANSACTION.with_borrow(|transaction| transaction.rows.iter().any(|row| row.id == id))
}

/// A statement begins that changes rows of this table.
pub fn doubt_rows_of(table: pg_sys::Oid) {
    TRANSACTION.with_borrow_mut(|transaction| transaction.rows.iter_mut().for_each(|row| row.doubt(table)));
}

/// This table is emptied or dropped.
pub fn empty(table: pg_sys::Oid) {
    TRANSACTION.with_borrow_mut(|transaction| transaction.rows.iter_mut().for_each(|row| row.empty(table)));
}

/// Before the COMMIT: what was enqueued for rows is compared with the rows that stay.
pub fn before_commit() {
    let has_doubts = TRANSACTION.with(|transaction| {
        transaction.try_borrow().is_ok_and(|transaction| transaction.rows.iter().any(|row| row.is_doubtful))
    });
    if has_doubts {
        // SAFETY: on the main thread, in a transaction that is about to commit.
        unsafe { settle_rows() };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn settle_rows() {
    let rows = TRANSACTION.with_borrow_mut(|transaction| std::mem::take(&mut transaction.rows));
    // SAFETY: before the COMMIT no statement runs that would have one; popped below, or by the abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    committed::settle(rows).unwrap_or_else(|misuse| misuse.raise());
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
}

/// After the transaction. Cannot fail.
pub fn after_transaction(is_committed: bool) {
    TRANSACTION.with(|transaction| {
        if let Ok(mut transaction) = transaction.try_borrow_mut() {
            if is_committed && transaction.tells {
                worker_registry::tell_of_queued_here();
            }
            *transaction = Transaction::default();
        }
    });
}

/// What a savepoint takes back does not count.
unsafe extern "C-unwind" fn at_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    this: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    TRANSACTION.with(|transaction| {
        let Ok(mut transaction) = transaction.try_borrow_mut() else { return };
        match event {
            pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB => {
                let (sends, rows) = (transaction.sends, transaction.rows.len());
                transaction.before.push((this, sends, rows));
            }
            pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB | pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
                while let Some((id, sends, rows)) = transaction.before.pop_if(|(id, ..)| *id >= this) {
                    if id == this && event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
                        transaction.sends = sends;
                        transaction.rows.truncate(rows);
                    }
                }
            }
            _ => {}
        }
    });
}
