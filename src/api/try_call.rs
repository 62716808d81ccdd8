//! `otp_gateway.try`: what a call would send, and how an answer would be read. Nothing is sent, nothing is put on
//! record, and no credential is read: a stand-in takes its place.

use std::collections::BTreeMap;

use dialect::{Call, Dialect, HttpRequest, HttpResponse, Operation, Prepared, Secret, interpret, payload_fields};
use http_client::call_url;
use pgrx::pg_sys;
use policy::retryable;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    api::{
        function::{Call as FunctionCall, Returned, datum, sql_function},
        payload::Payload,
    },
    error::Error,
    pg::{
        fingerprint::Fingerprint,
        foreign_servers::{self, Server},
        roles::current_role,
    },
    provider::{
        description,
        lookup::named,
        option_value,
        ownership::must_own,
        server_options::{PROXY_CREDENTIALS, ServerOptions},
    },
};

/// The text that stands for a credential and for the code.
const BLANK: &str = "***";

sql_function!(
    fn try_call(
        provider: String,
        operation: String,
        payload: Payload,
        status: Option<i32>,
        answer: Option<Secret>,
    ) -> Tried {
        let server = named(&provider)?;
        must_own(&server, current_role().oid)?;
        let dialect = description::of_server(&server)?;
        let operation = read_operation(&operation)?;
        let options = ServerOptions::parse(&dialect, &server.options)?;
        let prepared = prepare(&dialect, operation, &payload, &options, &stand_ins(&dialect, &server))?;
        let secrets = secrets_of(&dialect, operation, &payload);
        let reading = status.map(|status| read(&dialect, operation, &prepared, status, answer)).transpose()?;
        Ok(Tried(json!({
            "request": shown(&options, &prepared.request, &secrets)?,
            "cancel_first": prepared.cancel_first.as_ref().map(|first| shown(&options, first, &secrets)).transpose()?,
            "recipient": prepared.recipient_masked,
            "code_lifetime": prepared.code_lifetime.or(options.code_lifetime).or(dialect.code_lifetime)
                .map(option_value::shown),
            "max_checks": prepared.max_checks.unwrap_or(options.max_checks),
            "reading": reading,
            "fields": fields(&dialect, operation),
        })))
    }
);

/// The result of `try`. The statement is kept out of the log as that of a send: it holds the same values.
struct Tried(Value);

impl Returned for Tried {
    fn declared() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }

    fn answer(
        _: &FunctionCall,
        _: Fingerprint,
        body: impl FnOnce() -> Result<Self, Error>,
    ) -> Result<pg_sys::Datum, Error> {
        body().map(|tried| datum(pgrx::JsonB(tried.0)))
    }
}

fn read_operation(name: &str) -> Result<Operation, Error> {
    Operation::ALL.into_iter().find(|operation| operation.as_str() == name).ok_or_else(|| {
        let names = Operation::ALL.map(Operation::as_str).join(", ");
        Error::invalid_parameter("operation is none that a provider has", format!("One of {names}."))
    })
}

/// Returns a stand-in for each credential that the caller's user mapping names, or else the vendor wants.
fn stand_ins(dialect: &Dialect, server: &Server) -> BTreeMap<String, Secret> {
    let mapping = foreign_servers::user_mapping(current_role().oid, server.oid);
    let mut names: Vec<String> = mapping
        .map_or_else(Vec::new, |(_, options)| options)
        .into_iter()
        .map(|(option, _)| option.strip_suffix("_file").unwrap_or(&option).to_owned())
        .filter(|name| !PROXY_CREDENTIALS.contains(&name.as_str()))
        .collect();
    let sets = dialect.credential_sets();
    let is_whole = |set: &Vec<&str>| set.len() == names.len() && set.iter().all(|name| names.iter().any(|n| n == name));
    if !sets.iter().any(is_whole) {
        names = sets.first().into_iter().flatten().map(|name| (*name).to_owned()).collect();
    }
    names.into_iter().map(|name| (name, Secret::new(BLANK))).collect()
}

fn prepare(
    dialect: &Dialect,
    operation: Operation,
    payload: &Payload,
    options: &ServerOptions,
    credentials: &BTreeMap<String, Secret>,
) -> Result<Prepared, Error> {
    let code = Secret::new(BLANK);
    let prepared = dialect.prepare(&Call {
        operation,
        payload: payload.fields(),
        defaults: &options.defaults,
        retained_before: &Map::new(),
        options: &options.vendors_own,
        credentials,
        code: (operation == Operation::Verify).then_some(&code),
        verification_id: &Uuid::now_v7().to_string(),
        attempt_id: &Uuid::now_v7().to_string(),
        code_lifetime: options.code_lifetime,
    });
    prepared.map_err(Error::from)
}

