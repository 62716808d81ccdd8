//! Descriptions of vendors, most of them wrong: none panics, and by none that is taken a message leaves its place.

use std::collections::BTreeMap;

use dialect::{Call, Dialect, HttpRequest, HttpResponse, Operation, Outcome, Secret, described, interpret};
use serde_json::{Map, Value, json};

/// A whole one, short enough to be mutated: that of docs/rest.md, and what it does not show.
pub fn whole() -> Value {
    let page = include_str!("../../../docs/rest.md");
    let block =
        page.split("   ```json\n").nth(1).and_then(|block| block.split("   ```").next()).expect("a description");
    let mut whole: Value = serde_json::from_str(block).expect("JSON");
    whole["fields"]["note"] = json!({"rule": "message"});
    whole["operations"]["send"]["headers"] = json!({"X-Note": "{note}"});
    whole["operations"]["cancel"] = json!({"method": "DELETE", "path": "/v1/{reference}", "query": {"note": "{note}"}});
    whole["operations"]["resend"] = json!({"path": "/v1/{reference}/again", "form": {"note": "{note}"}});
    if let Err(invalid) = described(&whole.to_string()) {
        panic!("{invalid:?}");
    }
    whole
}

/// What a person, a vendor or a mapping may bring.
const HOSTILE: [&str; 8] = ["..", "a/../..", "@evil.example", "//evil.example", "a\r\nX-Evil: 1", "\\", "?#", "{code}"];

pub fn check(text: &[u8]) {
    let Ok(vendor) = std::str::from_utf8(text).map_err(drop).and_then(|text| described(text).map_err(drop)) else {
        return;
    };
    // What the worker is sent is read as the same.
    assert!(vendor.description_text().is_some_and(|text| described(&text).is_ok()), "read once, and not again");
    for operation in Operation::ALL {
        for value in HOSTILE {
            sent(&vendor, operation, value);
        }
        for (status, body) in
            [(200, "{}"), (202, r#"{"id": "R"}"#), (204, ""), (404, ""), (500, r#"{"error": {"code": 1}}"#)]
        {
            let answer = HttpResponse { status, retry_after: None, body: body.as_bytes() };
            let is_done = |outcome| matches!(outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled);
            let outcome = interpret(&vendor, operation, &answer).outcome;
            assert!(!is_done(outcome) || status < 300, "{outcome:?} by HTTP {status}");
            assert!(outcome != Outcome::Approved || operation == Operation::Verify, "a {operation:?} that approves");
        }
    }
}

fn sent(vendor: &Dialect, operation: Operation, value: &str) {
    let mut payload = Map::new();
    for field in vendor.fields(operation).unwrap_or_default().iter().filter(|field| field.name != "extra") {
        payload.insert(field.name.to_owned(), if field.name == "mobile" { "+94771234567" } else { value }.into());
    }
    let sets = vendor.credential_sets().concat();
    let credentials: BTreeMap<String, Secret> =
        sets.into_iter().map(|name| (name.to_owned(), Secret::new(value))).collect();
    let code = Secret::new("012345");
    let prepared = vendor.prepare(&Call {
        operation,
        payload: &payload,
        defaults: &Map::new(),
        retained_before: &Map::new(),
        options: &BTreeMap::new(),
        credentials: &credentials,
        code: (operation == Operation::Verify).then_some(&code),
        verification_id: "0198c0de-0000-7000-8000-000000000001",
        attempt_id: "0198c0de-0000-7000-8000-00000000000a",
        code_lifetime: None,
    });
    let Ok(prepared) = prepared else { return };
    for request in [Some(&prepared.request), prepared.cancel_first.as_ref()].into_iter().flatten() {
        assert_stays(request);
    }
}

/// A path that only leads down, and headers of one line each that are none of the message's own.
fn assert_stays(request: &HttpRequest) {
    let path = request.path.reveal();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:@!$&'()*+,;=".contains(&byte);
    let segments: Vec<&str> = path.strip_prefix('/').expect("a path").split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let decoded = segment.replace("%2e", ".").replace("%2E", ".");
        let is_gap = segment.is_empty() && at + 1 < segments.len();
        assert!(segment.bytes().all(is_allowed) && !is_gap && !matches!(decoded.as_str(), "." | ".."), "{path:?}");
    }
    for (name, value) in &request.headers {
        let is_own =
            ["host", "content-length", "transfer-encoding", "connection"].contains(&&*name.to_ascii_lowercase());
        let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
        assert!(!is_own && !name.is_empty() && name.bytes().all(is_token), "{name:?}");
        let is_bearer = value.reveal().starts_with("Bearer ");
        assert!(is_bearer || value.reveal().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name} of two lines");
    }
}
