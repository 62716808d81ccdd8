//! Promise to the user: nothing is sent to a number outside the allowed prefixes, nor to an address outside the allowed
//! domains.

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
        // Prefixes say nothing of addresses, and domains nothing of numbers.
        ("+91", "asha@example.org", false),
        ("@", "asha@example.org", true),
        ("@", "+919999900001", false),
        ("+91, @example.org", "asha@example.org", true),
        ("+91, @Example.ORG", "Asha@example.org", true),
        ("+91, @example.org", "+919999900001", true),
        ("+91, @example.org", "+94771234567", false),
        ("@example.org", "asha@mail.example.org", false),
        ("@example.org", "asha@badexample.org", false),
        ("@example.org", "example.org@example.net", false),
        ("@example.org", "", false),
        ("+91", "", false),
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
        // A prefix within another is kept: it may be there for people to read.
        ("+94, +9477", "+94, +9477"),
        ("+1", "+1"),
        ("+123456789012345", "+123456789012345"),
        ("@Example.org, @example.org,+94", "@example.org, +94"),
        ("@", "@"),
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
        ("@example", 1),
        ("@@", 1),
        ("@.org", 1),
        ("@example.org.", 1),
        ("asha@example.org", 1),
        ("@exa mple.org", 1),
        ("@example.org@example.net", 1),
    ] {
        let refused = typed.parse::<AllowedPrefixes>().expect_err(typed);
        assert_eq!(
            refused.message,
            format!("prefix {place} is neither '+' and 1 to 15 digits nor '@' and a domain"),
            "{typed}"
        );
        assert!(refused.hint.starts_with("For example: '+91, +94'"), "{}", refused.hint);
    }
}
