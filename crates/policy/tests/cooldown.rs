//! Promise to the user: no second message inside `resend_after`, and the wait that is told is the wait that is left.

use policy::{Timestamp, cooldown};

const NOW: Timestamp = Timestamp(838_000_000_000_000);
const WAIT: i64 = 30_000_000;

#[test]
fn the_wait_is_what_is_left() {
    for (resend_after, last_send, left) in [
        (WAIT, None, None),
        (WAIT, Some(NOW), Some(WAIT)),
        (WAIT, Some(NOW - 1), Some(WAIT - 1)),
        (WAIT, Some(NOW - WAIT + 1), Some(1)),
        (WAIT, Some(NOW - WAIT), None),
        (WAIT, Some(NOW - WAIT - 1), None),
        (WAIT, Some(Timestamp(i64::MIN)), None),
        // The clock was set back: the send counts as if it had happened now.
        (WAIT, Some(NOW + 1), Some(WAIT)),
        (WAIT, Some(Timestamp::MAX), Some(WAIT)),
        (0, None, None),
        (0, Some(NOW), None),
        (0, Some(NOW + 1), None),
        (1, Some(NOW), Some(1)),
    ] {
        assert_eq!(cooldown(resend_after, last_send, NOW), left, "{resend_after} after {last_send:?}");
    }
}

#[test]
fn obeying_the_wait_succeeds_and_no_less_does() {
    for age in (0..WAIT).step_by(7_919) {
        let last_send = Some(NOW - age);
        let left = cooldown(WAIT, last_send, NOW).unwrap();
        assert_eq!(cooldown(WAIT, last_send, NOW + left), None);
        assert_eq!(cooldown(WAIT, last_send, NOW + left - 1), Some(1));
    }
}
