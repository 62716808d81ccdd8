//! Promise: a vendor that is described is spoken to as the description says, and no description or value of a payload
//! leads a message to another host, another path or another header; a description that is wrong is refused with the
//! path of the mistake, and what claims more than an operation can mean is wrong.

mod described;

use described::{Dice, dialect, message, mutate, on_page, prepare, read, url};
use dialect::{Dialect, Operation, Operation::*, Outcome, Secret, described as parse};
use serde_json::{Value, json};

const REFERENCE: &str = "c11236f4-00bf-4b89-84ba-88b25df97315";

fn plain(name: &str) -> String {
    format!("the-{name}")
}

/// Returns a small description that uses every member, as JSON to be changed.
fn small() -> Value {
    json!({
        "fields": {
            "mobile": {"rule": "phone", "required": ["send"]},
            "sender": {"rule": "text", "default": "Example"},
            "note": {"rule": "message"},
            "data": {"rule": "json"},
            "minutes": {"rule": "integer", "min": 1, "max": 60, "code_lifetime": "minutes"}
        },
        "credentials": ["token", "key"],
        "authorization": {"bearer": "token"},
        "code_digits": [6, 6],
        "operations": {
            "send": {
                "path": "/v1/codes",
                "query": {"from": "{sender}", "v": "1"},
                "headers": {"X-Note": "{note}", "X-Key": "{key}"},
                "json": {"to": "{mobile}", "data": ["{data}", {"m": "{minutes}", "fixed": 1}], "id": "{verification_id}"}
            },
            "verify": {"method": "PUT", "path": "/v1/codes/{reference}/check", "form": {"code": "{code}", "note": "{note}"}},
            "cancel": {"method": "DELETE", "path": "/v1/codes/{reference}"},
            "resend": {"method": "GET", "path": "/v1/codes/{reference}/again/", "keeps_code": true}
        },
        "reference": ["/id", "/data/id"],
        "vendor_code": "/code",
        "vendor_message": {"at": "/message", "after": ": "},
        "attempts_left": "/left",
        "retry_after": "/wait",
        "sensitive": ["Who"],
        "outcomes": [
            {"of": ["send", "resend"], "when": {"/ok": true}, "outcome": "sent"},
            {"of": "verify", "status": "2xx", "when": {"/ok": "TRUE"}, "outcome": "approved"},
            {"of": "cancel", "status": 204, "outcome": "canceled"},
            {"of": "verify", "when": {"/code": [17, "wrong_code"]}, "outcome": "invalid_code"},
            {"of": "verify", "when": {"/message": {"contains": ["too many", "tries"]}}, "outcome": "max_attempts_reached"},
            {"of": "verify", "when": {"/gone": {"exists": true}, "/ok": {"exists": false}}, "outcome": "not_found", "guess": true},
            {"status": 429, "outcome": "rate_limited"},
            {"status": [500, 503], "when": {"/code": "E1"}, "outcome": "provider_error", "personal": true}
        ]
    })
}

