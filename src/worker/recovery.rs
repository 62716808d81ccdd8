//! At its start a worker finds what the one before it left: attempts in flight, of which nobody can tell what became of
//! them, and sessions that still wait.

use std::collections::HashSet;

use policy::{Micros, Status};
use uuid::Uuid;
use vendor::{Operation, Outcome};

use super::{Desk, desk::done_from_record, process::without_patience};
use crate::{
    ledger::{Change, Completion, Durability, Failure, Writer, clock},
    letter::Reply,
    mailbox::Lost,
    process::since_boot,
};

/// How far before the latest attempt one can have begun and still be in flight, in milliseconds: far more than the
/// longest timeout. Looking no further keeps a start quick however long the record is, without an index that would
/// cost every update.
const REACH: u64 = 86_400_000;

/// The smallest id of a time before that of `id`, by `reach` milliseconds.
pub fn id_before(id: Uuid, reach: u64) -> Uuid {
    let millis = (id.as_u128() >> 80) as u64;
    Uuid::from_u128(u128::from(millis.saturating_sub(reach)) << 80)
}

/// What could not be settled at the start yet.
#[derive(Default)]
pub struct Recovery {
    /// Nobody knows yet what was left in flight: nothing else is done before.
    is_blind: bool,
    /// Verifications with something in flight that could not be settled: their letters wait.
    unsettled: Vec<Uuid>,
    /// Sessions that have no answer yet, and since when.
    lost: Vec<(Lost, Micros)>,
    /// By `since_boot`.
    again_at: Option<Micros>,
    said: bool,
}

/// How long to wait before the next try; and how long a session is left without an answer that has one on record.
const AGAIN_AFTER: Micros = 200_000;
const PATIENCE: Micros = 5_000_000;

impl Recovery {
    pub fn next_due(&self) -> Option<Micros> {
        self.again_at
    }

    fn complain(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.said, true) {
            pgrx::warning!("otp_gateway: attempts left in flight could not be settled yet: {failure:?}");
        }
    }
}

const WHY: &str = "the server or its worker stopped before an answer came";

impl Desk {
    /// Nothing is sent again on a guess: what is in flight becomes `unknown`.
    pub fn recover(&mut self) {
        self.update_identities();
        self.look_for_strangers();
        self.recovery.is_blind = true;
        self.recovery.again_at = Some(0);
        self.recover_more();
    }

    /// Goes on with what could not be settled before, where it is time to. False: nothing else can be done yet.
    pub fn recover_more(&mut self) -> bool {
        // A session may ask for the rest of a reply that a worker before this one had.
        let lost = self.mailbox.lost();
        let now = since_boot();
        self.recovery.lost.retain(|(one, _)| lost.iter().any(|other| other.ticket == one.ticket));
        for one in lost {
            if !self.recovery.lost.iter().any(|(other, _)| other.ticket == one.ticket) {
                self.recovery.lost.push((one, now));
                self.recovery.again_at = Some(0);
            }
        }
        if self.recovery.again_at.is_none_or(|at| at > now) {
            return !self.recovery.is_blind;
        }
        self.recovery.again_at = None;
        let was_blind = self.recovery.is_blind;
        if was_blind {
            self.settle_all();
        } else if !self.recovery.unsettled.is_empty() {
            self.settle_each();
        }
        self.answer_lost(now);
        if self.recovery.is_blind || !self.recovery.unsettled.is_empty() || !self.recovery.lost.is_empty() {
            self.recovery.again_at = Some(since_boot() + AGAIN_AFTER);
        } else if std::mem::take(&mut self.recovery.said) {
            pgrx::log!("otp_gateway: attempts left in flight are settled");
        }
        if was_blind && !self.recovery.is_blind {
            self.mailbox.take_over();
            self.load_expiry();
            self.look_for_queued();
        }
        !self.recovery.is_blind
    }

    fn settle_all(&mut self) {
        let settled = self.ledger.write(Durability::Flushed, |writer| {
            writer.close_all_breakers()?;
            let left = left_in_flight(writer)?;
            settle(writer, &left)
        });
        match settled {
            Ok(()) => self.recovery.is_blind = false,
            Err(Failure::Gone) => self.gone(),
            // Somebody has locked one of them, or all.
            Err(failure) => {
                self.recovery.complain(&failure);
                let left = self.ledger.write(Durability::Lazy, left_in_flight);
                if let Ok(left) = left {
                    self.recovery.is_blind = false;
                    let each: HashSet<Uuid> =
                        left.attempts.iter().map(|(_, verification, _)| *verification).chain(left.sending).collect();
                    self.recovery.unsettled = each.into_iter().collect();
                    self.recovery.unsettled.clone().into_iter().for_each(|id| self.keep_busy(id));
                    self.settle_each();
                }
            }
        }
    }

