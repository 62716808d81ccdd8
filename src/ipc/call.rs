//! A session's call to the worker, and the errors of calls that were interrupted.

use pgrx::{
    PgLogLevel,
    pg_sys::panic::{CaughtError, ErrorReport},
};
use uuid::Uuid;

use crate::{
    error::Error,
    ipc::{
        message::{self, Request, Response, unexpected},
        session::{self, Unanswered},
    },
    job::{Action, Flow, Job},
};

pub fn call(request: &Request, attempt: Uuid) -> Result<Response, Error> {
    match session::send(&message::write(request), *attempt.as_bytes(), None) {
        Ok(response) => message::read(&response.ok_or_else(unexpected)?),
        // A worker had the request, and no worker comes to tell what became of it.
        Err(Unanswered::Nobody { was_taken: true, .. }) if !attempt.is_nil() => Ok(Response::Unknown),
        Err(Unanswered::Interrupted { error, was_taken }) => match request {
            Request::Run(job) => interrupted(&error, job, was_taken),
            _ => error.rethrow(),
        },
        Err(unanswered) => Err(unanswered.error()),
    }
}

/// Returns a copy of Postgres' own error, to which a detail and a hint can be added.
fn raised_anew(error: &CaughtError) -> ErrorReport {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    ErrorReport::new(report.sql_error_code(), report.message().to_owned(), "otp_gateway")
}

/// Raises Postgres' own error for a session that waited for another call, and says where that call's outcome is. None:
/// the other call's verification is not on record, and may never be.
pub fn interrupted_wait(error: &CaughtError, verification: Option<Uuid>) -> ! {
    let (which, or_wait) = match verification {
        Some(id) => (
            format!(": verification {id}"),
            format!(", or SELECT * FROM otp_gateway.wait('{id}'): either has its outcome"),
        ),
        None => (String::new(), ": it has that one's outcome, or sends if there is none".to_owned()),
    };
    raised_anew(error)
        .set_detail(format!("It waited for another call, and sent nothing itself{which}."))
        .set_hint(format!("Call again with the same idempotency_key{or_wait}."))
        .report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Raises Postgres' own error, and says what has become of the call that nobody waits for any more.
pub fn interrupted(error: &CaughtError, job: &Job, was_taken: bool) -> ! {
    let again = raised_anew(error);
    let operation = job.operation().as_str();
    if !was_taken {
        again.set_detail(format!("The {operation} was not handed over; nothing was sent.")).report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return");
    }
    let attempt = job.attempt;
    let id = job.action.verification();
    let verification = match &job.action {
        // Only the worker finds out which verification it is.
        Action::Verify(Flow::Lookup { .. }) => String::new(),
        _ => format!("verification {id}, "),
    };
    let hint = match &job.action {
        Action::Send(send) if send.idempotency.is_some() => format!(
            "Call again with the same idempotency_key, or SELECT * FROM otp_gateway.wait('{id}'): either has its \
            outcome."
        ),
        Action::Send(_) => format!(
            "SELECT * FROM otp_gateway.wait('{id}') has its outcome. Another otp_send is another message, unless both \
            have one idempotency_key."
        ),
        Action::Resend { .. } => format!("SELECT * FROM otp_gateway.wait('{id}') has its outcome."),
        Action::Verify(_) | Action::Cancel(_) => {
            format!("SELECT outcome FROM otp_gateway.attempt WHERE id = '{attempt}': null until it has one.")
        }
    };
    again
        .set_detail(format!("The {operation} was handed over and goes on: {verification}attempt {attempt}."))
        .set_hint(hint)
        .report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}