#[test]
fn vonage_is_spoken_to_as_its_page_says() {
    let vonage = dialect(&on_page("vonage"));
    let basic = "authorization: Basic dGhlLWFwaV9rZXk6dGhlLWFwaV9zZWNyZXQ=";
    let given = json!({"mobile": "+94 77 123 4567", "brand": "Example", "channel_timeout": 300, "code_length": "6"});
    let send = prepare(&vonage, Send, &given, &json!({}), plain).unwrap();
    let body = r#"{"brand":"Example","channel_timeout":300,"code_length":6,"workflow":[{"channel":"sms","to":"94771234567"}]}"#;
    let sent = format!("POST /v2/verify\n{basic}\nContent-Type: application/json\n{body}");
    assert_eq!(message(&send.request), sent);
    assert_eq!(send.recipient.as_ref().unwrap().reveal(), "+94771234567");
    assert_eq!(send.recipient_masked.as_deref(), Some("+94*****4567"));
    assert_eq!(send.code_lifetime.unwrap().as_secs(), 300);
    let mut known = Value::Object((*send.retained).clone());
    known["reference"] = REFERENCE.into();
    let verify = prepare(&vonage, Verify, &json!({}), &known, plain).unwrap();
    let sent_code =
        format!("POST /v2/verify/{REFERENCE}\n{basic}\nContent-Type: application/json\n{}", r#"{"code":"012345"}"#);
    assert_eq!(message(&verify.request), sent_code);
    assert_eq!(verify.reference.as_deref(), Some(REFERENCE));
    let cancel = prepare(&vonage, Cancel, &json!({}), &known, plain).unwrap();
    assert_eq!(message(&cancel.request), format!("DELETE /v2/verify/{REFERENCE}\n{basic}\n"));
    let resend = prepare(&vonage, Resend, &json!({}), &known, plain).unwrap();
    assert_eq!(message(&resend.request), sent);
    assert_eq!(message(&resend.cancel_first.unwrap()), message(&cancel.request));
    // The vendor's answer may show what it was sent: none of these is kept.
    for secret in ["012345", "the-api_secret", "dGhlLWFwaV9rZXk6dGhlLWFwaV9zZWNyZXQ=", "94771234567", "0771234567"] {
        assert!(verify.secrets.iter().any(|one| one.reveal() == secret), "{secret}");
    }
}

#[test]
fn every_answer_of_vonages_page_is_read() {
    let vonage = dialect(&on_page("vonage"));
    let problem = |fragment: &str, title: &str| {
        json!({
            "type": format!("https://developer.vonage.com/api-errors/verify-v2#{fragment}"), "title": title,
            "detail": "words", "instance": "738f9313-418a-4259-9b0d-6670f06fa82d"
        })
        .to_string()
    };
    let id = json!({"request_id": REFERENCE}).to_string();
    let rows = [
        (202, id.clone(), Send, Outcome::Sent, None),
        (202, "{}".into(), Send, Outcome::Unknown, None),
        (202, id, Resend, Outcome::Sent, None),
        (202, "{}".into(), Resend, Outcome::Unknown, None),
        (200, json!({"request_id": REFERENCE, "status": "completed"}).to_string(), Verify, Outcome::Approved, None),
        (200, json!({"request_id": REFERENCE, "status": "complete"}).to_string(), Verify, Outcome::Approved, None),
        (200, json!({"request_id": REFERENCE, "status": "failed"}).to_string(), Verify, Outcome::Unknown, None),
        (204, String::new(), Cancel, Outcome::Canceled, None),
        (204, String::new(), Verify, Outcome::Unknown, None),
        (400, problem("invalid-code", "Invalid Code"), Verify, Outcome::InvalidCode, Some("invalid-code")),
        (400, problem("bad-request", "Invalid Code"), Verify, Outcome::InvalidCode, Some("bad-request")),
        (400, problem("bad-request", "Bad Request"), Send, Outcome::InvalidRequest, Some("bad-request")),
        (410, problem("expired", "Invalid Code"), Verify, Outcome::MaxAttemptsReached, Some("expired")),
        (404, problem("not-found", "Not Found"), Verify, Outcome::NotFound, Some("not-found")),
        (404, problem("not-found", "Not Found"), Cancel, Outcome::NotFound, Some("not-found")),
        (404, problem("not-found", "Not Found"), Send, Outcome::Refused, Some("not-found")),
        (409, problem("no-code", "Conflict"), Verify, Outcome::Refused, Some("no-code")),
        (409, problem("concurrent", "Conflict"), Send, Outcome::RateLimited, Some("concurrent")),
        (409, json!({"title": "Conflict"}).to_string(), Send, Outcome::RateLimited, None),
        (422, problem("invalid-params", "Invalid params"), Send, Outcome::InvalidRequest, Some("invalid-params")),
        (429, problem("throttled", "Rate Limit Hit"), Verify, Outcome::RateLimited, Some("throttled")),
        (401, problem("unauthorized", "Unauthorized"), Send, Outcome::AuthFailed, Some("unauthorized")),
        (402, problem("low-balance", "Low balance"), Send, Outcome::Refused, Some("low-balance")),
        (403, problem("forbidden", "Forbidden"), Send, Outcome::AuthFailed, Some("forbidden")),
        (403, problem("out-of-credit", "No"), Send, Outcome::Refused, Some("out-of-credit")),
        (500, problem("internal", "Internal Error"), Send, Outcome::ProviderError, Some("internal")),
        (500, problem("internal", "Internal Error"), Verify, Outcome::Unknown, Some("internal")),
        (502, problem("internal", "Bad Gateway"), Send, Outcome::Unknown, Some("internal")),
        (418, problem("teapot", "Teapot"), Send, Outcome::Unknown, Some("teapot")),
        (404, "<html>".into(), Verify, Outcome::Unknown, None),
    ];
    for (status, body, operation, outcome, code) in rows {
        let reading = read(&vonage, operation, status, &body);
        assert_eq!((reading.outcome, reading.vendor_code.as_deref()), (outcome, code), "{operation:?} {status} {body}");
        assert_eq!(reading.reference.as_deref(), (outcome == Outcome::Sent).then_some(REFERENCE));
    }
}

#[test]
fn every_value_stands_in_its_place() {
    let vendor = dialect(&small().to_string());
    let given = json!({
        "mobile": "+442079460958", "sender": "a&b=c#d?é\r", "note": "n o t e", "data": {"a": ["{code}", null]}, "minutes": 5
    });
    let refused = prepare(&vendor, Send, &given, &json!({}), plain).unwrap_err();
    assert_eq!(refused.field, "sender");
    let given = json!({
        "mobile": "+442079460958", "sender": "a&b=c#d?é", "note": "n o t e", "data": {"a": ["{code}", null]}, "minutes": 5,
        "extra": {"more": true}
    });
    let send = prepare(&vendor, Send, &given, &json!({}), plain).unwrap();
    let body = r#"{"to":"+442079460958","data":[{"a":["{code}",null]},{"m":5,"fixed":1}],"id":"0198c0de-0000-7000-8000-000000000001","more":true}"#;
    assert_eq!(
        message(&send.request),
        format!(
            "POST /v1/codes\n? from=a&b=c#d?é\n? v=1\nauthorization: Bearer the-token\nX-Note: n o t e\nX-Key: the-key\n\
             Content-Type: application/json\n{body}"
        )
    );
    assert_eq!(send.code_lifetime.unwrap().as_secs(), 300);
    let url = url("https://vendor.example/base/", &send.request).unwrap();
    assert_eq!(url.as_str(), "https://vendor.example/base/v1/codes?from=a%26b%3Dc%23d%3F%C3%A9&v=1");
    // Members without a value are left out.
    let send = prepare(&vendor, Send, &json!({"mobile": "+442079460958"}), &json!({}), plain).unwrap();
    assert!(
        message(&send.request)
            .ends_with(r#"{"to":"+442079460958","data":[{"fixed":1}],"id":"0198c0de-0000-7000-8000-000000000001"}"#)
    );
    assert!(!message(&send.request).contains("X-Note"));
    let known = json!({"reference": "r/1", "note": "1=2&code=3"});
    let verify = prepare(&vendor, Verify, &json!({}), &known, plain).unwrap();
    assert_eq!(
        message(&verify.request),
        "PUT /v1/codes/r%2F1/check\nauthorization: Bearer the-token\nContent-Type: application/x-www-form-urlencoded\n\
         code=012345&note=1%3D2%26code%3D3"
    );
    let again = prepare(&vendor, Resend, &json!({}), &known, plain).unwrap();
    assert_eq!(message(&again.request), "GET /v1/codes/r%2F1/again/\nauthorization: Bearer the-token\n");
    assert!(again.keeps_code);
}

#[test]
fn no_value_leads_out_of_its_place() {
    let vendor = dialect(&small().to_string());
    for reference in ["..", ".", "", "\u{0}"] {
        let refused = prepare(&vendor, Cancel, &json!({}), &json!({ "reference": reference }), plain);
        if let Ok(prepared) = refused {
            assert_eq!(message(&prepared.request).lines().next(), Some("DELETE /v1/codes/%00"));
            continue;
        }
        assert_eq!(refused.unwrap_err().field, "reference");
    }
    for reference in [
        "%2e%2e",
        "%2E.",
        "a/../..",
        "../../admin",
        "a?b",
        "a#b",
        "@evil.example",
        "//evil.example",
        "\\\\evil.example",
        "a\r\nHost: x",
        "https://evil.example/",
        "...",
        "é",
        ";",
        "a%00",
        "%",
    ] {
        let prepared = prepare(&vendor, Cancel, &json!({}), &json!({ "reference": reference }), plain).unwrap();
        let url = url("https://vendor.example/base", &prepared.request).unwrap();
        let segments: Vec<&str> = url.path_segments().unwrap().collect();
        assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("vendor.example"), None, None));
        assert_eq!((segments.len(), &segments[..3]), (4, &["base", "v1", "codes"][..]), "{url}");
    }
    for note in ["a\r\nX-Evil: 1", "a\nb", "é", " a", "a\t"] {
        let refused =
            prepare(&vendor, Send, &json!({"mobile": "+442079460958", "note": note}), &json!({}), plain).unwrap_err();
        assert_eq!(refused.field, "note");
        assert!(!format!("{refused:?}").contains("Evil"));
    }
    // A credential is checked when it is written, too; here is the last line of defence.
    let refused =
        prepare(&vendor, Send, &json!({"mobile": "+442079460958"}), &json!({}), |name| format!("{name}\r\nX: 1"));
    assert!(refused.is_err());
    assert!(!vendor.can_send("token", "a\r\nb") && !vendor.can_send("key", "é") && vendor.can_send("key", "plain"));
}

