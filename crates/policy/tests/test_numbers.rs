//! Promise to the user: a test number takes its own code, and no error and no log shows a code.

use policy::TestNumbers;

#[test]
fn each_number_takes_its_own_code() {
    let long = "x".repeat(64);
    let text = format!(" +919999900001=123456 ,+94770000001 = 0000,\n+12345678={long},+123456789012345=!\"#'~;");
    let numbers: TestNumbers = text.parse().unwrap();
    for (recipient, code) in [
        ("+919999900001", Some("123456")),
        ("+94770000001", Some("0000")),
        ("+12345678", Some(long.as_str())),
        ("+123456789012345", Some("!\"#'~;")),
        ("+919999900002", None),
        ("+91999990000", None),
        ("919999900001", None),
        ("", None),
    ] {
        assert_eq!(numbers.code_of(recipient), code, "{recipient}");
    }
}

#[test]
fn the_numbers_can_be_shown_without_their_codes() {
    let numbers: TestNumbers = "+94770000001=0000,+919999900001=123456".parse().unwrap();
    assert_eq!(numbers.masked(), "+919999900001=***, +94770000001=***");
}

#[test]
fn a_hundred_are_taken_and_no_more() {
    let listed = |count: u32| (0..count).map(|n| format!("+9477{n:07}=0000")).collect::<Vec<_>>().join(",");
    assert_eq!(listed(100).parse::<TestNumbers>().unwrap().code_of("+94770000099"), Some("0000"));
    let refused = listed(101).parse::<TestNumbers>().unwrap_err();
    assert_eq!(refused.message, "test number 101 is one too many: at most 100 are taken");
}

#[test]
fn what_is_no_test_number_is_refused_with_the_form() {
    const FORM: &str = "is not of the form '<number>=<code>'";
    const NUMBER: &str = "does not begin with '+' and 8 to 15 digits";
    const CODE: &str = "has a code that is not 1 to 64 printable ASCII characters without ' ', ',' and '='";
    const TWICE: &str = "is the same number as one before it";
    let too_long = format!("+919999900001={}", "7".repeat(65));
    for (typed, place, what) in [
        ("", 1, FORM),
        ("+919999900001", 1, FORM),
        ("+919999900001:777777", 1, FORM),
        ("+919999900001=777777,", 2, FORM),
        ("+919999900001=777777,,", 2, FORM),
        ("=777777", 1, NUMBER),
        ("919999900001=777777", 1, NUMBER),
        ("777777=+919999900001", 1, NUMBER),
        ("+1234567=777777", 1, NUMBER),
        ("+1234567890123456=777777", 1, NUMBER),
        ("+91 9999900001=777777", 1, NUMBER),
        ("++919999900001=777777", 1, NUMBER),
        ("+९१९९९९९०=777777", 1, NUMBER),
        ("+919999900001=", 1, CODE),
        ("+919999900001= ", 1, CODE),
        ("+919999900001=777 777", 1, CODE),
        ("+919999900001=777=777", 1, CODE),
        ("+919999900001=777\u{7f}777", 1, CODE),
        ("+919999900001=७७७७७७", 1, CODE),
        (&too_long, 1, CODE),
        ("+919999900001=777777, +919999900001=777777", 2, TWICE),
        ("+919999900001=777777, +94770000001=777777, +919999900001=777778", 3, TWICE),
    ] {
        let refused = typed.parse::<TestNumbers>().expect_err(typed);
        assert_eq!(refused.message, format!("test number {place} {what}"), "{typed}");
        assert_eq!(refused.hint, "For example: '+919999900001=123456, +94770000001=0000'.");
        let shown = format!("{refused:?}");
        assert!(!shown.contains("777") && !shown.contains('७'), "{shown}");
    }
}

#[test]
fn debug_shows_no_code() {
    let numbers: TestNumbers = "+919999900001=777777, +94770000001=s3cr3t".parse().unwrap();
    for shown in [format!("{numbers:?}"), format!("{numbers:#?}")] {
        assert!(!shown.contains("777777") && !shown.contains("s3cr3t"), "{shown}");
    }
}
