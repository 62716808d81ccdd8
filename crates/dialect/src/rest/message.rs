use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    call::{Call, HttpRequest, Method, form_request, is_header_value, json_request, path_segment, plain_text},
    operation::Operation,
    payload::{
        field::{Invalid, plain},
        fill::FilledPayload,
    },
    rest::{
        Description,
        cursor::{Cursor, Read},
        message::Position::{Header, Json, Pair, Path},
    },
    secret::{Private, Secret},
};

/// The HTTP message of one operation. A text in it may be a placeholder, whole: `{mobile}`.
pub(super) struct Message {
    pub operation: Operation,
    method: Method,
    path: String,
    query: Map<String, Value>,
    headers: Map<String, Value>,
    pub json: Option<Map<String, Value>>,
    form: Option<Map<String, Value>>,
    /// Whether the cancel's message goes first; the resend then counts as a new send.
    pub cancel_first: bool,
    /// Whether the vendor sends the code that it has sent before.
    pub keeps_code: bool,
    /// Which value stands at which position.
    pub uses: BTreeSet<(String, Position)>,
    /// The paths of literal texts that may be credentials.
    pub literals: Vec<String>,
}

/// Where in a message a value stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    Path,
    Header,
    /// In a query or a form.
    Pair,
    Json,
}

/// A name that a placeholder may have, and whether its value can stand in a body of JSON alone.
pub(super) type Name<'a> = (&'a str, bool);

/// Returns the name in `{mobile}`; None if the text is no placeholder.
fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

impl Message {
    pub fn read(at: &Cursor, operation: Operation, names: &[Name]) -> Read<Self> {
        let resend = if operation == Operation::Resend { "cancel_first keeps_code" } else { "" };
        at.only(&format!("method path query headers json form {resend}"))?;
        let method = at.member("method").given(|at| at.choice(&Method::ALL, Method::as_str))?.unwrap_or(Method::Post);
        let part = |name| at.member(name).value.as_object().cloned();
        let mut message = Self {
            operation,
            method,
            path: at.member("path").text()?,
            query: part("query").unwrap_or_default(),
            headers: part("headers").unwrap_or_default(),
            json: part("json"),
            form: part("form"),
            cancel_first: at.member("cancel_first").flag()?,
            keeps_code: at.member("keeps_code").flag()?,
            uses: BTreeSet::new(),
            literals: Vec::new(),
        };
        let bodies = [&message.json, &message.form].into_iter().flatten().count();
        let most = if method == Method::Get { 0 } else { 1 };
        at.need(bodies <= most, "a message has one body, json or form, and a GET has none")?;
        for (part, position) in [("json", Json), ("form", Pair), ("query", Pair), ("headers", Header)] {
            message.members(&at.member(part), position, names)?;
        }
        message.path(&at.member("path"), names)?;
        Ok(message)
    }

    fn path(&mut self, at: &Cursor, names: &[Name]) -> Read<()> {
        let path = at.text()?;
        at.need(path.starts_with('/'), "a path begins with /")?;
        // A path has nothing that needs to be encoded, that ends a path or leads out of it. The last segment may be
        // empty: `/v2/verify/`.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;={}/".contains(&byte);
        let is_step = |segment: &str| matches!(segment, "." | "..");
        let leads_down = path.bytes().all(is_plain) && !path.contains("//") && !path.split('/').any(is_step);
        at.need(leads_down, "a path has letters, digits and -._~:@!$&'()*+,;= between its slashes, and leads down")?;
        path.split('/').try_for_each(|segment| self.text(at, segment, Path, names))
    }

    /// Checks the members of a query, of headers, of a form or of a JSON body.
    fn members(&mut self, at: &Cursor, position: Position, names: &[Name]) -> Read<()> {
        /// Headers about a message's host, length, body and connection, which a description does not set.
        const OURS: &str = "host content-length content-type transfer-encoding connection keep-alive upgrade te \
                            trailer expect proxy-authorization proxy-connection";
        const SECRETS: &str = "secret password token key authorization cookie";
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        for (name, at) in at.members()? {
            let is_ours = OURS.split(' ').any(|ours| name.eq_ignore_ascii_case(ours));
            let is_header = !name.is_empty() && name.bytes().all(is_token) && !is_ours;
            at.need(position != Header || is_header, "it is no name of a header, or the gateway's own")?;
            let is_literal = at.value.as_str().is_some_and(|text| placeholder(text).is_none());
            if is_literal && SECRETS.split(' ').any(|end| plain(name).ends_with(end)) {
                self.literals.push(at.path.clone());
            }
            self.value(&at, position, names)?;
        }
        Ok(())
    }

    /// Checks a value: in JSON of every kind, elsewhere a text alone.
    fn value(&mut self, at: &Cursor, position: Position, names: &[Name]) -> Read<()> {
        match at.value {
            Value::String(text) => self.text(at, text, position, names),
            _ if position != Json => at.mistake("it is missing, or no text"),
            Value::Array(_) => at.each(|at| self.value(at, position, names)).map(drop),
            Value::Object(_) => self.members(at, position, names),
            _ => Ok(()),
        }
    }

