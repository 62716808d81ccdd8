//! Promise to the user: checks are counted whatever happens, a terminal verification never reopens, and what nobody can
//! know stays open as `unknown`.

use dialect::{CallResult, Operation, Outcome};
use policy::{
    ResultContext, Status, Timestamp, Verification, admit, apply_result, outcome_if_closed, outcome_in_time, retryable,
};

const NOW: Timestamp = Timestamp(1_000_000);

fn result(outcome: Outcome) -> CallResult {
    CallResult::new(outcome, None, None)
}

fn pending(max_checks: u32) -> Verification {
    let mut verification = Verification::sending(max_checks);
    end(&mut verification, Operation::Send, Status::Sending, &result(Outcome::Sent));
    verification
}

fn end(verification: &mut Verification, operation: Operation, before: Status, result: &CallResult) {
    let conclusion = ResultContext {
        operation,
        result,
        before,
        voided: false,
        keeps_code: false,
        code_lifetime: Some(60_000_000),
        now: NOW,
    };
    apply_result(verification, &conclusion);
}

/// Makes one verify from its intent to its end, and returns how it ended.
fn verify(verification: &mut Verification, outcome: Outcome) -> Outcome {
    let before = verification.status;
    match admit(Operation::Verify, verification, NOW) {
        Err(refused) => refused,
        Ok(()) => {
            end(verification, Operation::Verify, before, &result(outcome));
            outcome
        }
    }
}

#[test]
fn five_wrong_codes_leave_no_sixth() {
    let mut verification = pending(5);
    for left in (0..5).rev() {
        assert_eq!(verify(&mut verification, Outcome::InvalidCode), Outcome::InvalidCode);
        assert_eq!(verification.attempts_left(), left);
    }
    assert_eq!(verification.status, Status::MaxAttemptsReached);
    assert_eq!(verify(&mut verification, Outcome::Approved), Outcome::MaxAttemptsReached);
}

#[test]
fn the_right_code_passes_on_the_last_try() {
    let mut verification = pending(5);
    for _ in 0..4 {
        verify(&mut verification, Outcome::InvalidCode);
    }
    assert_eq!(verify(&mut verification, Outcome::Approved), Outcome::Approved);
    assert_eq!((verification.status, verification.approved_at), (Status::Approved, Some(NOW)));
    // The right code spends no check.
    assert_eq!(verification.check_count, 4);
    assert_eq!(verify(&mut verification, Outcome::Approved), Outcome::AlreadyUsed);
}

#[test]
fn a_check_is_given_back_only_where_nothing_was_compared() {
    for outcome in Outcome::ALL {
        let mut verification = pending(3);
        verify(&mut verification, outcome);
        let nothing_was_compared = matches!(
            outcome,
            Outcome::Unreachable
                | Outcome::RateLimited
                | Outcome::InvalidRequest
                | Outcome::AuthFailed
                | Outcome::ProviderError
                | Outcome::Blocked
                | Outcome::Approved
        );
        assert_eq!(verification.check_count == 0, nothing_was_compared, "{outcome:?}");
    }
}

/// Returns the status and the checks left after a code whose answer was read so; `is_guess`: by words that no page
/// lists.
fn status_after(outcome: Outcome, is_guess: bool, max_checks: u32) -> (Status, u32) {
    let mut verification = pending(max_checks);
    admit(Operation::Verify, &mut verification, NOW).unwrap();
    let result = CallResult { is_guess, ..result(outcome) };
    end(&mut verification, Operation::Verify, Status::Pending, &result);
    (verification.status, verification.attempts_left())
}

