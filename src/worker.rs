//! The worker of one database: the loop on the main thread that takes the sessions' requests, keeps the record and has
//! the HTTP client make the calls. It sleeps on its latch and on the HTTP client's socket, and on nothing else: idle
//! means asleep.

pub mod admission;
pub mod announcement;
pub mod completion;
pub mod expiry;
pub mod flow_lookup;
pub mod identities;
pub mod intake;
pub mod lifecycle;
pub mod limit_check;
pub mod locked_rows;
pub mod maintenance;
pub mod privilege_check;
pub mod queued_decision;
pub mod queued_sends;
pub mod ranges;
pub mod recovery;
pub mod sealing_key;
pub mod shutdown;
pub mod state;
pub mod waiters;

use std::{cell::RefCell, rc::Rc};

use pgrx::pg_sys;
use policy::Micros;

use crate::{
    gucs,
    ipc::{
        statistics::count::Counters,
        worker_registry::{self, ExitReason, GRACE},
    },
    pg::{
        background_worker::{self, background_worker},
        clock::{clock, since_boot},
        process::wait,
        wait_event::WaitEvent,
    },
    store::{
        Store,
        counted::EndedAttempt,
        replica::{self, Presence, REPLICATED},
        transaction::Failure,
    },
    worker::{shutdown::Leftover, state::Worker},
};

/// An idle worker stays if something is due sooner than this.
const SOON: Micros = 60_000_000;
/// How long to wait where the tables are locked, in milliseconds.
const AFTER_LOCK: i64 = 100;

background_worker!(otp_gateway_worker_main, run);

/// The main function of a worker. The low half of its argument is the database's OID, the high half the number of the
/// launcher's start that it is meant for.
fn run(argument: pg_sys::Datum) {
    let argument = argument.value() as u64;
    let database = pg_sys::Oid::from(argument as u32);
    if !lifecycle::set_up(database, (argument >> 32) as u32) {
        return;
    }
    worker_registry::runs(database);
    let statistics = Rc::new(RefCell::new(Counters::open(database.to_u32())));
    let Some(store) = open_store(database, &statistics) else { return };
    let mut worker = Worker::open(database, store, Rc::clone(&statistics));
    let name = announcement::begun(database);
    worker.recover();
    serve(&mut worker);
    let asked = worker_registry::exit_requested(database);
    announcement::ends(&name, worker.extension_is_dropped(), asked);
    let due = worker.due_without_leaving().filter(|_| !worker.extension_is_dropped() && !is_needed_gone(asked));
    let grace = if worker.extension_is_dropped() || asked == Some(ExitReason::Dropped) { 0 } else { GRACE };
    // What the worker leaves undone (the queue, and ends that are not on record) is for another worker, which the
    // launcher starts at once; but not if somebody wants the database to themselves: then one starts when somebody asks
    // for it.
    let is_gone = worker.extension_is_dropped() || asked == Some(ExitReason::Dropped);
    let leftover = worker.shut_down(grace);
    if is_gone {
        statistics.borrow_mut().give_up();
    }
    lifecycle::leave(due, leftover == Leftover::Work && !is_needed_gone(asked));
}

/// Returns the record of this database, as soon as nobody has its tables locked. Returns None if there is no record to
/// work with (those who wait have been told), or if this worker has to go before (they wait on); in both cases the
/// worker's end is in order.
fn open_store(database: pg_sys::Oid, statistics: &Rc<RefCell<Counters>>) -> Option<Store> {
    let mut said = false;
    loop {
        let counters = Rc::clone(statistics);
        let count = move |ended: &[EndedAttempt]| counters.borrow_mut().count(ended);
        let (why, hint) = match Store::open(count) {
            Ok(Some(store)) => return Some(store),
            Ok(None) => (
                "the extension's tables in this database are of another version than the library",
                "ALTER EXTENSION otp_gateway UPDATE; and restart the server if a new library was installed.",
            ),
            Err(Failure::NotInstalled) => match replica::presence() {
                Presence::Replicated => REPLICATED,
                Presence::Here => (
                    "the extension's tables in this database have been renamed, or moved",
                    "Give them the names that CREATE EXTENSION gave them.",
                ),
                Presence::Gone => (
                    "the extension is not committed in this database",
                    "COMMIT the transaction with CREATE EXTENSION otp_gateway first.",
                ),
            },
            Err(Failure::Busy) => {
                let asked = worker_registry::exit_requested(database);
                if background_worker::must_end() || asked.is_some() {
                    lifecycle::leave(None, !is_needed_gone(asked));
                    return None;
                }
                if !std::mem::replace(&mut said, true) {
                    pgrx::log!("otp_gateway: the worker cannot read its tables yet: somebody has locked them");
                }
                wait(WaitEvent::WorkerMain, AFTER_LOCK);
                continue;
            }
            Err(Failure::Error(why)) => pgrx::error!("otp_gateway: the worker cannot read its tables: {why}"),
        };
        state::turn_away(database, why, hint);
        lifecycle::leave(None, false);
        return None;
    }
}

/// Runs the worker's loop, until the worker has to go.
fn serve(worker: &mut Worker) {
    let database = worker.database;
    let mut idle_since = None;
    loop {
        background_worker::reset_latch();
        if let Some(report) = worker_registry::report_of(database) {
            report.works();
        }
        if background_worker::must_end() || worker.extension_is_dropped() {
            return;
        }
        match worker_registry::exit_requested(database) {
            Some(ExitReason::Idle) if !worker.is_idle() => worker_registry::stays(database),
            Some(_) => return,
            None => {}
        }
        if background_worker::reload_settings() {
            worker.settings_reloaded();
        }
        let worked = worker.work();
        if let Some(report) = worker_registry::report_of(database) {
            worker.report_to(report);
        }
        if worked {
            idle_since = None;
            worker_registry::idle_since(database, None);
            continue;
        }
        let mut due = worker.next_due();
        let stays_for = worker.due_without_leaving();
        if worker.is_idle() {
            let idle_for = since_boot().since(*idle_since.get_or_insert_with(since_boot));
            let left = gucs::worker_idle_timeout().map(|timeout| timeout.saturating_sub(idle_for));
            if left.is_some_and(|left| left <= 0) && stays_for.is_none_or(|due| due > clock() + SOON) {
                return;
            }
            let leaves = left.filter(|left| *left > 0).map(|left| clock() + left);
            due = [due, leaves].into_iter().flatten().min();
        } else {
            idle_since = None;
        }
        worker_registry::idle_since(database, idle_since);
        if let Some(report) = worker_registry::report_of(database) {
            report.sleeps();
        }
        lifecycle::sleep(worker.wakeup(), due);
    }
}

fn is_needed_gone(asked: Option<ExitReason>) -> bool {
    matches!(asked, Some(ExitReason::Database | ExitReason::Dropped))
}