    fn text(&mut self, at: &Cursor, text: &str, position: Position, names: &[Name]) -> Read<()> {
        let name = placeholder(text);
        let is_whole = !name.unwrap_or(text).contains(['{', '}']);
        at.need(is_whole, "a placeholder is a whole value, as {mobile}, and no other braces may stand in a text")?;
        at.need(position != Header || is_header_value(text), "a header holds visible ASCII characters alone")?;
        let Some(name) = name else { return Ok(()) };
        let (_, is_json) = at.find(name, names, |name| name.0)?;
        let is_early = name == "code" && self.operation != Operation::Verify
            || name == "reference" && self.operation == Operation::Send;
        at.need(!is_early, "only a verify has a code, and a send has no reference yet")?;
        at.need(!is_json || position == Json, "a field of the rule json goes into a body of json alone")?;
        self.uses.insert((name.to_owned(), position));
        Ok(())
    }
}

/// The values of one call by the names of their placeholders, as this vendor takes them.
pub(super) struct Values<'a> {
    by_name: Private<Map<String, Value>>,
    pub authorization: Option<Secret>,
    filled: &'a FilledPayload<'a>,
}

impl<'a> Values<'a> {
    pub fn new(description: &Description, call: &Call, filled: &'a FilledPayload) -> Result<Self, Invalid> {
        let ids = [("verification_id", call.verification_id), ("attempt_id", call.attempt_id)].into_iter();
        let credentials = call.credentials.iter().map(|(name, value)| (name.as_str(), value.reveal()));
        let texts = ids.chain(credentials).chain(call.code.map(|code| ("code", code.reveal())));
        let texts = texts.map(|(name, text)| (name.to_owned(), Value::from(text)));
        let mut by_name = Private::from(Map::from_iter(texts));
        by_name.extend(filled.get("reference").map(|reference| ("reference".to_owned(), reference.clone())));
        for field in &description.fields {
            if let Some(value) = filled.get(&field.name) {
                by_name.insert(field.name.clone(), field.as_sent(value)?);
            }
        }
        Ok(Self { by_name, authorization: description.authorization(call), filled })
    }

    /// Fills a template's placeholders. A placeholder that has no value is left out, with its member.
    fn json(&self, template: &Value) -> Option<Value> {
        match template {
            Value::String(text) => placeholder(text).map_or(Some(template), |name| self.by_name.get(name)).cloned(),
            Value::Array(items) => Some(items.iter().filter_map(|item| self.json(item)).collect()),
            Value::Object(members) => Some(Value::Object(self.members(members))),
            _ => Some(template.clone()),
        }
    }

    fn members(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().filter_map(|(name, value)| Some((name.clone(), self.json(value)?))).collect()
    }

    fn texts(&self, members: &Map<String, Value>) -> Vec<(String, Secret)> {
        let values = Private::from(self.members(members));
        values.iter().map(|(name, value)| (name.clone(), Secret::new(plain_text(value)))).collect()
    }

    /// Makes the HTTP request. Fails if a value cannot stand at its position: no path leads elsewhere, no header has a
    /// second line.
    pub fn request(&self, message: &Message) -> Result<HttpRequest, Invalid> {
        let unfit = |name: &str, place, hint| {
            Invalid::new(name, format!("{name} cannot stand in {place}, where this vendor takes it"), hint)
        };
        let encoded = |segment: &str| {
            let Some(name) = placeholder(segment) else { return Ok(segment.to_owned()) };
            let value = self.by_name.get(name).map(plain_text).map(Secret::new).unwrap_or_default();
            let hint = "it is neither empty nor one or two full stops";
            path_segment(value.reveal()).ok_or_else(|| unfit(name, "the path of a URL", hint))
        };
        let path = message.path.split('/').map(encoded).collect::<Result<Vec<_>, _>>()?.join("/");
        let given = self.texts(&message.headers);
        if let Some((header, _)) = given.iter().find(|(_, value)| !is_header_value(value.reveal())) {
            let name = message.headers[header].as_str().and_then(placeholder).unwrap_or_default();
            let hint = "visible ASCII characters alone: no line break, no tab, no space at either end";
            return Err(unfit(name, "an HTTP header", hint));
        }
        let authorization = self.authorization.iter().map(|value| ("authorization".to_owned(), value.clone()));
        let mut headers: Vec<_> = authorization.chain(given).collect();
        let (method, query) = (message.method, self.texts(&message.query));
        if let Some(members) = &message.form {
            return Ok(HttpRequest { method, query, ..form_request(&path, headers, self.members(members)) });
        }
        let Some(members) = &message.json else {
            return Ok(HttpRequest { method, path: Secret::new(path), query, headers, body: Secret::default() });
        };
        let mut members = self.members(members);
        self.filled.lay_extra(&mut members)?;
        headers.push(("Content-Type".into(), Secret::new("application/json")));
        Ok(HttpRequest { method, query, ..json_request(&path, headers, members) })
    }
}
