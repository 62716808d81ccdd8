//! The session's end of the slots: it puts a request down, sleeps on its latch, and takes the response.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys, pg_sys::panic::CaughtError};
use policy::Micros;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    ipc::{
        slot::{Slot, SlotState, slots},
        worker_registry::{self, WorkerState, WorkerStatus},
    },
    pg::{
        clock::{SinceBoot, since_boot},
        database,
        process::{self, ProcessNumber},
        session,
        wait_event::WaitEvent,
    },
};

/// How often a waiting session looks whether its worker is still there, in milliseconds; below, how often while it is
/// not.
const LOOK_AFTER_WORKER: i64 = 1000;
const LOOK_FOR_WORKER: i64 = 100;
/// How long a session waits for a worker that is not there, in microseconds; below, for one that is starting.
const PATIENCE: Micros = 5_000_000;
const PATIENCE_WITH_START: Micros = 10_000_000;

/// Why there is no response. `was_taken`: a worker had the whole request.
pub enum Unanswered {
    /// There is no worker, and none comes.
    Nobody { error: Error, was_taken: bool },
    /// The statement was canceled, or took too long.
    Interrupted { error: Box<CaughtError>, was_taken: bool },
}

impl Unanswered {
    /// Returns the error, for a request of which there is nothing more to say.
    pub fn error(self) -> Error {
        match self {
            Self::Nobody { error, .. } => error,
            Self::Interrupted { error, .. } => error.rethrow(),
        }
    }
}

/// Hands the request to this database's worker and waits for the response. Interrupts end the wait at once: the worker
/// goes on with what it has taken. Returns None if `until` (by `since_boot`) came first. A worker that is there is
/// waited for however long it takes; one that cannot come is not.
pub fn send(
    request: &[u8],
    attempt: [u8; 16],
    until: Option<SinceBoot>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Unanswered> {
    give_up_at_exit();
    let slot = my_slot();
    let open = Open { slot };
    let database = database::current();

    let mut sent;
    {
        let locked = slot.lock();
        locked.reset(database.to_u32(), attempt);
        sent = locked.write_chunk(request, 0);
        locked.set_state(SlotState::Request);
    }
    let mut response = Zeroizing::new(Vec::new());
    let mut absence: Option<Absence> = None;
    loop {
        if exchange_parts(slot, request, &mut sent, &mut response) {
            drop(open);
            return Ok(Some(response));
        }
        // A request that was taken needs no waking, but it does need a worker.
        let is_there = match slot.state() {
            SlotState::Accepted | SlotState::Response => worker_registry::state_of(database) == WorkerState::Running,
            _ => worker_registry::wake(database),
        };
        if is_there {
            absence = None;
        } else if let Some(error) = absence.get_or_insert_with(|| Absence::begin(database)).look(database) {
            let was_taken = is_taken(slot.state());
            return Err(Unanswered::Nobody { error, was_taken });
        }
        let (event, longest) =
            if is_there { (WaitEvent::Call, LOOK_AFTER_WORKER) } else { (WaitEvent::Worker, LOOK_FOR_WORKER) };
        let left = until.map_or(longest, |until| until.since(since_boot()).div_euclid(1000).saturating_add(1));
        if left <= 0 {
            return Ok(None);
        }
        let waited = PgTryBuilder::new(|| {
            process::wait(event, left.min(longest));
            Ok(())
        })
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| Err(Box::new(error)))
        .execute();
        if let Err(error) = waited {
            return Err(Unanswered::Interrupted { error, was_taken: is_taken(take_back(slot)) });
        }
    }
}

/// Gives the worker the part of the request that it waits for, or takes the part of the response that is there. Returns
/// true if the response is whole.
fn exchange_parts(slot: &Slot, request: &[u8], sent: &mut usize, response: &mut Vec<u8>) -> bool {
    let locked = slot.lock();
    match locked.state() {
        SlotState::RequestMore | SlotState::Restart => {
            let from = if locked.state() == SlotState::Restart { 0 } else { *sent };
            *sent = locked.write_chunk(request, from);
            locked.set_state(SlotState::Request);
        }
        SlotState::Response if locked.read_chunk(response) => return true,
        SlotState::Response => locked.set_state(SlotState::ResponseMore),
        SlotState::Idle | SlotState::Request | SlotState::Accepted | SlotState::ResponseMore => {}
    }
    false
}

/// Returns whether a worker has the whole request of a slot in this state.
fn is_taken(state: SlotState) -> bool {
    matches!(state, SlotState::Accepted | SlotState::Response | SlotState::ResponseMore)
}

