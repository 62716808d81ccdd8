//! At its start a worker finds what the worker before it left: attempts in flight, of which nobody can tell what became
//! of them, and sessions that still wait. It looks at the latest attempts, and then serves; earlier attempts are read
//! in pages between calls, and before a call about a verification, what was left of that verification is settled.

use std::collections::{HashMap, HashSet};

use dialect::{Operation, Outcome};
use policy::{Micros, Status};
use uuid::Uuid;

use crate::{
    ipc::{message::Response, worker_report::Chore},
    pg::{
        clock::{SinceBoot, clock, since_boot},
        uuid_time::id_before,
    },
    store::{
        StoreTransaction,
        counted::{Begun, Cohort},
        rows::{AttemptEnd, StoredAttempt, VerificationUpdate, WhichSend},
        transaction::{Durability, Failure},
    },
    worker::{
        lifecycle::without_patience,
        state::{Worker, limit_state::BreakerKey, result_row_from_record},
    },
};

/// How far before the latest attempt another can have begun and still be in flight, in milliseconds: far more than the
/// longest timeout. An index of the attempts in flight would cost every update.
const REACH: u64 = 86_400_000;
/// How many attempts are looked at at once.
const PAGE: i64 = 2000;

/// How long to wait before the next try; and how long a session waits whose answer cannot be read from the record.
const AGAIN_AFTER: Micros = 200_000;
const PATIENCE: Micros = 5_000_000;

const WHY: &str = "the server or its worker stopped before an answer came";

impl Worker {
    /// Begins the recovery. Nothing is sent again on a guess: attempts in flight become `unknown`.
    pub fn recover(&mut self) {
        self.update_identities();
        self.warn_of_foreign_objects();
        self.note_what_is_here();
        self.recovery.is_blind = true;
        self.recovery.again_at = Some(SinceBoot::default());
        self.recover_more();
    }

    /// Goes on with what could not be settled before, if it is time to. Returns false if nothing else can be done yet.
    pub fn recover_more(&mut self) -> bool {
        // A session may ask for the rest of a response that a worker before this one had.
        let orphans = self.ipc.orphaned();
        let now = since_boot();
        self.recovery.orphaned.retain(|(one, _)| orphans.iter().any(|other| other.call_id == one.call_id));
        for one in orphans {
            if !self.recovery.orphaned.iter().any(|(other, _)| other.call_id == one.call_id) {
                self.recovery.orphaned.push((one, now));
                self.recovery.again_at = Some(SinceBoot::default());
            }
        }
        if self.recovery.again_at.is_none_or(|at| at > now) {
            return !self.recovery.is_blind;
        }
        self.recovery.again_at = None;
        let was_blind = self.recovery.is_blind;
        if was_blind {
            self.begin_to_settle();
        } else if !self.recovery.unsettled.is_empty() {
            self.settle_each();
        }
        self.answer_orphaned(now);
        if self.recovery.is_blind || !self.recovery.unsettled.is_empty() || !self.recovery.orphaned.is_empty() {
            self.recovery.again_at = Some(since_boot() + AGAIN_AFTER);
        } else if std::mem::take(&mut self.recovery.said) {
            pgrx::log!("otp_gateway: attempts left in flight are settled");
        }
        if was_blind && !self.recovery.is_blind {
            self.ipc.adopt_orphans();
            self.look_for_queued();
        }
        !self.recovery.is_blind
    }

    fn begin_to_settle(&mut self) {
        let last =
            self.store.write(Durability::Flushed, |writer| Ok((writer.open_breakers()?, writer.last_attempt()?)));
        let settled = last.and_then(|(open, last)| {
            self.read_ranges()?;
            for (server, mapping, breaker) in open {
                self.limits.breakers.restore(BreakerKey { server, mapping }, breaker);
            }
            self.recovery.unread = last.map(|last| (Uuid::max(), id_before(last, REACH)));
            self.settle_page()
        });
        match settled {
            Ok(()) => {
                self.recovery.is_blind = false;
                self.load_expiry();
            }
            Err(Failure::NotInstalled) => self.extension_dropped(),
            // Somebody has locked the table.
            Err(failure) => self.recovery.complain(&failure),
        }
    }

