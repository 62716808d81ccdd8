use dialect::{CallResult, Operation, Outcome};

use crate::{
    status::Status,
    time::{Micros, Timestamp},
    verification::Verification,
};

/// Everything that decides what an answer makes of the verification.
pub struct ResultContext<'a> {
    pub operation: Operation,
    pub result: &'a CallResult,
    /// The status before this attempt.
    pub before: Status,
    /// Whether the old code was voided on the way to a new one (REL-ID's resend), whatever became of the new one.
    pub voided: bool,
    /// Whether the vendor sent the code that it had sent before, whose life has begun.
    pub keeps_code: bool,
    /// How long a code lives from the moment at which it was sent.
    pub code_lifetime: Option<Micros>,
    pub now: Timestamp,
}

/// Returns what an outcome means once the code's time is over: a vendor that forgets the code then says `not_found`,
/// and the record knows better.
pub fn outcome_in_time(
    operation: Operation,
    outcome: Outcome,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Outcome {
    match (operation, outcome) {
        (Operation::Verify, Outcome::NotFound) if expires_at.is_some_and(|end| end <= now) => Outcome::Expired,
        _ => outcome,
    }
}

/// Brings the verification from where [`crate::admit()`] left it to where the answer puts it.
pub fn apply_result(verification: &mut Verification, context: &ResultContext) {
    let ResultContext { operation, result, before, voided, keeps_code, code_lifetime, now } = *context;
    match operation {
        Operation::Send | Operation::Resend => {
            verification.status = match result.outcome {
                Outcome::Sent => Status::Pending,
                // The code may have reached the person: a verify stays possible.
                Outcome::Unknown => Status::Unknown,
                // The vendor has no code any more that could be sent again, whatever we thought of its time.
                Outcome::Expired if operation == Operation::Resend && !result.is_guess => Status::Expired,
                _ if operation == Operation::Resend && !voided => before,
                _ => Status::Failed,
            };
            if matches!(result.outcome, Outcome::Sent | Outcome::Unknown) {
                if !keeps_code {
                    verification.expires_at = code_lifetime.map(|lifetime| now + lifetime);
                }
                if let Some(reference) = &result.reference {
                    verification.reference = Some(reference.clone());
                }
            }
        }
        Operation::Verify => {
            if !spends_a_check(result.outcome) {
                verification.check_count = verification.check_count.saturating_sub(1);
            }
            let are_spent = verification.check_count >= verification.max_checks;
            verification.status = match result.outcome {
                Outcome::Approved => {
                    verification.approved_at = Some(now);
                    Status::Approved
                }
                Outcome::Unknown => Status::Unknown,
                outcome if !spends_a_check(outcome) => before,
                // These are the ends that the vendor's page names. Anything else is one code that was tried, whatever
                // it is called.
                Outcome::Expired if !result.is_guess => Status::Expired,
                Outcome::MaxAttemptsReached if !result.is_guess => Status::MaxAttemptsReached,
                Outcome::AlreadyUsed | Outcome::NotFound if !result.is_guess => Status::Failed,
                _ if are_spent || result.attempts_left == Some(0) => Status::MaxAttemptsReached,
                _ => before,
            };
        }
        Operation::Cancel => {
            verification.status = match result.outcome {
                Outcome::Canceled => Status::Canceled,
                Outcome::Expired if !result.is_guess => Status::Expired,
                _ => before,
            };
        }
    }
}

/// Returns whether a send with this outcome went out, or may have: it counts against limits, and its sender is no
/// stranger.
pub fn counts_as_sent(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Sent | Outcome::Unknown)
}

/// Returns whether the vendor may have compared the code.
pub fn may_have_compared(outcome: Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Unreachable
            | Outcome::RateLimited
            | Outcome::InvalidRequest
            | Outcome::AuthFailed
            | Outcome::ProviderError
            | Outcome::Blocked
    )
}

/// Returns whether a check is spent. If the vendor certainly compared nothing, the reserved check is given back; a
/// right code never spends one.
pub fn spends_a_check(outcome: Outcome) -> bool {
    may_have_compared(outcome) && outcome != Outcome::Approved
}
