//! From deliveries to rows: the outcomes are put on record, many at once, and then the callers are told.

use dialect::{Operation, Outcome};
use http_client::Delivery;
use policy::{BreakerState, Conclusion, Micros, Status, again_after, conclude, moves_on, retryable, spends_a_check};
use serde_json::Value;

use crate::{
    gucs,
    ipc::message::{Letter, Reply},
    pg::clock::clock,
    provider::option_value::micros,
    store::{
        Writer, erase_at,
        rows::{Change, Completion, NewReference},
        transaction::{Durability, Failure},
    },
    worker::state::{Desk, done, failure_log::OUTCOME, send_queue::Turn},
};

/// What comes after an outcome.
pub enum Then {
    Done,
    /// A queued send is tried again, not before this.
    Again(Micros),
    /// The next provider of the route is tried.
    Onward,
}

/// A vendor's text or reference that is longer is none: it would not fit an index.
pub const MAX_REFERENCE: usize = 512;
pub const MAX_TEXT: usize = 1000;
/// Postgres' numeric goes to 131072 digits before and 16383 after the point.
pub const MAX_EXPONENT: u64 = 10_000;

impl Desk {
    pub fn conclude(&mut self, mut deliveries: Vec<Delivery>) {
        deliveries.retain(|delivery| self.in_flight.contains_key(&delivery.ticket));
        deliveries.iter_mut().for_each(make_storable);
        let now = clock();
        deliveries.iter().for_each(|delivery| self.report(delivery, now));
        // An application that heard `approved` finds it on record, always.
        let approved = deliveries.iter().any(|delivery| delivery.reading.outcome == Outcome::Approved);
        let durability = if approved { Durability::Flushed } else { Durability::Lazy };
        let (changes, then): (Vec<Change>, Vec<Then>) =
            deliveries.iter().map(|delivery| self.change(delivery, now)).unzip();
        let completions: Vec<Completion> = deliveries.iter().map(|delivery| self.completion(delivery, now)).collect();
        self.record_breakers();
        let recorded = self.ledger.write(durability, |writer| {
            let calls = || {
                deliveries.iter().zip(&changes).map(|(delivery, change)| (&self.in_flight[&delivery.ticket], change))
            };
            let references = calls().filter_map(|(call, change)| {
                let reference = change.state.reference.as_deref()?;
                (call.state.reference.as_deref() != Some(reference)).then_some(NewReference {
                    provider: &call.provider,
                    provider_id: call.provider_id,
                    reference,
                    verification: change.id,
                })
            });
            writer.complete_attempts(&completions)?;
            writer.update_verifications(&changes)?;
            writer.insert_references(&references.collect::<Vec<_>>())
        });
        match recorded {
            Ok(()) => {
                deliveries
                    .into_iter()
                    .zip(changes)
                    .zip(then)
                    .for_each(|((delivery, change), then)| self.tell(delivery, change, then));
            }
            Err(Failure::Gone) => {
                self.gone();
                self.unrecorded = deliveries;
            }
            Err(Failure::Busy) => match self.put_aside_deliveries(deliveries) {
                Ok(others) if others.is_empty() => {}
                Ok(others) => self.conclude(others),
                Err(mut all) => {
                    self.unrecorded.append(&mut all);
                    self.try_again_later();
                }
            },
            // One that cannot be recorded must not take the others with it.
            Err(Failure::Error(_)) if deliveries.len() > 1 => {
                deliveries.into_iter().for_each(|delivery| self.conclude(vec![delivery]));
            }
            Err(Failure::Error(why)) => {
                // The answer was heard: its caller waits until it is on record, without the vendor's words if need be.
                self.complaints.raise(OUTCOME, &why);
                for delivery in &mut deliveries {
                    delivery.record = None;
                    delivery.reading.vendor_message = None;
                    delivery.reading.vendor_code = None;
                }
                self.unrecorded.append(&mut deliveries);
                self.try_again_later();
            }
        }
    }

