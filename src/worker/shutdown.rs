//! The worker's end: calls under way have a while to end, their ends are put on record as far as possible, and whoever
//! waits is told.

use dialect::Outcome;
use http_client::CompletedCall;
use policy::{Micros, Status};

use crate::{
    ipc::{
        message::{Request, Response},
        worker::CallId,
    },
    pg::{
        background_worker,
        clock::{clock, since_boot},
    },
    worker::{
        lifecycle,
        state::{Worker, result_row, stopped, unknown},
    },
};

/// What a worker leaves to the next one, beside requests that nobody has read.
#[derive(Clone, Copy, PartialEq)]
pub enum Leftover {
    Nothing,
    /// Something to do at once: calls without an end on record, a queue, sends between two providers of a route.
    Work,
}

impl Worker {
    /// Gives the calls under way `grace` to end, then ends the worker.
    pub fn shut_down(mut self, grace: Micros) -> Leftover {
        let why = if self.is_extension_dropped {
            "the extension was dropped during the call"
        } else {
            "the server or its worker stopped before an answer came"
        };
        let aside = self.take_aside();
        let between_providers = self.refuse_waiting();
        self.http.close();
        self.let_calls_end(grace);
        let unrecorded = self.record_ends(aside, why);
        let is_recorded = unrecorded.is_empty();
        self.write_ranges_at_once();
        self.answer_unknown(unrecorded, why);
        self.turn_back_waiters();
        // Recording the ends may have freed requests that waited, or sent a job on to the next provider of its route.
        let between_providers = self.refuse_waiting() || between_providers;
        let is_done = is_recorded && !between_providers && self.queue.is_empty() && self.is_recovered();
        if self.is_extension_dropped || is_done { Leftover::Nothing } else { Leftover::Work }
    }

    /// Puts the calls on record that end within `grace`.
    fn let_calls_end(&mut self, grace: Micros) {
        let until = since_boot() + grace;
        while !self.is_extension_dropped && !self.in_flight.is_empty() && since_boot() < until {
            background_worker::reset_latch();
            let waiting = self.retry_at.is_some_and(|at| at > since_boot());
            self.unrecorded.extend(self.http.take_completed());
            if !waiting && !self.unrecorded.is_empty() {
                self.retry_at = None;
                let completed_calls = std::mem::take(&mut self.unrecorded);
                self.complete_calls(completed_calls);
                continue;
            }
            let wake = self.retry_at.filter(|_| waiting).map_or(until, |at| at.min(until));
            lifecycle::sleep(self.http.wakeup(), Some(clock() + wake.since(since_boot())));
        }
    }

    /// Puts the ended calls on record, and the others as unknown. Returns those that could not be put on record.
    fn record_ends(&mut self, aside: Vec<CompletedCall>, why: &str) -> Vec<CompletedCall> {
        let mut completed_calls = aside;
        completed_calls.extend(self.take_aside());
        completed_calls.append(&mut self.unrecorded);
        completed_calls.extend(self.http.take_completed());
        let ended: Vec<u64> = completed_calls.iter().map(|completed| completed.call_id).collect();
        completed_calls
            .extend(self.in_flight.keys().filter(|number| !ended.contains(number)).map(|number| unknown(*number, why)));
        if !self.is_extension_dropped && !completed_calls.is_empty() {
            self.complete_calls(completed_calls);
            // The extension was just dropped, or somebody has a row locked: attempts left in flight become unknown at
            // the next start.
            completed_calls = std::mem::take(&mut self.unrecorded);
            completed_calls.extend(self.take_aside());
        }
        completed_calls
    }

    /// Answers those who wait for calls whose end is not on record: the outcome is unknown.
    fn answer_unknown(&mut self, unrecorded: Vec<CompletedCall>, why: &str) {
        for completed in unrecorded {
            if let Some(call) = self.in_flight.remove(&completed.call_id) {
                let mut row =
                    result_row(call.attempt, call.operation, call.verification, &call.state, Outcome::Unknown);
                row.status = Status::Unknown;
                row.vendor_message = Some(why.to_owned());
                self.respond(call.call_id, &Response::Row(Box::new(row)));
            }
        }
    }

    /// Has those who wait for the end of a queued send ask the next worker.
    fn turn_back_waiters(&mut self) {
        let waiters: Vec<CallId> = self.waiters.drain().flat_map(|(_, call_ids)| call_ids).collect();
        for call_id in waiters {
            self.respond(call_id, &Response::Retry);
        }
    }

    /// Answers the requests that were read and whose turn does not come any more. Returns whether one of them was a
    /// send on its way from one provider of a route to the next, which the next worker settles.
    fn refuse_waiting(&mut self) -> bool {
        let mut waiting: Vec<(CallId, Request)> = std::mem::take(&mut self.pending);
        waiting.extend(self.busy.values_mut().flat_map(std::mem::take));
        let is_failover = |request: &Request| matches!(request, Request::Run(job) if job.action.is_failover());
        let moves_on = waiting.iter().any(|(_, request)| is_failover(request));
        for (call_id, request) in waiting {
            // A request that has nothing sent or checked is asked of the next worker.
            let response = if matches!(request, Request::Run(_)) { stopped() } else { Response::Retry };
            self.respond(call_id, &response);
        }
        moves_on
    }
}