#[test]
fn only_what_the_page_names_as_an_end_ends_a_verification() {
    for outcome in Outcome::ALL {
        let (as_named, as_guessed) = match outcome {
            Outcome::Approved => (Status::Approved, Status::Approved),
            Outcome::Unknown => (Status::Unknown, Status::Unknown),
            Outcome::Expired => (Status::Expired, Status::Pending),
            Outcome::MaxAttemptsReached => (Status::MaxAttemptsReached, Status::Pending),
            Outcome::AlreadyUsed | Outcome::NotFound => (Status::Failed, Status::Pending),
            // Above all refused: a wrong code in words that nobody foresaw.
            _ => (Status::Pending, Status::Pending),
        };
        assert_eq!(status_after(outcome, false, 3).0, as_named, "{outcome:?}");
        assert_eq!(status_after(outcome, true, 3).0, as_guessed, "{outcome:?}");
    }
}

#[test]
fn whatever_may_have_been_a_guess_at_the_code_is_one_and_the_last_one_ends() {
    for outcome in
        [Outcome::Refused, Outcome::Expired, Outcome::AlreadyUsed, Outcome::NotFound, Outcome::MaxAttemptsReached]
    {
        assert_eq!(status_after(outcome, true, 3), (Status::Pending, 2), "{outcome:?}");
        assert_eq!(status_after(outcome, true, 1), (Status::MaxAttemptsReached, 0), "{outcome:?}");
        // Until the checks are spent, the right code is still good.
        let mut verification = pending(3);
        for _ in 0..2 {
            admit(Operation::Verify, &mut verification, NOW).unwrap();
            let result = CallResult { is_guess: true, ..result(outcome) };
            end(&mut verification, Operation::Verify, Status::Pending, &result);
        }
        assert_eq!(verify(&mut verification, Outcome::Approved), Outcome::Approved);
        assert_eq!(verification.status, Status::Approved);
    }
    assert_eq!(status_after(Outcome::Refused, false, 1), (Status::MaxAttemptsReached, 0));
    // Nobody knows whether the last code was right: no more are let through, and the verification stays open.
    assert_eq!(status_after(Outcome::Unknown, false, 1), (Status::Unknown, 0));
}

#[test]
fn a_check_under_way_is_spent() {
    let mut verification = pending(1);
    admit(Operation::Verify, &mut verification, NOW).unwrap();
    // A crash here leaves the check spent.
    assert_eq!(admit(Operation::Verify, &mut verification, NOW), Err(Outcome::MaxAttemptsReached));
}

#[test]
fn terminal_ones_never_reopen() {
    for status in Status::ALL {
        for operation in Operation::ALL {
            // A queued verification has no code yet, to check or to send again.
            let has_no_code = status == Status::Queued && matches!(operation, Operation::Verify | Operation::Resend);
            let answers = status.is_terminal() || has_no_code;
            assert_eq!(outcome_if_closed(operation, status).is_some(), answers, "{operation:?} {status:?}");
            let mut verification = Verification { status, ..pending(3) };
            if status.is_terminal() {
                let before = verification.clone();
                assert!(admit(operation, &mut verification, NOW).is_err());
                assert_eq!(verification, before);
                assert_ne!(outcome_if_closed(operation, status), Some(Outcome::Approved));
                assert_ne!(outcome_if_closed(operation, status), Some(Outcome::Sent));
            }
        }
    }
}

#[test]
fn an_old_code_is_expired_without_a_call() {
    let late = NOW + 60_000_000;
    for operation in [Operation::Verify, Operation::Resend] {
        let mut verification = pending(3);
        assert_eq!(admit(operation, &mut verification.clone(), late - 1), Ok(()));
        assert_eq!(admit(operation, &mut verification, late), Err(Outcome::Expired));
        assert_eq!(verification.status, Status::Expired);
    }
    assert_eq!(admit(Operation::Cancel, &mut pending(3), late), Ok(()));
}

#[test]
fn a_vendor_that_forgot_an_old_code_says_that_it_is_old() {
    for operation in Operation::ALL {
        for outcome in Outcome::ALL {
            assert_eq!(outcome_in_time(operation, outcome, None, Timestamp(100)), outcome);
            assert_eq!(outcome_in_time(operation, outcome, Some(Timestamp(101)), Timestamp(100)), outcome);
            let is_meant = operation == Operation::Verify && outcome == Outcome::NotFound;
            let told = if is_meant { Outcome::Expired } else { outcome };
            assert_eq!(outcome_in_time(operation, outcome, Some(Timestamp(100)), Timestamp(100)), told);
        }
    }
}

