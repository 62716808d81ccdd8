//! The launcher starts a worker in every database that has the extension: at server start, when a session or a commit
//! asks for one, when a worker that left has something to do again, and after a worker has died. It bounds how many
//! workers there are, and has the key file made or checked. It is connected to no database, so that it keeps none from
//! being dropped.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use pgrx::{
    bgworkers::{
        BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
        SignalWakeFlags,
    },
    pg_sys,
};
use policy::{Micros, Timestamp};

use crate::{
    crypto::key_file,
    gucs,
    ipc::worker_registry::{self, WorkerState},
    pg::{
        background_worker::{self, background_worker, shutdown_is_requested},
        clock::clock,
        process,
        scan::{name, scan_catalog},
        session, settings, transaction,
        wait_event::WaitEvent,
    },
};

const LIBRARY: &str = "otp_gateway";
/// How long a worker that died stays down: after the first crash; below, at most, and at most if somebody asks for it.
const AFTER_CRASH: Duration = Duration::from_secs(1);
const AFTER_MANY: Duration = Duration::from_secs(300);
const WHEN_ASKED: Duration = Duration::from_secs(2);
/// How often the launcher looks for a free place while some database waits for one.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a worker that an earlier launcher registered may take to come up.
const FOR_ORPHANS: Duration = Duration::from_secs(10);
/// A launcher that lives for less has started in vain, in microseconds. The next line: how many such launchers are
/// started at once; after that, each waits longer.
const SOON: Micros = 10_000_000;
const AT_ONCE: u32 = 3;

pub fn init() {
    // Nothing of ours runs inside pg_upgrade.
    if session::is_upgrade() {
        return;
    }
    BackgroundWorkerBuilder::new("otp_gateway launcher")
        .set_library(LIBRARY)
        .set_function("otp_gateway_launcher_main")
        .enable_spi_access()
        // On a standby nothing is sent: the launcher starts when the standby is promoted.
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        // At once: the launcher slows itself down.
        .set_restart_time(Some(Duration::ZERO))
        .load();
}

background_worker!(otp_gateway_launcher_main, run);

/// The main function of the launcher.
fn run(_argument: pg_sys::Datum) {
    process::before_exit(worker_registry::launcher_leaves);
    // The launcher has no statement that could be canceled.
    background_worker::ignore_sigint();
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // The server takes connections already: callers wait for a launcher, and so for the key file that is made here.
    if let Err(error) = key_file::check_at_start() {
        error.warn();
    }
    let launches = worker_registry::launcher_starts(SOON);
    if let Some(many) = launches.checked_sub(AT_ONCE) {
        let until = Instant::now() + AFTER_CRASH.saturating_mul(1 << many.min(5));
        while !shutdown_is_requested() && Instant::now() < until {
            process::wait(WaitEvent::LauncherMain, 100);
        }
    }
    BackgroundWorker::connect_worker_to_spi_by_oid(None, None);
    let mut launcher = Launcher::default();
    launcher.visits.extend(databases().keys());
    launcher
        .orphans
        .extend(worker_registry::at(WorkerState::Starting).into_iter().map(|database| (database, Instant::now())));
    while !shutdown_is_requested() {
        let wait = launcher.look();
        process::wait(
            WaitEvent::LauncherMain,
            wait.map_or(-1, |wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).clamp(1, 86_400_000)),
        );
    }
    // The exit code 0 would end the launcher for good, which nobody means who terminates all processes but their own.
    // When the server stops, the postmaster restarts none, whatever the code.
    background_worker::exit(1)
}

/// What only the launcher knows; a new launcher begins by a visit to every database.
#[derive(Default)]
struct Launcher {
    /// Databases whose record is to be looked at without anybody having asked.
    visits: VecDeque<pg_sys::Oid>,
    /// When a worker that left has something to do again, by database.
    due: HashMap<pg_sys::Oid, Timestamp>,
    /// Workers that were registered and have not come up; below, those that an earlier launcher registered.
    starting: HashMap<pg_sys::Oid, DynamicBackgroundWorker>,
    orphans: HashMap<pg_sys::Oid, Instant>,
    /// When a worker was last started in a database whose worker has died since.
    tried: HashMap<pg_sys::Oid, Instant>,
    /// The databases that wait for a place, since when, and whether the log says so.
    placeless: HashMap<pg_sys::Oid, (Instant, bool)>,
}