    /// Those that can be; the others' letters wait.
    fn settle_each(&mut self) {
        let unsettled = std::mem::take(&mut self.recovery.unsettled);
        for id in unsettled {
            let ledger = &self.ledger;
            let settled = without_patience(|| {
                ledger.write(Durability::Flushed, |writer| {
                    let mut left = left_in_flight(writer)?;
                    left.attempts.retain(|(_, verification, _)| *verification == id);
                    left.sending.retain(|verification| *verification == id);
                    settle(writer, &left)
                })
            });
            match settled {
                Ok(()) => self.release(id),
                Err(Failure::Gone) => return self.gone(),
                Err(_) => self.recovery.unsettled.push(id),
            }
        }
    }

    /// Those who wait for a worker that is no more, as far as the record can tell.
    fn answer_lost(&mut self, now: Micros) {
        if self.recovery.is_blind {
            return;
        }
        for (lost, since) in std::mem::take(&mut self.recovery.lost) {
            let attempt = Uuid::from_bytes(lost.attempt);
            // A question that began no attempt is asked again.
            let reply = if attempt.is_nil() { Some(Reply::Again) } else { self.reply_from_record(attempt) };
            match reply.or_else(|| (now.saturating_sub(since) > PATIENCE).then_some(Reply::Unknown)) {
                Some(reply) => self.reply(lost.ticket, &reply),
                None => self.recovery.lost.push((lost, since)),
            }
        }
    }

    /// For a session whose letter a worker took that is no more. None: it cannot be read, or not be told yet.
    fn reply_from_record(&mut self, attempt: Uuid) -> Option<Reply> {
        let found = self.ledger.write(Durability::Lazy, |writer| {
            let Some(attempt) = writer.attempt(attempt)? else { return Ok(None) };
            let stored = writer.verifications(&[attempt.verification])?.pop();
            Ok(stored.map(|stored| (attempt, stored)))
        });
        match found {
            Ok(Some((attempt, stored))) => {
                let outcome = attempt.outcome?;
                Some(Reply::Done(Box::new(done_from_record(attempt, &stored, outcome))))
            }
            // An attempt is on record before anything leaves.
            Ok(None) => Some(super::desk::stopped()),
            Err(Failure::Gone) => {
                self.gone();
                None
            }
            Err(_) => None,
        }
    }
}

/// What a worker before this one left: attempts, with their verification and operation, and verifications that were on
/// their way from one provider of a route to the next.
struct Left {
    attempts: Vec<(Uuid, Uuid, Operation)>,
    sending: Vec<Uuid>,
}

fn left_in_flight(writer: &mut Writer) -> Result<Left, Failure> {
    let Some(last) = writer.last_attempt()? else { return Ok(Left { attempts: Vec::new(), sending: Vec::new() }) };
    let in_flight = writer.in_flight(id_before(last, REACH))?;
    let attempts: Vec<(Uuid, Uuid, Operation)> =
        in_flight.iter().map(|attempt| (attempt.id, attempt.verification, attempt.operation)).collect();
    let unknown: HashSet<Uuid> = attempts.iter().map(|(_, verification, _)| *verification).collect();
    let sending = writer.sending(id_before(last, REACH))?.into_iter().filter(|id| !unknown.contains(id)).collect();
    Ok(Left { attempts, sending })
}

fn settle(writer: &mut Writer, left: &Left) -> Result<(), Failure> {
    let now = clock();
    let unknown: HashSet<Uuid> = left.attempts.iter().map(|(_, verification, _)| *verification).collect();
    let mut ids: Vec<Uuid> = unknown.iter().copied().collect();
    // The provider before certainly sent nothing.
    ids.extend(&left.sending);
    let stored = writer.verifications(&ids)?;
    let is_cancel = |id: Uuid| {
        unknown.contains(&id)
            && left
                .attempts
                .iter()
                .all(|(_, verification, operation)| *verification != id || *operation == Operation::Cancel)
    };
    let changes: Vec<Change> = stored
        .into_iter()
        .filter(|stored| !stored.state.status.is_terminal() && !is_cancel(stored.id))
        .map(|mut stored| {
            let status = if unknown.contains(&stored.id) { Status::Unknown } else { Status::Failed };
            let before = std::mem::replace(&mut stored.state.status, status);
            Change { id: stored.id, before, moved_to: None, state: stored.state, sealed: None }
        })
        .collect();
    let completions: Vec<Completion> = left
        .attempts
        .iter()
        .map(|(id, ..)| Completion {
            id: *id,
            outcome: Outcome::Unknown,
            http_status: None,
            vendor_code: None,
            vendor_message: Some(WHY.to_owned()),
            response: None,
            finished_at: now,
        })
        .collect();
    writer.complete_attempts(&completions)?;
    writer.update_verifications(&changes)
}
