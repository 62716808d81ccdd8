//! Identical calls in one statement count as one call: Postgres expands `(otp_send(...)).*` to one call for each
//! column, which must reach the vendor once.
//!
//! A statement is recognised by its transaction and by the command number of its snapshot. Each call marks the command
//! number as used, so that the next statement, also the next expression in PL/pgSQL, has another number.

use std::{cell::RefCell, collections::HashMap};

use crate::{
    ipc::message::ResultRow,
    pg::{fingerprint::Fingerprint, transaction},
};

#[derive(Clone, Copy, PartialEq, Eq)]
struct Statement {
    transaction_start: i64,
    command: u32,
}

thread_local! {
    static CALLS: RefCell<Option<(Statement, HashMap<Fingerprint, ResultRow>)>> = const { RefCell::new(None) };
}

/// Returns what the same call in this statement has returned, if there was one.
pub fn recall(call: &Fingerprint) -> Option<ResultRow> {
    let now = current();
    CALLS.with_borrow_mut(|calls| {
        // The results of an earlier statement are of no more use.
        calls.take_if(|(statement, _)| *statement != now);
        calls.as_ref().and_then(|(_, calls)| calls.get(call).cloned())
    })
}

pub fn remember(call: Fingerprint, row: ResultRow) {
    let now = current();
    CALLS.with_borrow_mut(|calls| {
        calls.take_if(|(statement, _)| *statement != now);
        calls.get_or_insert_with(|| (now, HashMap::new())).1.insert(call, row);
    });
}

/// Forgets the results at the end of a transaction: two transactions in one message begin at the same time, and their
/// command numbers begin anew.
pub fn forget() {
    CALLS.with(|calls| {
        if let Ok(mut calls) = calls.try_borrow_mut() {
            *calls = None;
        }
    });
}

fn current() -> Statement {
    let (transaction_start, command) = transaction::statement();
    Statement { transaction_start, command }
}