#[test]
fn an_answer_is_read_by_the_first_line_that_is_about_it() {
    let vendor = dialect(&small().to_string());
    let rows = [
        (Send, 200, json!({"ok": true, "data": {"id": "R1"}}), Outcome::Sent),
        (Send, 200, json!({"ok": "true", "id": 17}), Outcome::Sent),
        (Send, 200, json!({"ok": true}), Outcome::Unknown),
        (Send, 500, json!({"ok": true, "id": "R1"}), Outcome::Unknown),
        (Resend, 200, json!({"ok": true}), Outcome::Sent),
        (Verify, 200, json!({"ok": true}), Outcome::Approved),
        (Verify, 404, json!({"ok": true}), Outcome::Unknown),
        (Verify, 200, json!({"ok": false}), Outcome::Unknown),
        (Verify, 200, json!({"code": 17, "left": "2"}), Outcome::InvalidCode),
        (Verify, 200, json!({"code": "17.0"}), Outcome::Unknown),
        (Verify, 400, json!({"code": "Wrong Code."}), Outcome::InvalidCode),
        (Verify, 400, json!({"message": "E: Too_Many wrong TRIES!"}), Outcome::MaxAttemptsReached),
        (Verify, 400, json!({"message": "too many"}), Outcome::Unknown),
        (Verify, 200, json!({"gone": 1}), Outcome::NotFound),
        (Verify, 200, json!({"gone": null}), Outcome::Unknown),
        (Cancel, 200, json!({"ok": true}), Outcome::Unknown),
        (Cancel, 429, json!({"wait": 30}), Outcome::RateLimited),
        (Send, 503, json!({"code": "e1"}), Outcome::ProviderError),
        (Send, 401, json!({"code": "e1"}), Outcome::Unknown),
        (Send, 200, json!([]), Outcome::Unknown),
        (Send, 200, json!(null), Outcome::Unknown),
    ];
    for (operation, status, body, outcome) in rows {
        assert_eq!(
            read(&vendor, operation, status, &body.to_string()).outcome,
            outcome,
            "{operation:?} {status} {body}"
        );
    }
    let wrong =
        read(&vendor, Verify, 200, r#"{"code": 17, "left": "2", "message": "Error 17: no: such code", "who": "A"}"#);
    assert_eq!((wrong.attempts_left, wrong.vendor_code.as_deref()), (Some(2), Some("17")));
    assert_eq!(wrong.vendor_message.as_deref(), Some("such code"));
    let (_, record) = wrong.redacted(&vendor, &[]);
    assert!(record.unwrap().get("who").is_none());
    assert_eq!(read(&vendor, Cancel, 429, r#"{"wait": 30}"#).retry_after.unwrap().as_secs(), 30);
    assert!(read(&vendor, Verify, 200, r#"{"gone": 1}"#).is_guess);
    assert!(read(&vendor, Send, 503, r#"{"code": "E1"}"#).is_personal);
    // An answer that is not in the vendor's form is read as with all vendors.
    for (status, body, outcome) in [
        (204, "", Outcome::Canceled),
        (401, "", Outcome::AuthFailed),
        (502, "<html>", Outcome::Unknown),
        (204, "<html>", Outcome::Unknown),
    ] {
        assert_eq!(read(&vendor, Cancel, status, body).outcome, outcome, "{status} {body}");
    }
}

#[test]
fn no_outcome_claims_more_than_its_operation_can_mean() {
    let may = |operation: Operation, outcome: Outcome| match outcome {
        Outcome::Unreachable | Outcome::Blocked => false,
        Outcome::Sent | Outcome::AlreadyRegistered => matches!(operation, Send | Resend),
        Outcome::Approved | Outcome::InvalidCode | Outcome::AlreadyUsed | Outcome::MaxAttemptsReached => {
            operation == Verify
        }
        Outcome::Canceled => operation == Cancel,
        Outcome::Expired | Outcome::NotFound => operation != Send,
        _ => true,
    };
    for operation in Operation::ALL {
        for outcome in Outcome::ALL {
            let mut description = small();
            description["outcomes"][0] =
                json!({"of": operation.as_str(), "when": {"/ok": 1}, "outcome": outcome.as_str()});
            let read = parse(&description.to_string());
            assert_eq!(read.is_ok(), may(operation, outcome), "{operation:?} {outcome:?}");
            if let Err(invalid) = read {
                assert!(invalid.message.contains("at outcomes[0].outcome: "), "{}", invalid.message);
            }
        }
    }
}

#[test]
fn a_mistake_is_named_with_its_path() {
    let rows: &[(&str, Value, &str)] = &[
        ("/fields/mobile/rule", json!("phon"), "at fields.mobile.rule: there is no such name; did you mean phone?"),
        ("/fields/mobile/rule", json!("text"), "at fields.mobile: a code goes to"),
        ("/fields/mobile/default", json!("+94771234567"), "at fields.mobile: a code goes to"),
        (
            "/fields/sender/vendor_name",
            json!("a\u{0}"),
            "at fields.sender.vendor_name: it is missing, or no text of a line",
        ),
        ("/fields/sender/vendor_name", json!(""), "at fields.sender.vendor_name: it is missing, or no text of a line"),
        (
            "/fields/kind",
            json!({"rule": "one_of", "values": ["a", "b\nc"]}),
            "at fields.kind.values[1]: it is missing, or no text of a line",
        ),
        ("/fields/kind", json!({"rule": "one_of"}), "at fields.kind.values: it is missing"),
        ("/fields/mobile", json!([]), "at fields.mobile.rule: it is missing"),
        ("/fields/minutes/max", json!("60"), "at fields.minutes.max: it is no whole number"),
        ("/fields/minutes/max", json!(0), "at fields.minutes.max: "),
        ("/fields/sender/default", json!(""), "at fields.sender.default: "),
        (
            "/fields/sender/requird",
            json!(true),
            "at fields.sender.requird: there is no such name; did you mean required?",
        ),
        ("/fields/sender/values", json!(["a"]), "at fields.sender.values: there is no such name; there are: rule, "),
        ("/fields/code", json!({"rule": "text"}), "at fields.code: the name is taken"),
        ("/fields/Sender", json!({"rule": "text"}), "at fields.Sender: a name is "),
        ("/fields/idle", json!({"rule": "text"}), "at its top: no message has a place for {idle}"),
        ("/fields/note/vendor_name", json!("sender"), "at fields.note.vendor_name: another field is called so"),
        ("/fields/note/code_lifetime", json!("minutes"), "at fields.note.code_lifetime: there is no such name"),
        ("/credentials/0", json!("mobile"), "at credentials[0]: the name is taken"),
        ("/credentials/0", json!("token_file"), "at credentials[0]: the name is taken"),
        ("/credentials/2", json!("more"), "at its top: no message has a place for {more}"),
        ("/authorization", json!({"basic": ["token"]}), "at authorization: it is neither"),
        ("/authorization/bearer", json!("tokn"), "at authorization.bearer: there is no such name; did you mean token?"),
        ("/authorisation", json!({}), "at authorisation: there is no such name; did you mean authorization?"),
        ("/code_digits", json!([6, 4]), "at code_digits: "),
        ("/code_lifetime", json!("3min"), "at code_lifetime: it is no whole number"),
        ("/max_checks", json!(0), "at max_checks: "),
        ("/operations/sends", json!({}), "at operations.sends: there is no such name; did you mean send?"),
        (
            "/operations/send/method",
            json!("get"),
            "at operations.send.method: there is no such name; did you mean GET?",
        ),
        ("/operations/send/method", json!("GET"), "at operations.send: a message has one body"),
        ("/operations/send/form", json!({}), "at operations.send: a message has one body"),
        ("/operations/send/path", json!("v1"), "at operations.send.path: a path begins with /"),
        ("/operations/send/path", json!("//evil.example/x"), "at operations.send.path: a path has"),
        ("/operations/send/path", json!("/a/../b"), "at operations.send.path: a path has"),
        ("/operations/send/path", json!("/%2e%2e/b"), "at operations.send.path: a path has"),
        ("/operations/send/path", json!("/a?b"), "at operations.send.path: a path has"),
        ("/operations/send/path", json!("/a\\b"), "at operations.send.path: a path has"),
        ("/operations/send/path", json!("/a{mobile}"), "at operations.send.path: a placeholder is a whole value"),
        ("/operations/send/path", json!("/{data}"), "at operations.send.path: a field of the rule json"),
        ("/operations/send/path", json!("/{code}"), "at operations.send.path: only a verify has a code"),
        (
            "/operations/send/path",
            json!("/{reference}"),
            "at operations.send.path: only a verify has a code, and a send",
        ),
        (
            "/operations/send/path",
            json!("/{moblie}"),
            "at operations.send.path: there is no such name; did you mean mobile?",
        ),
        ("/operations/send/headers/Host", json!("x"), "at operations.send.headers.Host: it is no name of a header"),
        ("/operations/send/headers/a b", json!("x"), "at operations.send.headers[\"a b\"]: it is no name"),
        ("/operations/send/headers/X-Note", json!("a\nb"), "at operations.send.headers.X-Note: a header holds"),
        ("/operations/send/headers/X-Note", json!(1), "at operations.send.headers.X-Note: it is missing, or no text"),
        ("/operations/send/query/from", json!("{data}"), "at operations.send.query.from: a field of the rule json"),
        ("/operations/send/json", json!("x"), "at operations.send.json: it is no object"),
        (
            "/operations/send/json/to",
            json!("{mobiles}"),
            "at operations.send.json.to: there is no such name; did you mean mobile?",
        ),
        ("/operations/send/json/to", json!("x"), "at operations.send: it has no {mobile}"),
        ("/operations/send/json/data/1/m", json!("{{minutes}}"), "at operations.send.json.data[1].m: a placeholder is"),
        (
            "/operations/send/keeps_code",
            json!(true),
            "at operations.send.keeps_code: there is no such name; there are: method, path",
        ),
        ("/operations/verify/form/code", json!("1"), "at operations.verify: it has no {code}"),
        (
            "/operations/verify/path",
            json!("/v1/check"),
            "at operations.verify: it has neither {reference} nor {mobile}",
        ),
        (
            "/operations/resend/cancel_first",
            json!("yes"),
            "at operations.resend.cancel_first: it is neither true nor false",
        ),
        ("/reference", json!([]), "at reference: it is missing"),
        ("/reference", json!("id"), "at reference: it is no JSON pointer"),
        ("/vendor_code", json!("/a~2"), "at vendor_code: it is no JSON pointer"),
        ("/vendor_message/after", json!(1), "at vendor_message.after: it is missing, or no text"),
        ("/vendor_message/hex_digits", json!(0), "at vendor_message.hex_digits: it is no whole number"),
        ("/fields/mobile/without", json!("94"), "at fields.mobile.without: it is + or"),
        ("/fields/sender/without", json!("+"), "at fields.sender.without: there is no such name; there are: rule, "),
        ("/outcomes/0", json!({"outcome": "refused"}), "at outcomes[0]: it is about every answer"),
        (
            "/outcomes/0/outcome",
            json!("okay"),
            "at outcomes[0].outcome: there is no such name; there are: sent, approved",
        ),
        ("/outcomes/0/of", json!(["send", "sending"]), "at outcomes[0].of[1]: there is no such name; there are:"),
        ("/outcomes/0/status", json!(404), "at outcomes[0].status: an HTTP status that is no success cannot mean sent"),
        ("/outcomes/0/status", json!([200, "3xx"]), "at outcomes[0].status[1]: an HTTP status that is no success"),
        ("/outcomes/0/status", json!("6xx"), "at outcomes[0].status: it is neither an HTTP status"),
        ("/outcomes/0/status", json!(999), "at outcomes[0].status: it is neither an HTTP status"),
        ("/outcomes/0/when/ok", json!(true), "at outcomes[0].when.ok: it is no JSON pointer"),
        (
            "/outcomes/3/when/~1code",
            json!({"contains": "_."}),
            "at outcomes[3].when[\"/code\"].contains: every text contains",
        ),
        ("/outcomes/3/when/~1code", json!([[1]]), "at outcomes[3].when[\"/code\"][0]: it is no value"),
        ("/outcomes/3/when/~1code", json!({"matches": ".*"}), "at outcomes[3].when[\"/code\"]: it is no value"),
        ("/sensitive", json!([1]), "at sensitive[0]: it is missing, or no text"),
        ("/sensitive", json!([""]), "at sensitive[0]: it is missing, or no text of a line"),
        ("/vendor_code", json!("/a\u{0}"), "at vendor_code: it is missing, or no text of a line"),
    ];
    for (pointer, value, mistake) in rows {
        let mut description = small();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match description.pointer_mut(parent).unwrap() {
            Value::Array(items) => match items.get_mut(name.parse::<usize>().unwrap()) {
                Some(item) => *item = value.clone(),
                None => items.push(value.clone()),
            },
            parent => parent[name.replace("~1", "/")] = value.clone(),
        }
        let Err(invalid) = parse(&description.to_string()) else { panic!("accepted: {pointer} {value}") };
        assert!(invalid.message.contains(mistake), "{pointer} {value}: {}", invalid.message);
    }
    for (text, mistake) in [
        ("", "it is not JSON: "),
        ("{", "it is not JSON: "),
        ("[]", "at its top: it is no object"),
        ("{} {}", "it is not JSON: trailing characters"),
        (&many_fields(257).to_string(), "at fields: there are more than 256"),
        (&"[".repeat(1000), "it is longer than 65536 bytes, or deeper than 16 levels"),
        (&format!("{}{}", small(), " ".repeat(65_536)), "it is longer than 65536 bytes"),
    ] {
        let Err(invalid) = parse(text) else { panic!("accepted: {text}") };
        assert!(invalid.message.contains(mistake), "{}", invalid.message);
    }
}

/// Returns a description with this many more fields, each in several places.
fn many_fields(count: usize) -> Value {
    let mut description = small();
    for number in 0..count {
        let name = format!("f{number}");
        description["fields"][&name] = json!({"rule": "text"});
        for part in ["json", "query", "headers"] {
            description["operations"]["send"][part][&name] = format!("{{{name}}}").into();
        }
    }
    description
}

/// Whoever may make a server may write a description, and the one worker of all providers reads it with each call.
#[test]
fn no_description_keeps_the_worker_busy() {
    let began = std::time::Instant::now();
    let mut description = many_fields(200);
    let words: Vec<String> = (0..256).map(|number| format!("w{number}")).collect();
    description["outcomes"] = (0..24)
        .map(|_| json!({"when": {"/message": words, "/code": {"exists": true}}, "outcome": "refused"}))
        .collect();
    let vendor = dialect(&description.to_string());
    let mut payload = json!({"mobile": "+442079460958"});
    for number in 0..200 {
        payload[format!("f{number}")] = "x".repeat(200).into();
    }
    let prepared = prepare(&vendor, Send, &payload, &json!({}), plain).unwrap();
    assert_eq!(prepared.request.headers.len(), 2 + 1 + 200);
    // As long as an answer may be: such a text is no word of a vendor's.
    let answer = json!({"message": "a".repeat(1 << 19), "code": 1, "x": "b".repeat(1 << 18)}).to_string();
    assert_eq!(read(&vendor, Send, 400, &answer).outcome, Outcome::Unknown);
    let took = began.elapsed();
    assert!(took.as_secs() < 20, "{took:?}");
}

/// Without a recipient no limit would count.
#[test]
fn a_send_is_to_somebody_whatever_the_description_requires() {
    for required in [json!(null), json!([]), json!(["verify"])] {
        let mut description = small();
        description["fields"]["mobile"]["required"] = required;
        description["operations"]["verify"]["form"]["to"] = "{mobile}".into();
        let vendor = dialect(&description.to_string());
        let refused = prepare(&vendor, Send, &json!({"note": "n"}), &json!({}), plain).unwrap_err();
        assert_eq!((refused.field.as_str(), refused.message.contains("is missing")), ("mobile", true));
    }
}

#[test]
fn a_literal_that_looks_like_a_credential_is_found() {
    let literals = |description: &Value| {
        let vendor = dialect(&description.to_string());
        vendor.description.unwrap().literals().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(literals(&small()).is_empty() && literals(&serde_json::from_str(MSG91).unwrap()).is_empty());
    assert!(literals(&serde_json::from_str(&on_page("vonage")).unwrap()).is_empty());
    let mut description = small();
    let send = &mut description["operations"]["send"];
    send["headers"]["X-Api-Key"] = "0123456789abcdef".into();
    send["headers"]["Authorization"] = "Basic eA==".into();
    send["query"]["api_secret"] = "s".into();
    send["json"]["auth"] = json!({"access_token": "t", "key": "{key}", "password": 5});
    description["operations"]["verify"]["form"]["Pass-Word"] = "p".into();
    let found = literals(&description);
    for place in [
        "send.query.api_secret",
        "send.headers.X-Api-Key",
        "send.headers.Authorization",
        "send.json.auth.access_token",
        "verify.form.Pass-Word",
    ] {
        assert!(found.contains(&format!("operations.{place}")), "{place} in {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn pointers_and_answers_of_every_kind_are_survived() {
    let mut description = small();
    description["reference"] = json!(["/a~1b/~0id", "/list/0/id", "/"]);
    description["vendor_code"] = json!(["/list", "/list/1", "/list/-", "/list/01", "/code/x", "/é"]);
    description["outcomes"][0]["when"] = json!({"/ok": {"exists": true}});
    let vendor = dialect(&description.to_string());
    for (answer, reference, code) in [
        (json!({"ok": 1, "a/b": {"~id": "R1"}}), Some("R1"), None),
        (json!({"ok": 1, "list": [{"id": "R2"}, "E1"]}), Some("R2"), Some("E1")),
        (json!({"ok": 1, "": "R3", "list": ["x", ["E1"]], "code": "no object"}), Some("R3"), None),
        (json!({"ok": 1, "": "a\nb"}), None, None),
        (json!({"ok": 1, "": "R".repeat(257)}), None, None),
        (json!({"ok": 1, "": 1e300, "é": "N"}), None, Some("N")),
        (json!([{"id": "R"}]), None, None),
        (json!("ok"), None, None),
    ] {
        let reading = read(&vendor, Send, 200, &answer.to_string());
        assert_eq!(reading.reference.as_deref(), reference, "{answer}");
        assert_eq!(reading.vendor_code.as_deref(), code, "{answer}");
        let outcome = if reference.is_some() { Outcome::Sent } else { Outcome::Unknown };
        assert_eq!(reading.outcome, outcome, "{answer}");
    }
    // Of a member that stands twice the last counts, as in jsonb.
    let twice = small().to_string().replacen("\"fields\":", "\"fields\":{\"x\":5},\"fields\":", 1);
    assert_eq!(dialect(&twice).description_text(), dialect(&small().to_string()).description_text());
}

/// MSG91 gives its id in the message's place at times; other words there may repeat the code.
#[test]
fn words_are_no_id_though_an_id_may_stand_in_their_place() {
    let vendor = dialect(MSG91);
    let secrets = [Secret::new("012345")];
    let id = "3763646c3058373530393938";
    for (message, kept) in [("OTP 012345 not match", "OTP [redacted] not match"), (id, id)] {
        let answer = json!({"type": "error", "message": message, "request_id": id}).to_string();
        let (_, record) = read(&vendor, Verify, 200, &answer).redacted(&vendor, &secrets);
        assert_eq!(record.unwrap(), json!({"type": "error", "message": kept, "request_id": id}));
    }
    // Also where the description itself calls the words an id.
    let mut description = small();
    description["opaque"] = json!(["note"]);
    let vendor = dialect(&description.to_string());
    for (note, kept) in [("no code 012345", "no code [redacted]"), ("n-012345", "n-012345")] {
        let (_, record) = read(&vendor, Verify, 400, &json!({ "note": note }).to_string()).redacted(&vendor, &secrets);
        assert_eq!(record.unwrap(), json!({ "note": kept }));
    }
}

/// Returns a generator that differs in each run; OTP_DESCRIPTION_SEED repeats a run.
fn dice() -> Dice {
    let seed = std::env::var("OTP_DESCRIPTION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1);
    println!("OTP_DESCRIPTION_SEED={seed}");
    Dice(seed)
}

/// Of ever new descriptions, most of them wrong, none panics, and every request goes to the host of base_url.
#[test]
fn no_description_leads_to_another_host() {
    let mut dice = dice();
    let originals: Vec<Value> =
        vec![small(), serde_json::from_str(&on_page("vonage")).unwrap(), serde_json::from_str(MSG91).unwrap()];
    let mut good = 0;
    for _ in 0..4_000 {
        let mut description = dice.pick(&originals);
        for _ in 0..=dice.roll(3) {
            mutate(&mut description, &mut dice);
        }
        let Ok(vendor) = parse(&description.to_string()) else { continue };
        good += 1;
        let hostile = dice.pick(&["..", "%2e%2e/..", "@evil.example", "//evil.example/", "a\r\nb", "\\", "?", "#", ""]);
        for operation in Operation::ALL {
            let mut payload = json!({"mobile": "+94771234567"});
            for field in vendor.fields(operation).unwrap_or_default() {
                if field.name != "mobile" && field.name != "extra" {
                    payload[field.name] = dice.pick(&[json!(hostile), json!(5), json!(true), json!({"a": hostile})]);
                }
            }
            let known = json!({ "reference": hostile, "mobile": "+94771234567" });
            let Ok(prepared) = prepare(&vendor, operation, &payload, &known, |_| hostile.to_owned()) else { continue };
            for request in [Some(&prepared.request), prepared.cancel_first.as_ref()].into_iter().flatten() {
                let url = url("https://vendor.example:8443/base", request).expect("a URL");
                assert_eq!(
                    (url.host_str(), url.port(), url.username()),
                    (Some("vendor.example"), Some(8443), ""),
                    "{description}"
                );
                assert!(url.path().starts_with("/base/"), "{url} {description}");
                for (name, value) in &request.headers {
                    assert!(value.reveal().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name} {description}");
                }
            }
            for (status, body) in [(200, "{}"), (204, ""), (500, r#"{"type": "error", "message": "x"}"#)] {
                let reading = read(&vendor, operation, status, body);
                let is_done = matches!(reading.outcome, Outcome::Sent | Outcome::Approved | Outcome::Canceled);
                assert!(!is_done || status < 300);
            }
        }
    }
    assert!(good > 100, "{good} of 4000 were good: the others say nothing of what is sent");
}

/// A description of MSG91, which has a dialect of its own to compare with.
const MSG91: &str = include_str!("described/msg91.json");

/// Returns what must be equal in two readings; the gateway's own words about an unknown outcome may differ.
fn told(vendor: &Dialect, operation: Operation, status: u16, body: &str) -> impl PartialEq + std::fmt::Debug {
    let read = read(vendor, operation, status, body);
    let words = read.vendor_message.filter(|_| read.outcome != Outcome::Unknown);
    let counts = (read.attempts_left, read.retry_after, read.is_guess, read.is_personal);
    (read.outcome, read.vendor_code, words, read.reference, counts)
}

/// Every sentence of MSG91's page, and some that it does not have.
const SENTENCES: [&str; 41] = [
    "otp_sent_successfully",
    "OTP verified success",
    "otp_verified",
    "number_verified_successfully",
    "retry send successfully",
    "OTP not match",
    "otp_not_verified",
    "invalid_otp",
    "Invalid OTP",
    "OTP expired",
    "otp_expired",
    "Mobile no. already verified",
    "already_verified",
    "OTP already verified",
    "Mobile no. not found",
    "mobile_not_found",
    "last_otp_request_on_this_number_is_invalid",
    "Max limit reached for this otp verification",
    "No OTP request found to retryotp",
    "no_request_found",
    "OTP retry count maxed out",
    "max_retry_count_exceeded",
    "Mobile no. empty or not numeric",
    "Mobile number empty or not numeric",
    "invalid_mobile",
    "invalid_mobile_number",
    "Please enter atleast one number to send sms.",
    "Template ID Missing or Invalid Template",
    "invalid_otp_length",
    "invalid_otp_expiry",
    "Invalid authkey",
    "Auth Key missing",
    "AuthenticationFailure",
    "IP not whitelisted",
    "IPBlocked",
    "too many requests for this number",
    "Please wait for 10 minutes",
    "3763646c3058373530393938",
    "System error",
    "OTP",
    "",
];

#[test]
fn msg91_described_reads_as_the_dialect_of_ours_does() {
    let (ours, described) = (dialect::by_name("msg91").unwrap(), dialect(MSG91));
    let equal = |operation: Operation, status: u16, body: &Value| {
        let body = body.to_string();
        assert_eq!(
            format!("{:?}", told(&described, operation, status, &body)),
            format!("{:?}", told(ours, operation, status, &body)),
            "{operation:?} {status} {body}"
        );
    };
    let operations = [Send, Verify, Resend];
    let statuses = [200, 202, 302, 400, 401, 403, 404, 418, 429, 500, 501, 502, 503];
    // Every row of the page.
    for operation in operations {
        for kind in ["success", "error"] {
            for message in SENTENCES {
                equal(operation, 200, &json!({"type": kind, "message": message}));
            }
            equal(operation, 200, &json!({"type": kind, "request_id": "3763646c3058373530393938"}));
        }
        for code in 0..700 {
            for code in [json!(code), json!(code.to_string()), json!(format!("{code:03}"))] {
                equal(operation, 200, &json!({"type": "error", "message": "x", "code": code}));
            }
        }
        equal(operation, 401, &json!({"status": "fail", "hasError": true, "errors": "Unauthorized"}));
        for status in statuses {
            equal(operation, status, &json!({"type": "error", "message": "x"}));
            equal(operation, status, &json!({"type": "success", "message": "OTP verified success"}));
        }
    }
    // Ten thousand random answers.
    let mut dice = dice();
    for _ in 0..10_000 {
        let mut answer = json!({"type": dice.pick(&["success", "error", "SUCCESS", "Error"])});
        if dice.roll(5) > 0 {
            answer["message"] = said(&mut dice).into();
        }
        if dice.roll(3) == 0 {
            let code = dice.roll(700);
            answer["code"] =
                dice.pick(&[json!(code), json!(code.to_string()), json!(format!("{code:03}")), Value::Null]);
        }
        if dice.roll(4) == 0 {
            let id = json!("3763646c3058373530393938");
            answer["request_id"] = dice.pick(&[id, json!("R-1"), json!(17), json!(""), json!(" "), Value::Null]);
        }
        equal(dice.pick(&operations), dice.pick(&statuses), &answer);
    }
}

/// Returns a sentence with another case, other spaces, and more or fewer stops.
fn said(dice: &mut Dice) -> String {
    let sentence = dice.pick(&SENTENCES);
    let mut text = match dice.roll(4) {
        0 => sentence.to_uppercase(),
        1 => sentence.to_lowercase(),
        _ => sentence.to_owned(),
    };
    match dice.roll(4) {
        0 => text = text.replace(' ', "_"),
        1 => text = text.replace(' ', ""),
        2 => text = text.replace('_', "  "),
        _ => {}
    }
    text + dice.pick(&["", "", ".", "..", " ", " x"])
}

#[test]
fn msg91_described_sends_what_the_dialect_of_ours_sends() {
    let (ours, described) = (dialect::by_name("msg91").unwrap(), dialect(MSG91));
    let given = json!({"mobile": "+91 98765 43210", "template_id": "0123456789abcdef01234567", "otp_length": "6", "otp_expiry": 10});
    let mobile = json!({"mobile": "919876543210"});
    for (operation, payload) in [
        (Send, given),
        (Verify, mobile.clone()),
        (Resend, json!({"mobile": "919876543210", "channel": "voice"})),
        (Resend, mobile),
    ] {
        let [ours, described] = [ours, &described].map(|vendor| {
            let prepared = prepare(vendor, operation, &payload, &json!({}), plain).unwrap();
            let mut lines: Vec<String> = message(&prepared.request).lines().map(str::to_lowercase).collect();
            lines.sort();
            (lines, prepared.recipient.unwrap().reveal().to_owned(), prepared.code_lifetime, prepared.keeps_code)
        });
        assert_eq!(ours, described, "{operation:?}");
    }
}

#[test]
fn a_number_of_another_country_is_not_sent_where_its_code_is_left_out() {
    let mut description = small();
    description["fields"]["mobile"]["without"] = "+91".into();
    let vendor = dialect(&description.to_string());
    let send = |mobile: &str| prepare(&vendor, Send, &json!({ "mobile": mobile }), &json!({}), plain);
    let prepared = send("919876543210").unwrap();
    assert!(prepared.request.body.reveal().contains(r#""to":"9876543210""#));
    assert_eq!(prepared.recipient.unwrap().reveal(), "+919876543210");
    assert_eq!(send("+94771234567").unwrap_err().field, "mobile");
}