    /// Reads one more page of attempts. Returns false if all are read.
    pub fn read_left(&mut self) -> bool {
        if self.recovery.unread.is_none() {
            return false;
        }
        if let Err(failure) = self.settle_page() {
            self.on_failure(failure);
        }
        true
    }

    fn settle_page(&mut self) -> Result<(), Failure> {
        let Some((before, since)) = self.recovery.unread else { return Ok(()) };
        let page = self.store.write(Durability::Deferred, |writer| writer.attempts(before, since, PAGE))?;
        self.recovery.unread =
            page.last().filter(|_| page.len() as i64 == PAGE).map(|(earliest, _)| (*earliest, since));
        self.works_at(Chore::Recovery, page.len(), self.recovery.unread.is_none());
        self.settle(page.into_iter().filter_map(|(_, verification)| verification));
        Ok(())
    }

    /// Settles what may still be left of these verifications in flight, before anybody has to do with them.
    pub fn settle_first(&mut self, ids: impl Iterator<Item = Uuid>) {
        if self.may_be_left() {
            self.settle(ids);
        }
    }

    /// Returns whether not all is read yet.
    pub fn may_be_left(&self) -> bool {
        self.recovery.unread.is_some() || self.expiry.is_loading()
    }

    /// Returns whether all is read and settled, and everybody has an answer.
    pub fn is_recovered(&self) -> bool {
        self.recovery.again_at.is_none() && !self.may_be_left()
    }

    /// Settles these verifications, except busy ones: those are this worker's own, or are waited for already.
    pub fn settle(&mut self, ids: impl Iterator<Item = Uuid>) {
        let ids: HashSet<Uuid> = ids.filter(|id| !self.is_busy(*id)).collect();
        let ids: Vec<Uuid> = ids.into_iter().collect();
        if ids.is_empty() {
            return;
        }
        match self.store.write(Durability::Flushed, |writer| settle(writer, &ids)) {
            Ok(attempts) => {
                self.statistics.borrow_mut().recovered(attempts);
                ids.into_iter().for_each(|id| self.is_settled(id));
            }
            Err(Failure::NotInstalled) => self.extension_dropped(),
            // Somebody has locked one of them, or all.
            Err(failure) => {
                self.recovery.complain(&failure);
                ids.iter().for_each(|id| self.keep_busy(*id));
                self.recovery.unsettled.extend(ids);
                self.settle_each();
                if !self.recovery.unsettled.is_empty() {
                    self.recovery.again_at.get_or_insert(since_boot() + AGAIN_AFTER);
                }
            }
        }
    }

    /// Settles each verification that can be settled; the requests of the others wait.
    fn settle_each(&mut self) {
        let unsettled = std::mem::take(&mut self.recovery.unsettled);
        for id in unsettled {
            let store = &self.store;
            match without_patience(|| store.write(Durability::Flushed, |writer| settle(writer, &[id]))) {
                Ok(attempts) => {
                    self.statistics.borrow_mut().recovered(attempts);
                    self.is_settled(id);
                }
                Err(Failure::NotInstalled) => return self.extension_dropped(),
                Err(_) => self.recovery.unsettled.push(id),
            }
        }
    }

    /// Lets those who wait for a verification have their turn.
    fn is_settled(&mut self, id: Uuid) {
        self.unblock(id);
        self.send_waiters_back(id);
    }

    /// Answers those who wait for a worker that is no more, as far as the record can tell.
    fn answer_orphaned(&mut self, now: SinceBoot) {
        if self.recovery.is_blind {
            return;
        }
        for (orphan, since) in std::mem::take(&mut self.recovery.orphaned) {
            let attempt = Uuid::from_bytes(orphan.attempt);
            // A question that began no attempt is asked again.
            let response = if attempt.is_nil() { Some(Response::Retry) } else { self.response_from_record(attempt) };
            match response.or_else(|| (now.since(since) > PATIENCE).then_some(Response::Unknown)) {
                Some(response) => self.respond(orphan.call_id, &response),
                None => self.recovery.orphaned.push((orphan, since)),
            }
        }
    }

