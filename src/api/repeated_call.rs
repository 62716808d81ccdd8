//! Two identical calls in one statement are one call: `(otp_send(...)).*` is expanded by Postgres to one call for each
//! column, and must reach the vendor once.
//!
//! A statement is known by its transaction and by the command number of its snapshot. Each call marks the command
//! number as used, so that the next statement, also the next expression in PL/pgSQL, has another one.

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

/// What the same call in this statement returned, if there was one.
pub fn recall(call: &Fingerprint) -> Option<ResultRow> {
    let now = current();
    CALLS.with_borrow_mut(|calls| {
        // Whatever an earlier statement left is of no more use.
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

/// At the end of a transaction: two in one message begin at the same time, and their command numbers begin anew.
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
