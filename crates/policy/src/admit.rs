use dialect::{Operation, Outcome};

use crate::{status::Status, time::Timestamp, verification::Verification};

/// Lets an operation on a verification go, and books what it costs; or says how the operation ends without a call.
pub fn admit(operation: Operation, verification: &mut Verification, now: Timestamp) -> Result<(), Outcome> {
    if let Some(outcome) = outcome_if_closed(operation, verification.status) {
        return Err(outcome);
    }
    // Nobody but us knows of a queued send yet, so that it can be canceled whatever the vendor can do.
    if operation == Operation::Cancel && verification.status == Status::Queued {
        verification.status = Status::Canceled;
        return Err(Outcome::Canceled);
    }
    // With the code ends what a resend needs of its send; that a cancel comes late does not matter.
    let needs_code = matches!(operation, Operation::Verify | Operation::Resend);
    if needs_code && verification.expires_at.is_some_and(|end| end <= now) {
        verification.status = Status::Expired;
        return Err(Outcome::Expired);
    }
    match operation {
        Operation::Verify => {
            if verification.check_count >= verification.max_checks {
                verification.status = Status::MaxAttemptsReached;
                return Err(Outcome::MaxAttemptsReached);
            }
            verification.check_count += 1;
        }
        Operation::Send | Operation::Resend => verification.send_count += 1,
        Operation::Cancel => {}
    }
    Ok(())
}

/// Returns how an operation ends, from the record alone, for which the verification is no longer, or not yet, open.
/// Returns None if the verification is open.
pub fn outcome_if_closed(operation: Operation, status: Status) -> Option<Outcome> {
    Some(match status {
        // A code approved once is never approved twice.
        Status::Approved => Outcome::AlreadyUsed,
        Status::Expired => Outcome::Expired,
        Status::MaxAttemptsReached => Outcome::MaxAttemptsReached,
        Status::Canceled if operation == Operation::Cancel => Outcome::Canceled,
        Status::Canceled | Status::Failed => Outcome::NotFound,
        Status::Blocked => Outcome::Blocked,
        // There is no code yet, to check or to send again.
        Status::Queued if matches!(operation, Operation::Verify | Operation::Resend) => Outcome::NotFound,
        Status::Queued | Status::Sending | Status::Pending | Status::Unknown => return None,
    })
}