impl Launcher {
    /// Starts the workers that are wanted. Returns how long nothing is to be done unless somebody asks.
    fn look(&mut self) -> Option<Duration> {
        if BackgroundWorker::sighup_received() {
            let kept_for = gucs::retention();
            settings::reload();
            // The workers that have left said by the old setting when they are due.
            if gucs::retention() != kept_for {
                self.visit_all();
            }
        }
        if worker_registry::take_visit_notice() {
            self.visit_all();
        }
        for (database, due) in worker_registry::take_left() {
            self.tried.remove(&database);
            match due {
                Some(due) => drop(self.due.insert(database, due)),
                None => drop(self.due.remove(&database)),
            }
        }
        self.bury();
        self.wake_due();
        let mut wanted = self.crashed_ones();
        let next_try = wanted.1;
        wanted.0.extend(worker_registry::at(WorkerState::NoPlace));
        wanted.0.extend(worker_registry::at(WorkerState::Wanted));
        let waits = self.start(wanted.0);
        worker_registry::await_place(waits);
        if waits {
            // Asked again: a worker that became idle between the look and the flag has not told the launcher.
            worker_registry::request_idle_exit(self.visits.len() + worker_registry::at(WorkerState::NoPlace).len());
        }
        let next_due =
            self.due.values().min().map(|due| Duration::from_micros(u64::try_from(due.since(clock())).unwrap_or(0)));
        let orphans = (!self.orphans.is_empty()).then_some(AGAIN);
        [waits.then_some(AGAIN), next_try, next_due, orphans].into_iter().flatten().min()
    }

    fn visit_all(&mut self) {
        let new: Vec<pg_sys::Oid> =
            databases().into_keys().filter(|database| !self.visits.contains(database)).collect();
        self.visits.extend(new);
    }