    /// In a transaction of their own: whoever looks at a breaker's row, or has locked it, holds up no outcome.
    pub fn record_breakers(&mut self) {
        if self.turned.is_empty() {
            return;
        }
        let turned = &self.turned;
        let set = |writer: &mut Writer| {
            turned.iter().try_for_each(|(of, until)| writer.set_breaker(of.server, of.mapping, *until))
        };
        if self.ledger.write(Durability::Lazy, set).is_ok() {
            self.turned.clear();
        }
    }

    /// To the provider's breaker, once.
    pub fn report(&mut self, delivery: &Delivery, now: Micros) {
        let Some(call) = self.in_flight.get_mut(&delivery.ticket) else { return };
        let (Some(pass), Some(breaker)) = (call.pass.take(), self.standing.breakers.get_mut(call.account)) else {
            return;
        };
        let before = breaker.state(now);
        if delivery.is_callers_fault || delivery.reading.is_personal {
            breaker.forgo(pass, now);
        } else {
            breaker.report(pass, delivery.reading.outcome, now);
        }
        match breaker.state(now) {
            after if after == before => {}
            BreakerState::Open { until } => drop(self.turned.insert(call.account, Some(until))),
            BreakerState::HalfOpen => {}
            BreakerState::Closed => {
                self.turned.insert(call.account, None);
                self.queue.resume(call.line());
            }
        }
    }

    /// What becomes of the verification, and what comes after.
    pub fn change(&self, delivery: &Delivery, now: Micros) -> (Change, Then) {
        let call = &self.in_flight[&delivery.ticket];
        let mut state = call.state.clone();
        conclude(
            &mut state,
            &Conclusion {
                operation: call.operation,
                reading: &delivery.reading,
                before: call.before,
                voided: delivery.voided,
                keeps_code: call.keeps_code,
                code_lifetime: call.code_lifetime,
                now,
            },
        );
        let went = matches!(delivery.reading.outcome, Outcome::Sent | Outcome::Unknown);
        let mut sealed = None;
        if call.operation == Operation::Resend && went {
            sealed.clone_from(&call.sealed);
            // The vendor's own word, if it gave one, else what the caller chose for the new code.
            if delivery.reading.reference.is_none() && call.reference.is_some() {
                state.reference.clone_from(&call.reference);
            }
        }
        if call.onward.is_some() && moves_on(delivery.reading.outcome) && !delivery.unbegun {
            state.status = Status::Sending;
            let change = Change { id: call.verification, before: call.state.status, moved_to: None, state, sealed };
            return (change, Then::Onward);
        }
        let again = call.queued.as_ref().and_then(|queued| {
            let again = if delivery.unbegun {
                // It is as if it had not had its turn.
                state.send_count = state.send_count.saturating_sub(1);
                now
            } else {
                let asked = delivery.reading.retry_after.map(micros);
                let dice = call.attempt.as_u64_pair().1;
                let tries = state.send_count;
                now.saturating_add(again_after(delivery.reading.outcome, tries, gucs::max_tries(), asked, dice)?)
            };
            // Past its age it would not be sent any more.
            if again >= call.created_at.saturating_add(gucs::queue_max_age()) {
                return None;
            }
            state.status = Status::Queued;
            sealed = Some(queued.payload.clone());
            Some(again)
        });
        let change = Change { id: call.verification, before: call.state.status, moved_to: None, state, sealed };
        (change, again.map_or(Then::Done, Then::Again))
    }

    pub fn completion(&self, delivery: &Delivery, now: Micros) -> Completion {
        let call = &self.in_flight[&delivery.ticket];
        Completion {
            id: call.attempt,
            outcome: delivery.reading.outcome,
            http_status: delivery.http_status,
            vendor_code: delivery.reading.vendor_code.clone(),
            vendor_message: delivery.reading.vendor_message.clone(),
            response: delivery.record.as_ref().map(Value::to_string),
            retry_at: delivery.reading.retry_after.map(|wait| now.saturating_add(micros(wait))),
            finished_at: now,
        }
    }