#[test]
fn a_code_that_is_sent_again_lives_no_longer_for_it() {
    for outcome in Outcome::ALL {
        for keeps_code in [true, false] {
            let mut verification = pending(3);
            let end = verification.expires_at;
            admit(Operation::Resend, &mut verification, NOW).unwrap();
            let conclusion = ResultContext {
                operation: Operation::Resend,
                result: &result(outcome),
                before: Status::Pending,
                voided: false,
                keeps_code,
                code_lifetime: Some(60_000_000),
                now: NOW + 30_000_000,
            };
            apply_result(&mut verification, &conclusion);
            let is_new = !keeps_code && matches!(outcome, Outcome::Sent | Outcome::Unknown);
            assert_eq!(verification.expires_at != end, is_new, "{outcome:?}");
        }
    }
}

#[test]
fn every_end_of_a_send() {
    for outcome in Outcome::ALL {
        let mut verification = Verification::sending(3);
        end(&mut verification, Operation::Send, Status::Sending, &result(outcome));
        let expected = match outcome {
            Outcome::Sent => Status::Pending,
            Outcome::Unknown => Status::Unknown,
            _ => Status::Failed,
        };
        assert_eq!(verification.status, expected, "{outcome:?}");
        assert_eq!(verification.expires_at.is_some(), !expected.is_terminal(), "{outcome:?}");
    }
}

#[test]
fn a_resend_that_failed_leaves_the_old_code_unless_it_was_voided() {
    for (voided, expected) in [(false, Status::Pending), (true, Status::Failed)] {
        let mut verification = pending(3);
        admit(Operation::Resend, &mut verification, NOW).unwrap();
        verification.status = Status::Sending;
        let result = result(Outcome::Refused);
        let conclusion = ResultContext {
            operation: Operation::Resend,
            result: &result,
            before: Status::Pending,
            voided,
            keeps_code: false,
            code_lifetime: None,
            now: NOW,
        };
        apply_result(&mut verification, &conclusion);
        assert_eq!((verification.status, verification.send_count), (expected, 2));
    }
}

#[test]
fn what_a_vendor_says_is_over_is_over_before_its_time() {
    for operation in [Operation::Verify, Operation::Resend, Operation::Cancel] {
        for (is_guess, expected) in [(false, Status::Expired), (true, Status::Pending)] {
            let mut verification = pending(3);
            admit(operation, &mut verification, NOW).unwrap();
            let result = CallResult { is_guess, ..result(Outcome::Expired) };
            end(&mut verification, operation, Status::Pending, &result);
            assert_eq!(verification.status, expected, "{operation:?}");
        }
    }
}

#[test]
fn the_vendor_may_allow_fewer_checks_than_we_do() {
    let mut verification = pending(5);
    admit(Operation::Verify, &mut verification, NOW).unwrap();
    let none_left = CallResult { attempts_left: Some(0), ..result(Outcome::InvalidCode) };
    end(&mut verification, Operation::Verify, Status::Pending, &none_left);
    assert_eq!(verification.status, Status::MaxAttemptsReached);
}

#[test]
fn what_may_be_repeated() {
    for outcome in Outcome::ALL {
        let expected = matches!(outcome, Outcome::Unreachable | Outcome::RateLimited | Outcome::ProviderError);
        assert_eq!(retryable(Operation::Send, outcome, 0), expected, "send {outcome:?}");
    }
    assert!(!retryable(Operation::Verify, Outcome::ProviderError, 3));
    assert!(retryable(Operation::Verify, Outcome::InvalidCode, 1));
    assert!(!retryable(Operation::Verify, Outcome::InvalidCode, 0));
    assert!(!retryable(Operation::Verify, Outcome::Unknown, 3));
}