    /// Gives up workers that were to come up and never did.
    fn bury(&mut self) {
        const WHY: &str = "it ended before it had begun";
        self.starting.retain(|database, worker| {
            let has_ended = matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped));
            let is_awaited = worker_registry::state_of(*database) == WorkerState::Starting;
            if has_ended && is_awaited {
                worker_registry::crashed(*database, WHY, true);
            }
            is_awaited && !has_ended
        });
        self.orphans.retain(|database, since| {
            let is_awaited =
                worker_registry::state_of(*database) == WorkerState::Starting && !self.starting.contains_key(database);
            let is_late = since.elapsed() > FOR_ORPHANS;
            if is_awaited && is_late {
                worker_registry::crashed(*database, WHY, true);
            }
            is_awaited && !is_late
        });
    }

    fn wake_due(&mut self) {
        let now = clock();
        let due: Vec<pg_sys::Oid> =
            self.due.iter().filter(|(_, due)| **due <= now).map(|(database, _)| *database).collect();
        for database in due {
            self.due.remove(&database);
            self.visits.push_back(database);
        }
    }

    /// Returns the databases whose worker has died and may be started again, and how long until the next one may be.
    fn crashed_ones(&mut self) -> (Vec<pg_sys::Oid>, Option<Duration>) {
        let (mut ready, mut next) = (Vec::new(), None::<Duration>);
        for database in worker_registry::at(WorkerState::Crashed) {
            let (crashes, is_asked) = worker_registry::crashes(database);
            let mut pause = AFTER_CRASH.saturating_mul(1 << crashes.saturating_sub(1).min(16)).min(AFTER_MANY);
            if is_asked {
                pause = pause.min(WHEN_ASKED);
            }
            let left = pause.saturating_sub(self.tried.entry(database).or_insert_with(Instant::now).elapsed());
            if left.is_zero() {
                ready.push(database);
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        (ready, next)
    }

    /// Starts a worker in each of these databases, and in those to be visited, while there are places. Returns true if
    /// some wait for a place.
    fn start(&mut self, mut wanted: Vec<pg_sys::Oid>) -> bool {
        if wanted.is_empty() && self.visits.is_empty() {
            return false;
        }
        // A database that was dropped meanwhile, or takes no connections, would end its worker with a FATAL error.
        let existing = databases();
        wanted.retain(|database| {
            let exists = existing.contains_key(database);
            if !exists {
                worker_registry::set(*database, WorkerState::Free);
                self.placeless.remove(database);
            }
            exists
        });
        self.visits.retain(|database| {
            existing.contains_key(database) && !worker_registry::is_there(*database) && !wanted.contains(database)
        });
        let mut refused = None;
        let mut placeless = Vec::new();
        for database in wanted {
            if refused.is_none() {
                refused = self.start_one(database);
            }
            if refused.is_some() {
                placeless.push(database);
            } else {
                self.placeless.remove(&database);
            }
        }
        while refused.is_none()
            && let Some(database) = self.visits.pop_front()
        {
            refused = self.start_one(database);
            if refused.is_some() {
                self.visits.push_front(database);
            }
        }
        let Some(why) = refused else { return false };
        let free_soon = worker_registry::request_idle_exit(placeless.len() + self.visits.len());
        for (number, database) in placeless.into_iter().enumerate() {
            worker_registry::no_place(database, why);
            let (since, is_said) = self.placeless.entry(database).or_insert_with(|| (Instant::now(), false));
            // No word of a database for which a place comes free in a moment.
            if number >= free_soon && since.elapsed() >= AGAIN && !std::mem::replace(is_said, true) {
                pgrx::warning!(
                    "otp_gateway: no background worker could be started in database \"{}\": {why}; what is queued \
                    there waits",
                    existing[&database]
                );
            }
        }
        true
    }

    /// Starts a worker in a database. Returns the reason if there is no place for it.
    fn start_one(&mut self, database: pg_sys::Oid) -> Option<&'static str> {
        let there = worker_registry::at(WorkerState::Starting).len() + worker_registry::at(WorkerState::Running).len();
        if there >= gucs::max_workers() {
            return Some("otp_gateway.max_workers are at work in other databases");
        }
        let Some(start) = worker_registry::starting(database) else {
            return Some("too many databases use the extension at once");
        };
        self.tried.insert(database, Instant::now());
        self.due.remove(&database);
        let started = BackgroundWorkerBuilder::new("otp_gateway worker")
            .set_library(LIBRARY)
            .set_function("otp_gateway_worker_main")
            .enable_spi_access()
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            // Restarted by the launcher: the postmaster does not know whether the database is still there.
            .set_restart_time(None)
            .set_argument(Some(pg_sys::Datum::from(u64::from(start) << 32 | u64::from(database.to_u32()))))
            // The postmaster wakes the launcher when the worker has started and when it has ended.
            .set_notify_pid(process::pid())
            .load_dynamic();
        match started {
            Ok(worker) => {
                self.starting.insert(database, worker);
                None
            }
            Err(_) => {
                worker_registry::set(database, WorkerState::Free);
                Some("max_worker_processes are in use")
            }
        }
    }
}

/// Returns every database that takes connections and can have the extension, with its name.
fn databases() -> HashMap<pg_sys::Oid, String> {
    /// The connection limit that an interrupted DROP DATABASE leaves.
    const INVALID: i32 = -2;
    let mut found = HashMap::new();
    // As the autovacuum launcher does: a shared catalog can be read without a database.
    transaction::run(|| {
        scan_catalog(|row: &pg_sys::FormData_pg_database, _| {
            let is_utf8 = row.encoding == pg_sys::pg_enc::PG_UTF8 as i32;
            if row.datallowconn && row.datconnlimit != INVALID && is_utf8 {
                found.insert(row.oid, name(&row.datname));
            }
        });
    });
    found
}