    /// Returns the response for a session whose request was taken by a worker that is no more. Returns None if it
    /// cannot be read, or is not known yet.
    fn response_from_record(&mut self, attempt: Uuid) -> Option<Response> {
        // A send may have gone on to another provider of its route, by an attempt of its own.
        let latest = |writer: &mut StoreTransaction| {
            let Some(attempt) = writer.attempt(attempt)? else { return Ok(None) };
            match attempt.operation {
                Operation::Send => writer.send_of(attempt.verification, WhichSend::Original),
                _ => Ok(Some(attempt)),
            }
        };
        let found = self.store.write(Durability::Deferred, latest);
        if let Ok(Some(found)) = &found
            && found.outcome.is_none()
        {
            self.settle_first(std::iter::once(found.verification));
        }
        let found = self.store.write(Durability::Deferred, |writer| {
            let Some(attempt) = latest(writer)? else { return Ok(None) };
            let stored = writer.verifications(&[attempt.verification])?.pop();
            Ok(stored.map(|stored| (attempt, stored)))
        });
        match found {
            Ok(Some((attempt, stored))) => {
                let outcome = attempt.outcome?;
                Some(Response::Row(Box::new(result_row_from_record(attempt, &stored, outcome))))
            }
            // Nothing was sent: an attempt is on record before anything leaves.
            Ok(None) => Some(crate::worker::state::stopped()),
            Err(Failure::NotInstalled) => {
                self.extension_dropped();
                None
            }
            Err(_) => None,
        }
    }
}

/// Settles what an earlier worker left of these verifications: attempts in flight, and verifications that were on their
/// way from one provider of a route to the next. Returns how many attempts there were.
fn settle(writer: &mut StoreTransaction, ids: &[Uuid]) -> Result<usize, Failure> {
    let now = clock();
    let left = writer.in_flight(ids)?;
    let all: HashSet<Uuid> = left.iter().map(|attempt| attempt.verification).collect();
    let is_cancel = |attempt: &&StoredAttempt| attempt.operation == Operation::Cancel;
    let but_cancels: HashSet<Uuid> = left.iter().filter(|one| !is_cancel(one)).map(|one| one.verification).collect();
    let stored = writer.verifications(ids)?;
    let cohorts: HashMap<Uuid, Cohort> = stored.iter().map(|stored| (stored.id, stored.cohort)).collect();
    let changes: Vec<VerificationUpdate> = stored
        .into_iter()
        .filter(|stored| !stored.state.status.is_terminal())
        .filter_map(|mut stored| {
            let status = if but_cancels.contains(&stored.id) {
                Status::Unknown
            } else if stored.state.status == Status::Sending && !all.contains(&stored.id) {
                // The provider before certainly sent nothing.
                Status::Failed
            } else {
                return None;
            };
            let before = std::mem::replace(&mut stored.state.status, status);
            Some(VerificationUpdate { id: stored.id, before, moved_to: None, state: stored.state, sealed: None })
        })
        .collect();
    let completions: Vec<AttemptEnd> = left
        .iter()
        .map(|attempt| AttemptEnd {
            id: attempt.id,
            outcome: Outcome::Unknown,
            http_status: None,
            vendor_code: None,
            vendor_message: Some(WHY.to_owned()),
            response: None,
            retry_at: None,
            finished_at: now,
            begun: Begun {
                provider_id: attempt.provider_id,
                operation: attempt.operation,
                reason: attempt.reason,
                started_at: attempt.started_at,
                cohort: cohorts.get(&attempt.verification).copied().unwrap_or_default(),
            },
            is_timed: false,
            tells_of_provider: false,
            certificate_ends_at: None,
        })
        .collect();
    writer.complete_attempts(&completions);
    writer.update_verifications(&changes)?;
    Ok(completions.len())
}
