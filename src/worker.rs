//! The worker of one database: the loop on the main thread that joins mailbox, ledger and courier. It sleeps on its
//! latch and on the courier's bell, and on nothing else: idle means asleep.

pub mod completion;
pub mod expiry;
pub mod identities;
pub mod intake;
pub mod lifecycle;
pub mod limit_check;
pub mod locked_rows;
pub mod maintenance;
pub mod privilege_check;
pub mod queued_sends;
pub mod recovery;
pub mod state;
pub mod waiters;

use pgrx::pg_sys;
use policy::Micros;

use crate::{
    gucs,
    ipc::worker_registry::{self, GRACE, Leave},
    pg::{
        clock::{clock, since_boot},
        process::wait,
    },
    store::{
        Ledger,
        replica::{self, Presence, REPLICATED},
        transaction::Failure,
    },
    worker::state::Desk,
};

/// It does not leave for less.
const SOON: Micros = 60_000_000;
/// How long to wait where the tables are locked, in milliseconds.
const AFTER_LOCK: i64 = 100;

/// The main function of a worker; its argument is the OID of the database, and by which start it is meant.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn otp_gateway_worker_main(argument: pg_sys::Datum) {
    let argument = argument.value() as u64;
    let database = pg_sys::Oid::from(argument as u32);
    if !lifecycle::set_up(database, (argument >> 32) as u32) {
        return;
    }
    worker_registry::runs(database);
    let mut said = false;
    let ledger = loop {
        match Ledger::open() {
            Ok(Some(ledger)) => break ledger,
            Err(Failure::Gone) => {
                let (why, hint) = match replica::presence() {
                    Presence::Replicated => REPLICATED,
                    Presence::Here => (
                        "the extension's tables in this database have been renamed, or moved",
                        "Give them the names that CREATE EXTENSION gave them.",
                    ),
                    Presence::Gone => (
                        "the extension is not committed in this database",
                        "COMMIT the transaction with CREATE EXTENSION otp_gateway first.",
                    ),
                };
                state::turn_away(database, why, hint);
                return lifecycle::leave(None, false);
            }
            Ok(None) => {
                state::turn_away(
                    database,
                    "the extension's tables in this database are of another version than the library",
                    "ALTER EXTENSION otp_gateway UPDATE; and restart the server if a new library was installed.",
                );
                return lifecycle::leave(None, false);
            }
            Err(Failure::Busy) if !lifecycle::must_end() && worker_registry::asked_to_leave(database).is_none() => {
                if !std::mem::replace(&mut said, true) {
                    pgrx::log!("otp_gateway: the worker cannot read its tables yet: somebody has locked them");
                }
                wait(AFTER_LOCK);
            }
            Err(Failure::Busy) => {
                return lifecycle::leave(None, !is_needed_gone(worker_registry::asked_to_leave(database)));
            }
            Err(Failure::Error(why)) => pgrx::error!("otp_gateway: the worker cannot read its tables: {why}"),
        }
    };
    let mut desk = Desk::open(database, ledger);
    desk.recover();
    let mut idle_since = None;
    loop {
        lifecycle::reset_latch();
        if lifecycle::must_end() || desk.is_gone() {
            break;
        }
        match worker_registry::asked_to_leave(database) {
            Some(Leave::Idle) if !desk.is_idle() => worker_registry::stays(database),
            Some(_) => break,
            None => {}
        }
        if lifecycle::reload_settings() {
            desk.settings_reloaded();
        }
        if desk.work() {
            idle_since = None;
            worker_registry::idle_since(database, None);
            continue;
        }
        let mut due = desk.next_due();
        if desk.is_idle() {
            let idle_for = since_boot().saturating_sub(*idle_since.get_or_insert_with(since_boot));
            let left = gucs::worker_idle_timeout().map(|timeout| timeout.saturating_sub(idle_for));
            if left.is_some_and(|left| left <= 0) && due.is_none_or(|due| due > clock().saturating_add(SOON)) {
                break;
            }
            let leaves = left.filter(|left| *left > 0).map(|left| clock().saturating_add(left));
            due = [due, leaves].into_iter().flatten().min();
            worker_registry::idle_since(database, idle_since);
        } else {
            idle_since = None;
            worker_registry::idle_since(database, None);
        }
        lifecycle::sleep(desk.bell(), due);
    }
    let asked = worker_registry::asked_to_leave(database);
    let due = desk.next_due().filter(|_| !desk.is_gone() && !is_needed_gone(asked));
    let grace = if desk.is_gone() || asked == Some(Leave::Dropped) { 0 } else { GRACE };
    // What could not be put down, and the queue, are for another worker, which the launcher starts; unless somebody wants
    // the database to themselves, and asks for a worker afterwards.
    let is_done = desk.close(grace);
    lifecycle::leave(due, !is_done && !is_needed_gone(asked));
}

fn is_needed_gone(asked: Option<Leave>) -> bool {
    matches!(asked, Some(Leave::Database | Leave::Dropped))
}
