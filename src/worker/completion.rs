//! From completed calls to rows: the outcomes are put on record, many at once, and then the callers are told.

use std::borrow::Borrow;

use dialect::{Operation, Outcome};
use http_client::CompletedCall;
use policy::{
    BreakerState, ResultContext, Status, Timestamp, Verification, apply_result, fails_over, outcome_in_time,
    retry_delay, retryable, spends_a_check,
};
use serde_json::Value;

use crate::{
    gucs,
    ipc::message::{Request, Response},
    pg::clock::{at_unix_seconds, clock},
    provider::option_value::micros,
    store::{
        StoreTransaction,
        breakers::OpenBreaker,
        retention::erase_at,
        rows::{AttemptEnd, NewReference, VerificationUpdate},
        transaction::{Durability, Failure},
    },
    worker::{
        admission::finds_by_reference,
        state::{InFlight, Worker, failure_log::OUTCOME, limit_state::AccountBreaker, result_row, send_queue::DueSend},
    },
};

/// What comes after an outcome.
pub enum Then {
    Done,
    /// A queued send is tried again, not before this time.
    Again(Timestamp),
    /// The next provider of the route is tried.
    Fallback,
}

/// How many bytes the reference that a vendor gave may have, and how many characters are kept of its texts: more would
/// not fit an index.
pub const MAX_REFERENCE: usize = 512;
pub const MAX_TEXT: usize = 1000;
/// Numbers with a larger exponent are kept as text: Postgres' numeric has 131072 digits before the point, 16383 after
/// it.
pub const MAX_EXPONENT: u64 = 10_000;

/// A call that has ended: what is put on record of it, and what comes after.
struct EndedCall {
    completed: CompletedCall,
    attempt: AttemptEnd,
    update: VerificationUpdate,
    then: Then,
}

impl Borrow<AttemptEnd> for EndedCall {
    fn borrow(&self) -> &AttemptEnd {
        &self.attempt
    }
}

impl Borrow<VerificationUpdate> for EndedCall {
    fn borrow(&self) -> &VerificationUpdate {
        &self.update
    }
}

impl Worker {
    pub fn complete_calls(&mut self, mut completed_calls: Vec<CompletedCall>) {
        completed_calls.retain(|completed| self.in_flight.contains_key(&completed.call_id));
        completed_calls.iter_mut().for_each(make_storable);
        let now = clock();
        for completed in &mut completed_calls {
            let call = &self.in_flight[&completed.call_id];
            completed.result.outcome =
                outcome_in_time(call.operation, completed.result.outcome, call.state.expires_at, now);
        }
        completed_calls.iter().for_each(|completed| self.report_to_breaker(completed, now));
        // An application that has heard `approved` finds it on record, always.
        let approved = completed_calls.iter().any(|completed| completed.result.outcome == Outcome::Approved);
        let durability = if approved { Durability::Flushed } else { Durability::Deferred };
        let ended: Vec<EndedCall> = completed_calls.into_iter().map(|completed| self.end_of(completed, now)).collect();
        self.record_breakers();
        let recorded = self.store.write(durability, |writer| {
            writer.complete_attempts(&ended);
            writer.update_verifications(&ended)?;
            let references: Vec<NewReference> = ended.iter().filter_map(|ended| self.new_reference(ended)).collect();
            writer.insert_references(&references);
            Ok(())
        });
        match recorded {
            Ok(()) => {
                self.ipc.hold_wakes();
                ended.into_iter().for_each(|ended| self.deliver(ended.completed, ended.update, ended.then));
                self.ipc.wake_held();
            }
            Err(failure) => {
                self.on_outcome_failure(ended.into_iter().map(|ended| ended.completed).collect(), failure);
            }
        }
    }

    fn end_of(&self, completed: CompletedCall, now: Timestamp) -> EndedCall {
        let attempt = self.completion(&completed, now);
        let (update, then) = self.change(&completed, now);
        EndedCall { completed, attempt, update, then }
    }

    /// Returns the reference by which the verification is found since this call; None if that has not changed.
    fn new_reference<'a>(&'a self, ended: &'a EndedCall) -> Option<NewReference<'a>> {
        let call = &self.in_flight[&ended.completed.call_id];
        let reference = ended.update.state.reference.as_deref().filter(|_| finds_by_reference(&call.vendor))?;
        (call.state.reference.as_deref() != Some(reference)).then_some(NewReference {
            provider_id: call.provider_id,
            reference,
            verification: ended.update.id,
        })
    }

