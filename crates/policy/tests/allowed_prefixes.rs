//! Promise to the user: nothing is sent to a number outside the allowed prefixes.

use policy::AllowedPrefixes;

#[test]
fn only_listed_prefixes_are_allowed() {
    for (prefixes, recipient, allowed) in [
        ("+91, +94", "+94771234567", true),
        ("+91, +94", "+919999900001", true),
        ("+91, +94", "+9", false),
        ("+91, +94", "+", false),
        ("+91, +94", "+4479460000", false),
        ("+91, +94", "+191", false),
        ("+9477", "+94771234567", true),
        ("+9477", "+94711234567", false),
        ("+94771234567", "+94771234567", true),
        ("+94771234567", "+9477123456", false),
        // A user's id is no number, even where it is made of digits.
        ("+91", "alice", true),
        ("+91", "94771234567", true),
        ("+91", "", true),
    ] {
        assert_eq!(prefixes.parse::<AllowedPrefixes>().unwrap().allows(recipient), allowed, "{prefixes}: {recipient}");
    }
}

#[test]
fn every_form_has_one_canonical_text() {
    for (typed, canonical) in [
        ("+91, +94", "+91, +94"),
        ("+94,+91", "+94, +91"),
        ("  +91 ,\n+94\t", "+91, +94"),
        ("+91, +91, +94, +91", "+91, +94"),
        // One within another is kept: it may be there to be read.
        ("+94, +9477", "+94, +9477"),
        ("+1", "+1"),
        ("+123456789012345", "+123456789012345"),
    ] {
        let parsed: AllowedPrefixes = typed.parse().unwrap();
        assert_eq!(parsed.to_string(), canonical, "{typed}");
        assert_eq!(canonical.parse(), Ok(parsed), "{typed}");
    }
}

#[test]
fn what_is_no_prefix_is_refused_with_the_form() {
    for (typed, place) in [
        ("", 1),
        (" ", 1),
        ("+", 1),
        ("91", 1),
        ("0094", 1),
        ("++91", 1),
        ("+9 1", 1),
        ("+ 91", 1),
        ("+91-", 1),
        ("+९१", 1),
        ("+1234567890123456", 1),
        ("+91 +94", 1),
        ("+91;+94", 1),
        ("+91,", 2),
        ("+91,,+94", 2),
        ("+91, 94", 2),
        ("+91, +94, *", 3),
    ] {
        let refused = typed.parse::<AllowedPrefixes>().expect_err(typed);
        assert_eq!(refused.message, format!("prefix {place} is not '+' and 1 to 15 digits"), "{typed}");
        assert_eq!(refused.hint, "For example: '+91, +94'.");
    }
}
