//! Promise: an application can be developed and tested at the sandbox as at a vendor, with no account and no network:
//! the sandbox ends each call as the payload says, else takes the one right code, and knows one person under every
//! spelling.

mod caller;

use std::time::Duration;

use caller::{VERIFICATION, caller, keep, members, message};
use dialect::{FindBy, Operation, Operation::*, Outcome, Secret, by_name, check_defaults};
use serde_json::json;

#[test]
fn a_send_is_answered_without_a_call() {
    let sent = caller("sandbox", Send).payload(json!({"mobile": "077-123 4567"})).prepared();
    assert_eq!(sent.local_outcome, Some(Outcome::Sent));
    assert_eq!(message(&sent.request), "/\n");
    assert!(sent.cancel_first.is_none());
    assert_eq!(sent.recipient, Some(Secret::new("+94771234567")));
    assert_eq!(sent.recipient_masked.as_deref(), Some("+94*****4567"));
    assert_eq!(sent.reference.as_deref(), Some(VERIFICATION));
    assert_eq!(keep(&sent), json!({"mobile": "+94771234567", "reference": VERIFICATION}));
    let spellings = ["+94771234567", "94771234567", "771234567", "0771234567", "077-123 4567"];
    assert!(spellings.iter().all(|spelling| sent.secrets.contains(&Secret::new(*spelling))), "for redaction");
}

#[test]
fn every_spelling_is_one_recipient() {
    for (typed, recipient) in [
        (json!("tel:94771234567"), "+94771234567"),
        (json!(771234567), "+94771234567"),
        (json!("0094771234567"), "+94771234567"),
        (json!("8144094480"), "+918144094480"),
        (json!(918144094480_u64), "+918144094480"),
        (json!("+91 81440 94480"), "+918144094480"),
        (json!("+44 20 7946 0958"), "+442079460958"),
        (json!("+442079460958"), "+442079460958"),
    ] {
        let sent = caller("sandbox", Send).payload(json!({"mobile": typed})).prepared();
        assert_eq!(sent.recipient, Some(Secret::new(recipient)));
        assert_eq!(sent.retained["mobile"], recipient);
    }
    for typed in ["", "+1234567", "2079460958x", "442079460958", "+940771234567", "tel:all"] {
        let refused = caller("sandbox", Send).payload(json!({"mobile": typed})).refused();
        assert_eq!(refused.message, "mobile does not follow its rule");
    }
}

#[test]
fn the_code_is_the_mappings_or_six_noughts() {
    let verify = |code: &str| caller("sandbox", Verify).payload(json!({"reference": "r"})).code(code);
    assert_eq!(verify("000000").prepared().local_outcome, Some(Outcome::Approved));
    assert_eq!(verify("123456").prepared().local_outcome, Some(Outcome::InvalidCode));
    assert_eq!(verify("0000000").prepared().local_outcome, Some(Outcome::InvalidCode));
    let mapped = |code| verify(code).credentials(&[("code", "4711")]);
    assert_eq!(mapped("4711").prepared().local_outcome, Some(Outcome::Approved));
    assert_eq!(mapped("000000").prepared().local_outcome, Some(Outcome::InvalidCode));
    assert!(mapped("000000").prepared().secrets.contains(&Secret::new("4711")));
}

#[test]
fn a_flow_is_known_by_its_reference_or_its_recipient() {
    let sent = caller("sandbox", Send).payload(json!({"mobile": "8144094480", "reference": 77})).prepared();
    assert_eq!(sent.reference.as_deref(), Some("77"));
    for operation in [Verify, Resend, Cancel] {
        let next = caller("sandbox", operation).known(keep(&sent)).prepared();
        assert_eq!(next.reference.as_deref(), Some("77"));
        assert_eq!(next.recipient, Some(Secret::new("+918144094480")));
        assert_eq!(next.find_by, FindBy::Reference);
        assert_eq!(next.retained, sent.retained);
        for change in [json!({"mobile": "8144094481"}), json!({"reference": "78"})] {
            let refused = caller("sandbox", operation).known(keep(&sent)).payload(change).refused();
            assert!(refused.message.ends_with("belongs to the verification and cannot change"));
        }
    }
    let elsewhere = caller("sandbox", Verify).payload(json!({"mobile": "8144094480"})).prepared();
    assert_eq!((elsewhere.find_by, elsewhere.reference), (FindBy::Recipient, None));
    assert_eq!(caller("sandbox", Verify).refused().field, "reference");
}

#[test]
fn a_call_ends_as_it_was_told_to() {
    let mut told = Vec::new();
    for operation in Operation::ALL {
        for outcome in Outcome::ALL {
            let call = caller("sandbox", operation)
                .known(json!({"mobile": "+918144094480", "reference": "r"}))
                .payload(json!({"outcome": outcome.as_str()}));
            match call.prepare() {
                Ok(prepared) => {
                    assert_eq!(prepared.local_outcome, Some(outcome));
                    assert!(!prepared.retained.contains_key("outcome"), "it is for this call alone");
                    told.push(outcome);
                }
                Err(refused) => assert_eq!(refused.field, "outcome"),
            }
        }
    }
    // Only the gateway itself ends a call as blocked, by its own policy.
    assert!(Outcome::ALL.iter().all(|outcome| told.contains(outcome) != (*outcome == Outcome::Blocked)));
}

#[test]
fn an_outcome_that_cannot_be_is_refused_with_those_that_can() {
    for (operation, outcome) in
        [(Send, "approved"), (Send, "canceled"), (Verify, "sent"), (Cancel, "approved"), (Resend, "invalid_code")]
    {
        let payload = json!({"mobile": "8144094480", "outcome": outcome});
        let refused = caller("sandbox", operation).payload(payload).refused();
        assert_eq!(refused.message, "outcome does not follow its rule");
        assert!(refused.hint.starts_with("outcome: one of ") && !refused.hint.contains(&format!(" {outcome},")));
    }
    let defaults = members(json!({"outcome": "sent"}));
    assert_eq!(check_defaults(by_name("sandbox").unwrap(), &defaults).unwrap_err().field, "outcome");
}

#[test]
fn it_needs_no_account_and_no_wait() {
    let sandbox = by_name("sandbox").unwrap();
    assert_eq!(sandbox.credential_sets, [&["code"][..], &[]]);
    assert_eq!(sandbox.resend_after, Duration::ZERO);
    assert_eq!(sandbox.code_lifetime, Some(Duration::from_secs(600)));
    assert_eq!(sandbox.max_checks, 5);
    // A vendor's wait between two sends is not made up.
    for vendor in dialect::DIALECTS.iter().filter(|vendor| vendor.name != "sandbox") {
        assert_eq!(vendor.resend_after, Duration::from_secs(30), "{}", vendor.name);
    }
    let real = caller("ideamart", Send).payload(json!({"mobile": "0771234567"})).prepared();
    assert_eq!(real.local_outcome, None);
}