    /// Handles answers that were heard and could not be put on record: their callers wait until they are.
    fn on_outcome_failure(&mut self, mut completed_calls: Vec<CompletedCall>, failure: Failure) {
        match failure {
            Failure::NotInstalled => {
                self.extension_dropped();
                self.unrecorded.append(&mut completed_calls);
            }
            Failure::Busy => match self.put_aside_completed(completed_calls) {
                Ok(others) if others.is_empty() => {}
                Ok(others) => self.complete_calls(others),
                Err(mut all) => {
                    self.unrecorded.append(&mut all);
                    self.try_again_later();
                }
            },
            // A call that cannot be recorded must not take the others with it.
            Failure::Error(_) if completed_calls.len() > 1 => {
                completed_calls.into_iter().for_each(|completed| self.complete_calls(vec![completed]));
            }
            Failure::Error(why) => {
                // The next try leaves out the vendor's words, in case they cannot be stored.
                self.failures.raise(OUTCOME, &why);
                for completed in &mut completed_calls {
                    completed.record = None;
                    completed.result.vendor_message = None;
                    completed.result.vendor_code = None;
                }
                self.unrecorded.append(&mut completed_calls);
                self.try_again_later();
            }
        }
    }

    /// Records the changes of breakers, in a transaction of their own: whoever has locked a breaker's row holds up no
    /// outcome.
    pub fn record_breakers(&mut self) {
        if self.breaker_changes.is_empty() {
            return;
        }
        let turned = &self.breaker_changes;
        let set = |writer: &mut StoreTransaction| {
            turned.iter().try_for_each(|(of, open)| writer.set_breaker(of.server, of.mapping, open.as_ref()))
        };
        if self.store.write(Durability::Deferred, set).is_ok() {
            self.breaker_changes.clear();
        }
    }

    /// Reports a completed call to its account's breaker, which hears of each call once.
    pub fn report_to_breaker(&mut self, completed: &CompletedCall, now: Timestamp) {
        let Some(call) = self.in_flight.get_mut(&completed.call_id) else { return };
        self.provider_log.credentials((&call.provider, &call.vendor), call.account, completed, now);
        let (Some(breaker_permit), Some(known)) =
            (call.breaker_permit.take(), self.limits.breakers.get_mut(call.account))
        else {
            return;
        };
        let AccountBreaker { breaker, configuration, opened_at } = known;
        let before = breaker.state(now);
        if completed.is_ours || completed.result.is_personal {
            breaker.forgo(breaker_permit, now);
        } else {
            breaker.record(breaker_permit, completed.result.outcome, now);
        }
        let after = breaker.state(now);
        self.provider_log.breaker(&call.provider, before, after, completed, now);
        match after {
            after if after == before => {}
            BreakerState::Open { until } => {
                if before == BreakerState::Closed {
                    *opened_at = None;
                }
                let open = OpenBreaker {
                    opened_at: *opened_at.get_or_insert(now),
                    failed_at: now,
                    open_until: until,
                    outcome: completed.result.outcome,
                    vendor_code: completed.result.vendor_code.clone(),
                    configuration: configuration.clone(),
                };
                self.breaker_changes.insert(call.account, Some(open));
            }
            BreakerState::HalfOpen => {}
            BreakerState::Closed => {
                self.breaker_changes.insert(call.account, None);
                self.queue.resume(call.line());
            }
        }
    }

    /// Settles the limits after the transaction that asked them. A provider whose fault may have been mended is tried
    /// anew.
    pub fn settle_limits(&mut self, committed: bool) {
        for mended in self.limits.settle(committed) {
            self.provider_log.mended(&mended.provider);
            self.breaker_changes.insert(mended.account, None);
            self.queue.resume(mended.provider_id);
        }
    }

    /// Returns what becomes of the verification, and what comes after.
    pub fn change(&self, completed: &CompletedCall, now: Timestamp) -> (VerificationUpdate, Then) {
        let call = &self.in_flight[&completed.call_id];
        let mut state = call.state.clone();
        apply_result(
            &mut state,
            &ResultContext {
                operation: call.operation,
                result: &completed.result,
                before: call.before,
                voided: completed.voided,
                keeps_code: call.keeps_code,
                code_lifetime: call.code_lifetime,
                now,
            },
        );
        let went = matches!(completed.result.outcome, Outcome::Sent | Outcome::Unknown);
        let mut sealed = None;
        if call.operation == Operation::Resend && went {
            sealed.clone_from(&call.sealed);
            // The vendor's own reference, if it gave one, else the reference that the caller chose for the new code.
            if completed.result.reference.is_none() && call.reference.is_some() {
                state.reference.clone_from(&call.reference);
            }
        }
        let mut then = Then::Done;
        if call.fallback.is_some() && fails_over(completed.result.outcome) && !completed.not_begun {
            state.status = Status::Sending;
            then = Then::Fallback;
        } else if let Some(queued) = &call.requeue
            && let Some(at) = again(call, completed, &mut state, now)
        {
            state.status = Status::Queued;
            sealed = Some(queued.payload.clone());
            then = Then::Again(at);
        }
        let update =
            VerificationUpdate { id: call.verification, before: call.state.status, moved_to: None, state, sealed };
        (update, then)
    }