    pub fn tell(&mut self, delivery: Delivery, change: Change, then: Then) {
        let Some(call) = self.in_flight.remove(&delivery.ticket) else { return };
        if !matches!(delivery.reading.outcome, Outcome::Sent | Outcome::Unknown) {
            self.standing.bills.remove(call.provider_id, call.attempt);
        }
        if let (Then::Onward, Some(next)) = (&then, call.onward) {
            // The verification stays busy with it.
            self.pending.push((call.ticket, Letter::Call(next)));
            return;
        }
        let reading = delivery.reading;
        let mut row = done(call.attempt, call.operation, call.verification, &change.state, reading.outcome);
        if let (Some(left), false) = (reading.attempts_left, change.state.status.is_terminal()) {
            row.attempts_left = row.attempts_left.min(left);
        }
        if let Some(left) = call.checks_left {
            // One that was checked was counted as a wrong one before.
            let is_unspent = call.operation == Operation::Verify && !spends_a_check(reading.outcome);
            row.attempts_left = row.attempts_left.min(left.saturating_add(u32::from(is_unspent)));
        }
        row.retryable = retryable(call.operation, reading.outcome, row.attempts_left);
        row.retry_after = reading.retry_after.map(micros);
        row.reason = call.noted;
        row.vendor_code = reading.vendor_code;
        row.vendor_message = reading.vendor_message;
        row.response = reading.response.map(|response| response.to_string());
        let is_over = match (&then, &call.queued) {
            (Then::Again(due), Some(queued)) => {
                let turn = Turn {
                    provider: queued.line,
                    role: queued.role,
                    id: call.verification,
                    created_at: call.created_at,
                };
                self.queue.wait(&turn, *due);
                false
            }
            _ => {
                self.tell_followers(call.verification, &row);
                self.reply(call.ticket, &Reply::Done(Box::new(row)));
                true
            }
        };
        if is_over
            && !change.state.status.is_terminal()
            && matches!(call.operation, Operation::Send | Operation::Resend)
        {
            self.expiry.add(call.verification, erase_at(call.created_at, &change.state));
        }
        self.release(call.verification);
    }
}

/// Postgres holds no NUL in text or jsonb, and no huge key in an index: a vendor's answer must not fail to be recorded.
pub fn make_storable(delivery: &mut Delivery) {
    let reading = &mut delivery.reading;
    for text in [&mut reading.vendor_code, &mut reading.vendor_message].into_iter().flatten() {
        without_nul(text);
        if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
            text.truncate(end);
        }
    }
    if reading.reference.as_ref().is_some_and(|reference| reference.len() > MAX_REFERENCE || reference.contains('\0')) {
        reading.reference = None;
    }
    for value in [&mut reading.response, &mut delivery.record].into_iter().flatten() {
        make_value_storable(value);
    }
}

/// No deeper than the courier let through.
pub fn make_value_storable(value: &mut Value) {
    match value {
        Value::String(text) => without_nul(text),
        Value::Array(items) => items.iter_mut().for_each(make_value_storable),
        Value::Object(members) => {
            if members.keys().any(|key| key.contains('\0')) {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(key, value)| (key.replace('\0', "\u{fffd}"), value))
                    .collect();
            }
            members.values_mut().for_each(make_value_storable);
        }
        // Numbers are kept as they were written; one that Postgres' numeric cannot hold becomes a text.
        Value::Number(number) => {
            let text = number.to_string();
            let exponent = text.split_once(['e', 'E']).map_or(0, |(_, exponent)| exponent.parse().unwrap_or(i64::MAX));
            if text.len() > MAX_TEXT || exponent.unsigned_abs() > MAX_EXPONENT {
                *value = Value::String(text);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

pub fn without_nul(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}
