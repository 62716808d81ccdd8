//! The launcher: starts a worker in every database that has the extension, at server start and when a session asks for
//! one, and again after one has died; has the key file made or looked at. It is connected to no database, so that it blocks the dropping of none.

use std::time::{Duration, Instant};

use pgrx::{
    bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags},
    pg_sys,
};

use crate::{
    key_file, process,
    roster::{self, Stage},
};

const LIBRARY: &str = "otp_gateway";
/// How long a worker that died by an error stays down.
const AFTER_CRASH: Duration = Duration::from_secs(1);

pub fn init() {
    BackgroundWorkerBuilder::new("otp_gateway launcher")
        .set_library(LIBRARY)
        .set_function("otp_gateway_launcher_main")
        .enable_spi_access()
        // On a standby nothing is sent: it starts when the standby is promoted.
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn otp_gateway_launcher_main(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi_by_oid(None, None);
    if let Err(misuse) = key_file::check_at_start() {
        misuse.warn();
    }
    roster::i_am_launcher();
    // One after the other: in a database without the extension the worker leaves at once, and its place in
    // max_worker_processes is free for the next.
    for database in databases() {
        if roster::stage(database) == Stage::Free && roster::set(database, Stage::Wanted) {
            start(database);
            while roster::stage(database) == Stage::Starting && !ended() {
                process::wait(-1);
            }
        }
    }
    let mut crashed_at: Option<Instant> = None;
    while !ended() {
        let wanted = roster::at(Stage::Wanted);
        if !wanted.is_empty() {
            // One that was dropped in the meantime would end its worker with a FATAL.
            let existing = databases();
            for database in wanted {
                if existing.contains(&database) {
                    start(database);
                } else {
                    roster::set(database, Stage::Free);
                }
            }
        }
        if roster::at(Stage::Crashed).is_empty() {
            crashed_at = None;
            process::wait(-1);
        } else if crashed_at.get_or_insert_with(Instant::now).elapsed() < AFTER_CRASH {
            process::wait(AFTER_CRASH.as_millis() as i64);
        } else {
            crashed_at = None;
            for database in roster::at(Stage::Crashed) {
                roster::set(database, Stage::Wanted);
            }
        }
    }
}

fn ended() -> bool {
    // SAFETY: a flag that the signal handler sets; unlike sigterm_received() it stays set.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

fn start(database: pg_sys::Oid) {
    roster::set(database, Stage::Starting);
    // SAFETY: a variable of this process.
    let my_pid = unsafe { pg_sys::MyProcPid };
    let started = BackgroundWorkerBuilder::new("otp_gateway worker")
        .set_library(LIBRARY)
        .set_function("otp_gateway_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        // Never by the postmaster, which does not know whether the database is still there: by the launcher.
        .set_restart_time(None)
        .set_argument(Some(pg_sys::Datum::from(database)))
        // Wakes the launcher when the worker has started and when it has ended.
        .set_notify_pid(my_pid)
        .load_dynamic();
    if started.is_err() {
        roster::set(database, Stage::NoPlace);
    }
}

/// Every database that takes connections.
fn databases() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: a transaction of its own, in which a shared catalog is scanned, as the autovacuum launcher does.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*row).datallowconn {
                found.push((*row).oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    found
}
