//! At its start a worker finds what the one before it left: attempts in flight, of which nobody can tell what became of
//! them, and sessions that still wait.

use std::collections::HashSet;

use policy::Status;
use uuid::Uuid;
use vendor::{Operation, Outcome};

use super::{Desk, desk::done_from_record};
use crate::{
    ledger::{Change, Completion, Durability, Failure, clock},
    letter::Reply,
    misuse::Misuse,
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

impl Desk {
    /// Nothing is sent again on a guess: what is in flight becomes `unknown`.
    pub fn recover(&mut self) {
        self.update_identities();
        if let Err(failure) = self.settle_in_flight("the server or its worker stopped before an answer came") {
            pgrx::warning!("otp_gateway: attempts left in flight could not be settled yet: {failure:?}");
        }
        self.load_expiry();
        for lost in self.mailbox.take_over() {
            let attempt = Uuid::from_bytes(lost.attempt);
            // A question that began no attempt is asked again.
            let reply = if attempt.is_nil() { Reply::Again } else { self.reply_from_record(attempt) };
            self.reply(lost.ticket, &reply);
        }
        self.look_for_queued();
    }

    fn settle_in_flight(&mut self, why: &str) -> Result<(), Failure> {
        let now = clock();
        self.ledger.write(Durability::Flushed, |writer| {
            writer.close_all_breakers()?;
            let Some(last) = writer.last_attempt()? else { return Ok(()) };
            let in_flight = writer.in_flight(id_before(last, REACH))?;
            let mut ids: Vec<Uuid> = in_flight.iter().map(|attempt| attempt.verification).collect();
            let unknown: HashSet<Uuid> = ids.iter().copied().collect();
            // On its way from one provider of a route to the next: the one before certainly sent nothing.
            ids.extend(writer.sending(id_before(last, REACH))?.into_iter().filter(|id| !unknown.contains(id)));
            let stored = writer.verifications(&ids)?;
            let is_cancel = |id: Uuid| {
                unknown.contains(&id)
                    && in_flight
                        .iter()
                        .all(|attempt| attempt.verification != id || attempt.operation == Operation::Cancel)
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
            let completions: Vec<Completion> = in_flight
                .iter()
                .map(|attempt| Completion {
                    id: attempt.id,
                    outcome: Outcome::Unknown,
                    http_status: None,
                    vendor_code: None,
                    vendor_message: Some(why.to_owned()),
                    response: None,
                    finished_at: now,
                })
                .collect();
            writer.complete_attempts(&completions)?;
            writer.update_verifications(&changes)
        })
    }

    /// For a session whose letter a worker took that is no more.
    fn reply_from_record(&mut self, attempt: Uuid) -> Reply {
        let found = self.ledger.write(Durability::Lazy, |writer| {
            let Some(attempt) = writer.attempt(attempt)? else { return Ok(None) };
            let stored = writer.verifications(&[attempt.verification])?.pop();
            Ok(stored.map(|stored| (attempt, stored)))
        });
        match found {
            Ok(Some((attempt, stored))) => {
                let outcome = attempt.outcome.unwrap_or(Outcome::Unknown);
                Reply::Done(Box::new(done_from_record(attempt, &stored, outcome)))
            }
            _ => Reply::Refused(Misuse::not_ready(
                "the background worker ended before the call was made; nothing was sent",
                "Call again.",
            )),
        }
    }
}
