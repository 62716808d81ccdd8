//! What this transaction has enqueued, and for which rows.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    crypto::{key_file, seal::Keys},
    enqueue::enqueued_row::Enqueued,
    error::Error,
    gucs,
    ipc::worker_registry,
    pg::{
        invalidation::mark_changes,
        transaction::{Subtransaction, on_subtransaction},
    },
    provider::candidates::Candidates,
    store::{queue_home::queue_home, sealing_key},
};

/// What this transaction has enqueued.
#[derive(Default)]
pub struct Transaction {
    pub sends: u32,
    /// For each open subtransaction, how many sends and rows there were when it began.
    pub before: Vec<(pg_sys::SubTransactionId, u32, usize)>,
    /// Whether a row was queued, by us or by somebody who restores a dump, so that the commit tells the worker.
    pub tells: bool,
    /// The rows that sends were enqueued for, which may have changed or be gone at the end.
    pub rows: Vec<Enqueued>,
    /// The candidates of each name and role, looked up once for many rows.
    pub candidates: HashMap<(String, pg_sys::Oid), Rc<Candidates>>,
    /// The keys that this database needs, and the cluster that its queue is sealed for; looked up once, too.
    pub keys: Option<Rc<Keys>>,
    pub home: Option<u64>,
}

thread_local! {
    pub static TRANSACTION: RefCell<Transaction> = RefCell::default();
}

/// Whether somebody has changed a server, a user mapping or a role since the last look-up.
pub static STALE: AtomicBool = AtomicBool::new(false);

pub fn init() {
    use pg_sys::SysCacheIdentifier::*;
    on_subtransaction(at_subtransaction);
    let caches = [FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, USERMAPPINGUSERSERVER, AUTHOID, AUTHMEMMEMROLE];
    mark_changes(&caches, &STALE);
}

/// Returns whether somebody has changed a server, a user mapping or a role, and resets that.
pub fn catalog_has_changed() -> bool {
    STALE.swap(false, Relaxed)
}

/// Returns the candidates of a name, as this role may use them.
pub fn candidates(name: &str, role: pg_sys::Oid) -> Result<Rc<Candidates>, Error> {
    let known = (name.to_owned(), role);
    let found = TRANSACTION.with_borrow_mut(|transaction| {
        if catalog_has_changed() {
            transaction.candidates.clear();
        }
        transaction.candidates.get(&known).cloned()
    });
    if let Some(candidates) = found {
        return Ok(candidates);
    }
    let candidates = Rc::new(Candidates::find(name, role)?);
    TRANSACTION.with_borrow_mut(|transaction| transaction.candidates.insert(known, Rc::clone(&candidates)));
    Ok(candidates)
}

/// Returns the keys of the file as it is now. Whether this database needs them is looked up once.
pub fn keys() -> Result<Rc<Keys>, Error> {
    let known = TRANSACTION.with_borrow(|transaction| transaction.keys.clone());
    if let Some(known) = known
        && Rc::ptr_eq(&known, &key_file::keys()?)
    {
        return Ok(known);
    }
    let keys = sealing_key::keys()?;
    TRANSACTION.with_borrow_mut(|transaction| transaction.keys = Some(Rc::clone(&keys)));
    Ok(keys)
}

/// Returns the cluster that payloads queued here are sealed for.
pub fn home() -> Result<u64, Error> {
    if let Some(known) = TRANSACTION.with_borrow(|transaction| transaction.home) {
        return Ok(known);
    }
    let home = queue_home()?;
    TRANSACTION.with_borrow_mut(|transaction| transaction.home = Some(home));
    Ok(home)
}

/// Counts one more send of this transaction; fails if there are too many.
pub fn count() -> Result<(), Error> {
    let most = gucs::max_sends_per_transaction();
    TRANSACTION.with_borrow_mut(|transaction| {
        if transaction.sends >= most {
            return Err(Error::program_limit(
                format!("one transaction may enqueue {most} sends at most, and this one wants more; nothing is sent"),
                "If so many are meant, enqueue them in several transactions, or raise \
                otp_gateway.max_sends_per_transaction.",
            ));
        }
        transaction.sends += 1;
        Ok(())
    })
}

/// Notes that this transaction has queued a row, so that its commit tells the worker.
pub fn tell_at_commit() {
    TRANSACTION.with_borrow_mut(|transaction| transaction.tells = true);
}

/// Notes a row that a send was enqueued for.
pub fn add_row(row: Enqueued) {
    TRANSACTION.with_borrow_mut(|transaction| transaction.rows.push(row));
}

pub fn has_rows() -> bool {
    TRANSACTION.with(|transaction| transaction.try_borrow().is_ok_and(|transaction| !transaction.rows.is_empty()))
}

/// Returns whether one of the rows may have changed or be gone.
pub fn has_doubtful_rows() -> bool {
    let has_doubts = |transaction: &Transaction| transaction.rows.iter().any(|row| row.is_doubtful);
    TRANSACTION.with(|transaction| transaction.try_borrow().is_ok_and(|transaction| has_doubts(&transaction)))
}

pub fn take_rows() -> Vec<Enqueued> {
    TRANSACTION.with_borrow_mut(|transaction| std::mem::take(&mut transaction.rows))
}

/// Returns whether a trigger has enqueued the verification in this transaction.
pub fn is_of_a_row(id: Uuid) -> bool {
    TRANSACTION.with_borrow(|transaction| transaction.rows.iter().any(|row| row.id == id))
}

/// Notes that a statement begins which changes rows of this table.
pub fn doubt_rows_of(table: pg_sys::Oid) {
    TRANSACTION.with_borrow_mut(|transaction| transaction.rows.iter_mut().for_each(|row| row.doubt(table)));
}

/// Notes that this table is emptied or dropped.
pub fn empty(table: pg_sys::Oid) {
    TRANSACTION.with_borrow_mut(|transaction| transaction.rows.iter_mut().for_each(|row| row.empty(table)));
}

/// Tells the worker of a commit, and forgets everything. After the transaction; cannot fail.
pub fn after_transaction(is_committed: bool) {
    TRANSACTION.with(|transaction| {
        if let Ok(mut transaction) = transaction.try_borrow_mut() {
            if is_committed && transaction.tells {
                worker_registry::notify_queued_here();
            }
            *transaction = Transaction::default();
        }
    });
}

/// Forgets what a savepoint takes back. Cannot fail.
fn at_subtransaction(event: Subtransaction, this: pg_sys::SubTransactionId) {
    TRANSACTION.with(|transaction| {
        let Ok(mut transaction) = transaction.try_borrow_mut() else { return };
        if event == Subtransaction::Starts {
            let (sends, rows) = (transaction.sends, transaction.rows.len());
            transaction.before.push((this, sends, rows));
            return;
        }
        while let Some((id, sends, rows)) = transaction.before.pop_if(|(id, ..)| *id >= this) {
            if id == this && event == Subtransaction::Aborts {
                transaction.sends = sends;
                transaction.rows.truncate(rows);
            }
        }
    });
}