/// The time during which a session waits for a worker that is not there.
struct Absence {
    since: SinceBoot,
    /// When the session last asked for a worker.
    asked_at: Option<SinceBoot>,
    /// How many times in a row the worker has died; below, how many of these times this session has waited.
    crashes: u32,
    seen: u32,
    starting_since: Option<SinceBoot>,
}

impl Absence {
    fn begin(database: pg_sys::Oid) -> Self {
        let crashes = worker_registry::status_of(database).crashes;
        Self { since: since_boot(), asked_at: None, crashes, seen: 0, starting_since: None }
    }

    /// Asks for a worker. Returns the error that says why none comes, if none does.
    fn look(&mut self, database: pg_sys::Oid) -> Option<Error> {
        let now = since_boot();
        // Not at each look: hundreds of sessions may wait.
        if self.asked_at.is_none_or(|at| now.since(at) >= LOOK_AFTER_WORKER * 1000) {
            self.asked_at = Some(now);
            if !worker_registry::request_worker(database) {
                return Some(Error::configuration_limit(
                    "too many databases use the extension at once; nothing was sent",
                    "Drop the extension in a database that does not need it.",
                ));
            }
        }
        let status = worker_registry::status_of(database);
        if status.crashes != self.crashes {
            self.crashes = status.crashes;
            self.seen += 1;
        }
        // A single death may be an accident, which the next start mends.
        if status.state == WorkerState::Crashed && self.seen > 0 && status.crashes > 1 {
            return Some(dies(&status));
        }
        if status.state == WorkerState::Starting {
            let is_late = now.since(*self.starting_since.get_or_insert(now)) > PATIENCE_WITH_START;
            return is_late.then(|| {
                Error::not_in_prerequisite_state(
                    "the background worker of this database does not come up; nothing was sent",
                    "Something keeps it from connecting to the database: pg_locks shows what it waits for.",
                )
            });
        }
        if now.since(self.since) <= PATIENCE {
            return None;
        }
        Some(match status.state {
            _ if !worker_registry::has_launcher() => Error::not_in_prerequisite_state(
                "the background worker that starts the others is not there; nothing was sent",
                "It comes back by itself; the server's log says why it ended.",
            ),
            WorkerState::Crashed => dies(&status),
            WorkerState::NoPlace => Error::configuration_limit(
                format!("no background worker could be started for this database: {}; nothing was sent", status.reason),
                "Raise max_worker_processes (and restart the server), or otp_gateway.max_workers, which is half of it \
                by default.",
            ),
            _ => Error::not_in_prerequisite_state(
                "no background worker comes for this database; nothing was sent",
                "It may not take connections any more (pg_database.datallowconn); else the server's log may say more.",
            ),
        })
    }
}

/// Fails if this server can have no workers at all. Waits for the launcher, which comes a moment after the first
/// session.
pub fn await_launcher() -> Result<(), Error> {
    if !session::is_of_a_server() {
        return Err(Error::not_in_prerequisite_state(
            "in single-user mode there is no background worker; nothing was sent",
            "Start the server as usual.",
        ));
    }
    let until = since_boot() + PATIENCE;
    while !worker_registry::had_launcher() {
        if since_boot() > until {
            return Err(Error::not_in_prerequisite_state(
                "the background worker that starts the others was not started; nothing was sent",
                "max_worker_processes was too small when the server started: raise it and restart the server.",
            ));
        }
        process::wait(WaitEvent::Worker, LOOK_FOR_WORKER);
    }
    Ok(())
}

fn dies(status: &WorkerStatus) -> Error {
    let reason = if status.reason.is_empty() { "it ended before it had begun" } else { &status.reason };
    Error::not_in_prerequisite_state(
        format!("the background worker of this database ends at each start: {reason}; nothing was sent"),
        "Mend that, and call again: it is tried anew. The server's log has more.",
    )
}

fn my_slot() -> &'static Slot {
    &slots()[ProcessNumber::mine().0 as usize]
}

/// A call under way; when this is dropped, by return or by error, the slot is taken back.
struct Open {
    slot: &'static Slot,
}

impl Drop for Open {
    fn drop(&mut self) {
        take_back(self.slot);
    }
}

/// Takes the slot back, and returns the state that it was in.
fn take_back(slot: &Slot) -> SlotState {
    let locked = slot.lock();
    let state = locked.state();
    locked.reset(0, [0; 16]);
    locked.set_state(SlotState::Idle);
    state
}

/// Takes the slot back when the process exits: a FATAL error (terminate, shutdown) leaves by proc_exit, without
/// unwinding.
fn give_up_at_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);

    if !REGISTERED.swap(true, Ordering::Relaxed) {
        process::before_exit(|| {
            take_back(my_slot());
        });
    }
}
