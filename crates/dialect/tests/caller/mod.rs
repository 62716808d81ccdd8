//! A caller: makes calls as the extension does, with an account at each vendor.
#![allow(dead_code)] // Each test file uses what it needs.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use dialect::{
    Call, CallResult, DIALECTS, Dialect, HttpRequest, HttpResponse, Invalid, Method, Operation, Prepared, Secret,
    described,
};
use serde_json::{Map, Value};

pub const VERIFICATION: &str = "0198c0de-0000-7000-8000-000000000001";
pub const ATTEMPT: &str = "0198c0de-0000-7000-8000-00000000000a";

/// Every vendor, by the name that the tests have for it: those with a dialect, and one that is described.
pub static VENDORS: LazyLock<Vec<(&'static str, Dialect)>> = LazyLock::new(|| {
    let page = include_str!("../../../../docs/vendors/vonage.md");
    let block = page.split("```json\n").nth(1).and_then(|block| block.split("```").next());
    let vonage = described(block.expect("a description")).unwrap_or_else(|invalid| panic!("{invalid:?}"));
    // Without a description `rest` is no vendor.
    let ours = DIALECTS.iter().filter(|dialect| !dialect.is_for_descriptions());
    ours.map(|dialect| (dialect.name, (*dialect).clone())).chain([("vonage", vonage)]).collect()
});

pub fn vendor(name: &str) -> &'static Dialect {
    let known = VENDORS.iter().find(|(vendor, _)| *vendor == name).map(|(_, vendor)| vendor);
    known.or_else(|| dialect::by_name(name)).expect("a vendor")
}

pub struct Caller {
    pub vendor: &'static Dialect,
    operation: Operation,
    payload: Map<String, Value>,
    defaults: Map<String, Value>,
    known: Map<String, Value>,
    options: BTreeMap<String, String>,
    credentials: BTreeMap<String, Secret>,
    code: Option<Secret>,
    code_lifetime: Option<Duration>,
}

/// The server options that vendors' pages require.
const OPTIONS: &[(&str, &str)] = &[("service_sid", SERVICE)];
pub const SERVICE: &str = "VA0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

/// Returns an account at a vendor; its last credential is the secret one.
pub fn account<'a>(vendor: &'static Dialect, name: &'a str, secret: &'a str) -> Vec<(&'static str, &'a str)> {
    // A vendor without credentials gets a pair for `Basic`: the sandbox and Paytm can do without.
    let sets = vendor.credential_sets();
    let set = sets.iter().find(|set| set.len() != 1 || sets.len() == 1).filter(|set| !set.is_empty());
    let names = set.cloned().unwrap_or_else(|| vec!["username", "password"]);
    names.into_iter().rev().zip([secret, name]).collect()
}

pub fn caller(name: &str, operation: Operation) -> Caller {
    let credentials: &[(&str, &str)] = match name {
        "iserveu" => &[("client_id", "isu-client"), ("client_secret", "isu-secret")],
        "hyperverge" => &[("app_id", "hv-app"), ("app_key", "hv-key")],
        "relid" => &[("username", "relid-user"), ("password", "relid-pass")],
        "ideamart" => &[("application_id", "APP_001100"), ("password", "idea-pass")],
        "twilio" => &[("api_key", "SK-key"), ("api_secret", "twilio-secret")],
        "msg91" => &[("authkey", "msg91-key")],
        "vonage" => &[("api_key", "vonage-key"), ("api_secret", "vonage-secret")],
        _ => &[],
    };
    let code = (operation == Operation::Verify).then(|| Secret::new("012345"));
    let vendor = vendor(name);
    let has = |name: &str| vendor.server_options.iter().any(|option| option.name == name);
    let options = OPTIONS.iter().filter(|(name, _)| has(name));
    Caller {
        vendor,
        operation,
        payload: Map::new(),
        defaults: Map::new(),
        known: Map::new(),
        options: options.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        credentials: secrets(credentials),
        code,
        code_lifetime: None,
    }
}

impl Caller {
    pub fn payload(mut self, payload: Value) -> Self {
        self.payload = members(payload);
        self
    }

    pub fn defaults(mut self, defaults: Value) -> Self {
        self.defaults = members(defaults);
        self
    }

    pub fn known(mut self, known: impl Into<Value>) -> Self {
        self.known = members(known.into());
        self
    }

    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn credentials(mut self, credentials: &[(&str, &str)]) -> Self {
        self.credentials = secrets(credentials);
        self
    }

    pub fn code(mut self, code: &str) -> Self {
        self.code = Some(Secret::new(code));
        self
    }

    pub fn code_lifetime(mut self, seconds: u64) -> Self {
        self.code_lifetime = Some(Duration::from_secs(seconds));
        self
    }

    pub fn prepare(&self) -> Result<Prepared, Invalid> {
        self.vendor.prepare(&Call {
            operation: self.operation,
            payload: &self.payload,
            defaults: &self.defaults,
            retained_before: &self.known,
            options: &self.options,
            credentials: &self.credentials,
            code: self.code.as_ref(),
            verification_id: VERIFICATION,
            attempt_id: ATTEMPT,
            code_lifetime: self.code_lifetime,
        })
    }

    #[track_caller]
    pub fn prepared(&self) -> Prepared {
        let what = format!("{}'s {}", self.vendor.name, self.operation.as_str());
        self.prepare().unwrap_or_else(|invalid| panic!("{what}, by this file's payloads (a row missing?): {invalid:?}"))
    }

    #[track_caller]
    pub fn refused(&self) -> Invalid {
        match self.prepare() {
            Ok(prepared) => panic!("accepted: {}", prepared.request.body.reveal()),
            Err(invalid) => invalid,
        }
    }
}

pub fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => panic!("not an object"),
    }
}

fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
}

/// Returns the message as one text: path and query, headers, body; with its method before, where that is no POST.
pub fn message(request: &HttpRequest) -> String {
    let pairs = |pairs: &[(String, Secret)], is: &str| {
        pairs.iter().map(|(name, value)| format!("{name}{is}{}", value.reveal())).collect::<Vec<_>>()
    };
    let method = if request.method == Method::Post { String::new() } else { format!("{} ", request.method.as_str()) };
    let mut lines = vec![format!("{method}{}", request.path.reveal())];
    lines.extend(pairs(&request.query, "=").into_iter().map(|pair| format!("? {pair}")));
    lines.extend(pairs(&request.headers, ": "));
    lines.push(request.body.reveal().to_owned());
    lines.join("\n")
}

/// Returns the body, JSON or a form, as an object.
pub fn body(request: &HttpRequest) -> Value {
    let body = request.body.reveal();
    let is_form = request.headers.iter().any(|(_, value)| value.reveal() == "application/x-www-form-urlencoded");
    if !is_form {
        return serde_json::from_str(body).expect("JSON");
    }
    let pairs = body.split('&').map(|pair| pair.split_once('=').expect("a pair"));
    Value::Object(pairs.map(|(name, value)| (decoded(name), decoded(value).into())).collect())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(&after[..2]).expect("two digits");
        bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    String::from_utf8(bytes).expect("UTF-8")
}

pub fn keep(prepared: &Prepared) -> Value {
    Value::Object((*prepared.retained).clone())
}

pub fn read(vendor: &str, operation: Operation, status: u16, body: &str) -> CallResult {
    read_bytes(vendor, operation, status, body.as_bytes())
}

pub fn read_bytes(vendor: &str, operation: Operation, status: u16, body: &[u8]) -> CallResult {
    let answer = HttpResponse { status, retry_after: None, body };
    dialect::interpret(self::vendor(vendor), operation, &answer)
}
