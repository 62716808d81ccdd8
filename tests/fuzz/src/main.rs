//! Promise: whatever a vendor answers, reading and redacting it never panics and never hangs, lets no value of the call
//! through, and reports no success, no end and no leave to try again that the vendor's page does not know. And whatever
//! a description of a vendor says, reading it never panics, and what is sent by it stays on its host and in its place.
//! Coverage-guided (libFuzzer): `make fuzz`.
//!
//! An input is four bytes (vendor and operation, HTTP status, Retry-After) and a body. In the body stand marks,
//! characters of Unicode's private use, each for one secret of the call in one spelling. After [`DESCRIPTION`] as the
//! first byte it is a description.
#![no_main]

#[path = "../../../crates/dialect/tests/caller/mod.rs"]
mod caller;
mod description;
mod mutate;
#[path = "../../../crates/dialect/tests/page/mod.rs"]
mod page;
mod watch;

use std::{sync::LazyLock, time::Duration};

use caller::{VENDORS, account, caller};
use dialect::{Dialect, HttpResponse, Operation, Outcome, Secret, read_token};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::json;
use watch::Canaries;

/// Before the body.
const HEAD: usize = 4;
/// What comes after it is a description, not an answer.
const DESCRIPTION: u8 = 0xff;
const STATUSES: [u16; 16] = [200, 200, 200, 202, 204, 307, 302, 400, 401, 404, 410, 429, 500, 502, 503, 999];

/// One call whose answer is read.
struct Asked {
    vendor: &'static str,
    dialect: &'static Dialect,
    operation: Operation,
    canaries: Canaries,
    secrets: Vec<Secret>,
}

/// A call of each vendor and operation.
static ASKED: LazyLock<Vec<Asked>> = LazyLock::new(|| {
    let all = VENDORS.iter().flat_map(|vendor| Operation::ALL.map(|operation| (vendor, operation)));
    let there_are = all.filter(|((_, dialect), operation)| dialect.fields(*operation).is_some());
    there_are.map(|((vendor, dialect), operation)| asked(vendor, dialect, operation)).collect()
});

fn asked(vendor: &'static str, dialect: &'static Dialect, operation: Operation) -> Asked {
    let canaries = Canaries::of(vendor, operation);
    let payload = match vendor {
        "iserveu" => json!({
            "mobile": canaries.number, "otp_type": "1", "username": "u", "ovd_type": "Aadhaar Card", "name": "A",
            "ovd_data": canaries.aadhaar, "lat_long": "1.5,2.5", "public_ip": "192.168.1.1"
        }),
        "hyperverge" => json!({"mobile": canaries.number, "template_id": "T1"}),
        "paytm" => json!({"mobile": canaries.number, "mid": "M", "order_id": "O", "token": canaries.token}),
        "relid" => json!({
            "user_id": canaries.number, "user_type": "mobile", "enterprise_id": "E",
            "expires_in": 60, "msg": [{"lng": "en", "subject": "s", "message": "$$OTP$$", "label": {}}],
            "notification_msg": {"message": "m"}, "reference": "03f67f9e-ec4f-11e6-b006-92361f002671"
        }),
        "twilio" => json!({
            "mobile": canaries.number, "reference": "VE0123456789abcdef0123456789abcdef", "rate_limits": {"t": canaries.token}
        }),
        "msg91" => json!({"mobile": canaries.number, "template_id": "T1", "variables": {"t": canaries.token}}),
        "vonage" => json!({
            "mobile": canaries.number, "brand": "B", "reference": "c11236f4-00bf-4b89-84ba-88b25df97315"
        }),
        _ => json!({"mobile": canaries.number, "reference": "3b84346f63899a32"}),
    };
    // What this operation takes is given, the rest is what the verification knows.
    let takes = |name: &str| {
        let mut fields = dialect.fields(operation).unwrap_or_default().into_iter();
        fields.any(|field| field.name == name)
    };
    let (mut given, mut known) = (payload.clone(), payload);
    given.as_object_mut().expect("an object").retain(|name, _| takes(name));
    known.as_object_mut().expect("an object").retain(|name, _| !takes(name));
    let credentials = account(dialect, "an-account", &canaries.token);
    let mut call = caller(vendor, operation).payload(given).known(known).credentials(&credentials);
    if let Some(code) = &canaries.code {
        call = call.code(code);
    }
    let secrets = call.prepared().secrets;
    Asked { vendor, dialect, operation, canaries, secrets }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::mutate(data, size, max_size, seed)
});

fuzz_target!(|input: &[u8]| {
    let Some((head, body)) = input.split_at_checked(HEAD) else { return };
    if head[0] == DESCRIPTION {
        return description::check(body);
    }
    let Asked { vendor, dialect, operation, canaries, secrets } = &ASKED[usize::from(head[0]) % ASKED.len()];
    let status = STATUSES[usize::from(head[1]) % STATUSES.len()];
    let body = canaries.weave(body);
    let retry_after = (head[2] % 2 == 1).then(|| Duration::from_secs(u64::from(head[3])));
    let answer = HttpResponse { status, retry_after, body: &body };

    let reading = dialect::interpret(dialect, *operation, &answer);
    if page::is_good(reading.outcome) {
        assert!(page::says_success(vendor, *operation, status, &body), "a success that the vendor did not say");
    }
    if page::is_end(reading.outcome) && !reading.is_guess && *operation == Operation::Verify {
        assert!(page::names_an_end(vendor, status, &body), "an end that the vendor did not name");
    }
    if reading.outcome == Outcome::ProviderError {
        let was_said = page::says_nothing_was_done(vendor, *operation, status, retry_after.is_some(), &body);
        assert!(was_said, "a call to be made again that may have been carried out");
    }
    // What the product makes of it before it tells anybody or puts anything down.
    let (reading, record) = reading.redacted(dialect, secrets);
    for words in [&reading.vendor_code, &reading.vendor_message].into_iter().flatten() {
        canaries.assert_absent(words);
    }
    if let Some(reference) = &reading.reference {
        canaries.assert_not_in_id(reference);
    }
    if let Some(record) = &record {
        canaries.assert_absent_in(dialect, record);
    }
    match read_token(&answer) {
        Ok(token) => assert!(token.access_token.reveal().bytes().all(|byte| byte.is_ascii_graphic())),
        Err((_, words)) => canaries.assert_absent(&words),
    }
});