    pub fn completion(&self, completed: &CompletedCall, now: Timestamp) -> AttemptEnd {
        let call = &self.in_flight[&completed.call_id];
        AttemptEnd {
            id: call.attempt,
            outcome: completed.result.outcome,
            http_status: completed.http_status,
            vendor_code: completed.result.vendor_code.clone(),
            vendor_message: completed.result.vendor_message.clone(),
            response: completed.record.as_ref().map(Value::to_string),
            retry_at: completed.result.retry_after.map(|wait| now + micros(wait)),
            finished_at: now,
            begun: call.begun(),
            is_timed: true,
            tells_of_provider: !completed.is_ours && !completed.result.is_personal,
            certificate_ends_at: completed.certificate_ends.map(at_unix_seconds),
        }
    }

    pub fn deliver(&mut self, completed: CompletedCall, change: VerificationUpdate, then: Then) {
        let Some(call) = self.in_flight.remove(&completed.call_id) else { return };
        if !matches!(completed.result.outcome, Outcome::Sent | Outcome::Unknown) {
            self.limits.provider_sends.remove(call.provider_id, call.attempt);
        }
        self.count_for_range(&call, completed.result.outcome);
        if let (Then::Fallback, Some(next)) = (&then, call.fallback) {
            // The verification stays busy with the next job.
            self.pending.push((call.call_id, Request::Run(next)));
            return;
        }
        let result = completed.result;
        let mut row = result_row(call.attempt, call.operation, call.verification, &change.state, result.outcome);
        if let (Some(left), false) = (result.attempts_left, change.state.status.is_terminal()) {
            row.attempts_left = row.attempts_left.min(left);
        }
        if let Some(left) = call.checks_left {
            // The check was counted as a wrong code before the call.
            let is_unspent = call.operation == Operation::Verify && !spends_a_check(result.outcome);
            row.attempts_left = row.attempts_left.min(left.saturating_add(u32::from(is_unspent)));
        }
        row.retryable = retryable(call.operation, result.outcome, row.attempts_left);
        row.retry_after = result.retry_after.map(micros);
        row.reason = call.observed;
        row.vendor_code = result.vendor_code;
        row.vendor_message = result.vendor_message;
        row.response = result.response.map(|response| response.to_string());
        let is_over = match (&then, &call.requeue) {
            (Then::Again(due), Some(queued)) => {
                let turn = DueSend {
                    provider: queued.line,
                    role: queued.role,
                    id: call.verification,
                    created_at: call.cohort.begun_at,
                };
                self.queue.wait(&turn, *due);
                false
            }
            _ => {
                self.answer_waiters(call.verification, &row);
                self.respond(call.call_id, &Response::Row(Box::new(row)));
                true
            }
        };
        if is_over
            && !change.state.status.is_terminal()
            && matches!(call.operation, Operation::Send | Operation::Resend)
        {
            self.expiry.add(call.verification, erase_at(call.cohort.begun_at, &change.state));
        }
        self.unblock(call.verification);
    }
}

/// Makes what a vendor answered storable, so that it can be recorded in any case: Postgres holds no NUL in text or
/// jsonb, and no huge key in an index.
pub fn make_storable(completed: &mut CompletedCall) {
    let result = &mut completed.result;
    for text in [&mut result.vendor_code, &mut result.vendor_message].into_iter().flatten() {
        without_nul(text);
        if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
            text.truncate(end);
        }
    }
    if result.reference.as_ref().is_some_and(|reference| reference.len() > MAX_REFERENCE || reference.contains('\0')) {
        result.reference = None;
    }
    for value in [&mut result.response, &mut completed.record].into_iter().flatten() {
        make_value_storable(value);
    }
}

/// Makes a JSON value storable. The recursion goes no deeper than the HTTP client let through.
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
        // Numbers are kept as they were written; a number that Postgres' numeric cannot hold becomes a text.
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

/// Returns when a queued send is tried again; None: no more.
fn again(call: &InFlight, completed: &CompletedCall, state: &mut Verification, now: Timestamp) -> Option<Timestamp> {
    let at = if completed.not_begun {
        // The send is where it would be if it had not had its turn.
        state.send_count = state.send_count.saturating_sub(1);
        now
    } else if completed.result.outcome == Outcome::AuthFailed && completed.result.is_personal {
        // The refused credential came with the payload: nobody mends it.
        return None;
    } else {
        let asked = completed.result.retry_after.map(micros);
        let seed = call.attempt.as_u64_pair().1;
        now + retry_delay(completed.result.outcome, state.send_count, gucs::max_tries(), asked, seed)?
    };
    // A send that is older than otp_gateway.queue_max_age would not be sent any more.
    (at < call.cohort.begun_at + gucs::queue_max_age()).then_some(at)
}
