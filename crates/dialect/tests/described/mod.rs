//! Descriptions of vendors, and calls through them.
#![allow(dead_code)] // Each test file uses what it needs.

use std::collections::BTreeMap;

use dialect::{
    Call, CallResult, Dialect, HttpRequest, HttpResponse, Invalid, Operation, Prepared, Secret, described, interpret,
};
use serde_json::{Map, Value};

pub const VERIFICATION: &str = "0198c0de-0000-7000-8000-000000000001";

/// Returns the description on a vendor's page: its JSON block.
pub fn on_page(page: &str) -> String {
    let path = format!("{}/../../docs/vendors/{page}.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a page");
    let block = text.split("```json\n").nth(1).expect("a JSON block");
    block.split("```").next().expect("its end").to_owned()
}

#[track_caller]
pub fn dialect(description: &str) -> Dialect {
    described(description).unwrap_or_else(|invalid| panic!("{invalid:?}"))
}

/// Prepares a call with every credential that the description names.
pub fn prepare(
    dialect: &Dialect,
    operation: Operation,
    payload: &Value,
    known: &Value,
    credential: impl Fn(&str) -> String,
) -> Result<Prepared, Invalid> {
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let credentials: BTreeMap<String, Secret> = dialect
        .credential_sets()
        .concat()
        .into_iter()
        .map(|name| (name.to_owned(), Secret::new(credential(name))))
        .collect();
    let code = Secret::new("012345");
    dialect.prepare(&Call {
        operation,
        payload: &members(payload),
        defaults: &Map::new(),
        retained_before: &members(known),
        options: &BTreeMap::new(),
        credentials: &credentials,
        code: (operation == Operation::Verify).then_some(&code),
        verification_id: VERIFICATION,
        attempt_id: "0198c0de-0000-7000-8000-00000000000a",
        code_lifetime: None,
    })
}

/// Returns the message as one text: method and path, query, headers, body.
pub fn message(request: &HttpRequest) -> String {
    let pairs = |pairs: &[(String, Secret)], is: &str| {
        pairs.iter().map(|(name, value)| format!("{name}{is}{}", value.reveal())).collect::<Vec<_>>()
    };
    let mut lines = vec![format!("{} {}", request.method.as_str(), request.path.reveal())];
    lines.extend(pairs(&request.query, "=").into_iter().map(|pair| format!("? {pair}")));
    lines.extend(pairs(&request.headers, ": "));
    lines.push(request.body.reveal().to_owned());
    lines.join("\n")
}

pub fn read(dialect: &Dialect, operation: Operation, status: u16, body: &str) -> CallResult {
    interpret(dialect, operation, &HttpResponse { status, retry_after: None, body: body.as_bytes() })
}

/// A random generator (xorshift64*): one seed makes one sequence.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.roll(items.len())].clone()
    }
}

/// Changes a description somewhere: a member gone, moved or doubled, a value of another kind, a text that leads astray.
pub fn mutate(value: &mut Value, dice: &mut Dice) {
    let mut at = value;
    while dice.roll(5) > 0 {
        let children = match at {
            Value::Object(members) => members.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if children == 0 {
            break;
        }
        let child = dice.roll(children);
        at = match at {
            Value::Object(members) => members.values_mut().nth(child).expect("one of them"),
            Value::Array(items) => &mut items[child],
            _ => unreachable!("a leaf has no children"),
        };
    }
    const ASTRAY: [&str; 28] = [
        "",
        "/",
        "//evil.example/x",
        "/..",
        "/../{mobile}",
        "/%2e%2e/{mobile}",
        "/a//b",
        "/{mobile}",
        "@evil.example/",
        ":8080",
        "\\\\evil.example",
        "/\\evil.example",
        "/a?b=c",
        "/a#b",
        "{mobile}",
        "{code}",
        "{reference}",
        "{api_key}",
        "{{mobile}}",
        "{",
        "x\r\nHost: evil.example",
        "host",
        "approved",
        "send",
        "GET",
        "/{reference}/{mobile}",
        "/a b",
        "/\u{202e}/é",
    ];
    match (dice.roll(9), &mut *at) {
        (0, Value::Object(members)) if !members.is_empty() => {
            let name = members.keys().nth(dice.roll(members.len())).expect("one of them").clone();
            members.shift_remove(&name);
        }
        (1, Value::Object(members)) if !members.is_empty() => {
            let value = members.values().nth(dice.roll(members.len())).expect("one of them").clone();
            let names = [
                "path", "headers", "query", "form", "json", "when", "of", "default", "rule", "host", "x", "mobile",
                "cancel",
            ];
            members.insert(dice.pick(&names).to_owned(), value);
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let item = items[dice.roll(items.len())].clone();
            items.push(item);
        }
        (3, at) => *at = Value::Array(vec![at.take()]),
        (4, at) => *at = serde_json::json!({ "x": at.take() }),
        (5, at) => *at = dice.pick(&[Value::Null, true.into(), 0.into(), (-1).into(), 1e300.into(), u64::MAX.into()]),
        (_, at) => *at = dice.pick(&ASTRAY).into(),
    }
}

/// Returns the URL that a request goes to, as the HTTP client makes it.
pub fn url(base: &str, request: &HttpRequest) -> Option<url::Url> {
    let mut url = url::Url::parse(&format!("{}{}", base.trim_end_matches('/'), request.path.reveal())).ok()?;
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(request.query.iter().map(|(name, value)| (name, value.reveal())));
    }
    Some(url)
}