/// Returns, as texts, the values of those payload fields that no record shows.
fn secrets_of(dialect: &Dialect, operation: Operation, payload: &Payload) -> Vec<String> {
    let mut secrets = Vec::new();
    for field in dialect.fields(operation).unwrap_or_default().iter().filter(|field| field.secret) {
        let named = payload.fields().iter().filter(|(name, _)| field.is_called(name));
        named.for_each(|(_, value)| texts_in(value, &mut secrets));
    }
    // A shorter text is no secret, and stands in everything.
    secrets.retain(|text| text.len() >= 4);
    secrets
}

fn texts_in(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| texts_in(item, texts)),
        Value::Object(members) => members.values().for_each(|member| texts_in(member, texts)),
        _ => {}
    }
}

/// Returns a request as people read it, with a body as the JSON or the fields in it.
fn shown(options: &ServerOptions, request: &HttpRequest, secrets: &[String]) -> Result<Value, Error> {
    let url = call_url(&options.base_url, request).ok_or_else(|| {
        Error::invalid_parameter("the call has no URL", "Look at the option base_url, and at the path.")
    })?;
    let headers = request.headers.iter().map(|(name, value)| {
        // Basic would show even a stand-in in a form that nobody can read.
        let value = if value.reveal().starts_with("Basic ") { "Basic ***" } else { value.reveal() };
        (name.to_ascii_lowercase(), Value::from(value))
    });
    let headers: Map<String, Value> = headers.collect();
    let body = request.body.reveal();
    let is_form = headers.get("content-type") == Some(&Value::from("application/x-www-form-urlencoded"));
    let body = match serde_json::from_str(body) {
        _ if body.is_empty() => Value::Null,
        _ if is_form => Value::Object(
            url::form_urlencoded::parse(body.as_bytes()).map(|(name, value)| (name.into(), value.into())).collect(),
        ),
        Ok(json) => json,
        Err(_) => body.into(),
    };
    let url = url.as_str().replace("%2A%2A%2A", BLANK);
    let mut shown = json!({"method": request.method.as_str(), "url": url, "headers": headers, "body": body});
    blank(&mut shown, secrets);
    Ok(shown)
}

fn blank(value: &mut Value, secrets: &[String]) {
    match value {
        Value::String(text) => secrets.iter().for_each(|secret| *text = text.replace(secret.as_str(), BLANK)),
        Value::Number(number) if secrets.contains(&number.to_string()) => *value = BLANK.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| blank(item, secrets)),
        Value::Object(members) => members.values_mut().for_each(|member| blank(member, secrets)),
        _ => {}
    }
}

/// Returns how an answer would be read, and what of it would be on record.
fn read(
    dialect: &Dialect,
    operation: Operation,
    prepared: &Prepared,
    status: i32,
    answer: Option<Secret>,
) -> Result<Value, Error> {
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (100..=599).contains(status))
        .ok_or_else(|| Error::invalid_parameter("status is no HTTP status", "A number from 100 to 599, as 200."))?;
    let body = answer.unwrap_or_default();
    let answer = HttpResponse { status, retry_after: None, body: body.reveal().as_bytes() };
    let (result, record) = interpret(dialect, operation, &answer).redacted(dialect, &prepared.secrets);
    let left = result.attempts_left.unwrap_or(u32::MAX);
    Ok(json!({
        "outcome": result.outcome.as_str(),
        "retryable": retryable(operation, result.outcome, left),
        "reference": result.reference,
        "vendor_code": result.vendor_code,
        "vendor_message": result.vendor_message,
        "attempts_left": result.attempts_left,
        "retry_after": result.retry_after.map(option_value::shown),
        "response": record,
    }))
}

/// Returns the fields that the payload takes, as the view `otp_gateway.payload_field` shows them for a vendor of ours.
fn fields(dialect: &Dialect, operation: Operation) -> Value {
    let rows = payload_fields(dialect).into_iter().filter(|row| row.operation == operation);
    rows.map(|row| json!({"field": row.field, "required": row.required, "rule": row.rule, "example": row.example}))
        .collect()
}
