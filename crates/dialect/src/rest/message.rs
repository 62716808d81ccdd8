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
        described_field::{DescribedField, GIVEN},
    },
    secret::Secret,
};

/// The HTTP message of one operation. Its texts may be placeholders, whole: `{mobile}`.
pub(super) struct Message {
    pub operation: Operation,
    method: Method,
    /// Segments.
    path: Vec<String>,
    query: Map<String, Value>,
    headers: Map<String, Value>,
    pub json: Option<Map<String, Value>>,
    form: Option<Map<String, Value>>,
    /// The cancel goes first, and a resend is a send of its own then.
    pub cancel_first: bool,
    /// The vendor sends the code that it has sent before.
    pub keeps_code: bool,
    /// Which value stands where.
    pub uses: Vec<(String, Position)>,
    /// Where a text stands that may be a credential.
    pub literals: Vec<String>,
}

/// Where in a message a value stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Position {
    Path,
    Header,
    /// A query or a form.
    Pair,
    Json,
}

/// The name in `{mobile}`.
fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

/// Reads one message: what it may name, and what it has named.
pub(super) struct Reader<'a> {
    fields: &'a [DescribedField],
    /// All that a placeholder may name.
    names: Vec<&'a str>,
    operation: Operation,
    uses: Vec<(String, Position)>,
    literals: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(operation: Operation, fields: &'a [DescribedField], credentials: &'a [String]) -> Self {
        let names = fields.iter().map(|field| &field.name).chain(credentials).map(String::as_str);
        let names = names.chain(GIVEN).collect();
        Self { fields, names, operation, uses: Vec::new(), literals: Vec::new() }
    }

    pub fn message(mut self, at: &Cursor) -> Read<Message> {
        let resend = if self.operation == Operation::Resend { "cancel_first keeps_code" } else { "" };
        at.only(&format!("method path query headers json form {resend}"))?;
        let method = at.member("method").given(|at| at.choice(&Method::ALL, Method::as_str))?;
        let mut part = |name, position| at.member(name).given(|at| self.members(at, position));
        let (json, form) = (part("json", Position::Json)?, part("form", Position::Pair)?);
        let query = part("query", Position::Pair)?.unwrap_or_default();
        let headers = part("headers", Position::Header)?.unwrap_or_default();
        let bodies = [&json, &form].into_iter().flatten().count();
        let most = if method == Some(Method::Get) { 0 } else { 1 };
        at.need(bodies <= most, "a message has one body, json or form, and a GET has none")?;
        Ok(Message {
            operation: self.operation,
            method: method.unwrap_or(Method::Post),
            path: self.path(&at.member("path"))?,
            query,
            headers,
            json,
            form,
            cancel_first: at.member("cancel_first").flag()?,
            keeps_code: at.member("keeps_code").flag()?,
            uses: self.uses,
            literals: self.literals,
        })
    }

    fn path(&mut self, at: &Cursor) -> Read<Vec<String>> {
        let path = at.text()?;
        at.need(path.starts_with('/'), "a path begins with /")?;
        let segments: Vec<&str> = path[1..].split('/').collect();
        for (number, segment) in segments.iter().enumerate() {
            // Nothing that needs to be encoded, that ends a path or leads out of it. The last may be empty:
            // `/v2/verify/`.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;={}".contains(&byte);
            let is_gap = segment.is_empty() && number + 1 < segments.len();
            let leads_down = segment.bytes().all(is_plain) && !matches!(*segment, "." | "..") && !is_gap;
            let what = "a path has letters, digits and -._~:@!$&'()*+,;= between its slashes, and leads down";
            at.need(leads_down, what)?;
            self.text(at, segment, Position::Path)?;
        }
        Ok(segments.into_iter().map(str::to_owned).collect())
    }

    /// Those of a query, of headers, of a form, of a body.
    fn members(&mut self, at: &Cursor, position: Position) -> Read<Map<String, Value>> {
        /// What a message itself says of its host, length and body is not a description's.
        const OURS: &str = "host content-length content-type transfer-encoding connection keep-alive upgrade te \
                            trailer expect proxy-authorization proxy-connection";
        const SECRETS: &str = "secret password token key authorization cookie";
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        for (name, at) in at.members()? {
            let is_ours = OURS.split(' ').any(|ours| name.eq_ignore_ascii_case(ours));
            let is_header = !name.is_empty() && name.bytes().all(is_token) && !is_ours;
            at.need(position != Position::Header || is_header, "it is no name of a header, or the gateway's own")?;
            let is_literal = at.value.as_str().is_some_and(|text| placeholder(text).is_none());
            if is_literal && SECRETS.split(' ').any(|end| plain(name).ends_with(end)) {
                self.literals.push(at.path.clone());
            }
            self.value(&at, position)?;
        }
        Ok(at.value.as_object().cloned().unwrap_or_default())
    }

    fn value(&mut self, at: &Cursor, position: Position) -> Read<()> {
        match at.value {
            Value::String(text) => self.text(at, text, position),
            _ if position != Position::Json => at.mistake("it is missing, or no text"),
            Value::Array(_) => at.each(|at| self.value(at, position)).map(drop),
            Value::Object(_) => self.members(at, position).map(drop),
            _ => Ok(()),
        }
    }

    fn text(&mut self, at: &Cursor, text: &str, position: Position) -> Read<()> {
        let name = placeholder(text);
        let is_whole = !name.unwrap_or(text).contains(['{', '}']);
        at.need(is_whole, "a placeholder is a whole value, as {mobile}, and no other braces may stand in a text")?;
        let is_fit = position != Position::Header || is_header_value(text);
        at.need(is_fit, "a header holds visible ASCII characters alone")?;
        let Some(name) = name else { return Ok(()) };
        at.find(name, &self.names, |name| name)?;
        let is_early = name == "code" && self.operation != Operation::Verify
            || name == "reference" && self.operation == Operation::Send;
        at.need(!is_early, "only a verify has a code, and a send has no reference yet")?;
        let is_json = self.fields.iter().any(|field| field.name == name && field.is_json());
        at.need(!is_json || position == Position::Json, "a field of the rule json goes into a body of json alone")?;
        if !self.uses.iter().any(|(used, at)| used == name && *at == position) {
            self.uses.push((name.to_owned(), position));
        }
        Ok(())
    }
}

/// The values of one call, each encoded for the place where it goes.
pub(super) struct Values<'a> {
    pub description: &'a Description,
    pub call: &'a Call<'a>,
    pub filled: &'a FilledPayload<'a>,
}

impl Values<'_> {
    /// What stands for a placeholder; none: the payload has no such field.
    fn of(&self, name: &str) -> Option<Value> {
        match (name, self.call.credentials.get(name)) {
            ("code", _) => Some(self.call.code?.reveal().into()),
            ("verification_id", _) => Some(self.call.verification_id.into()),
            ("attempt_id", _) => Some(self.call.attempt_id.into()),
            (_, Some(credential)) => Some(credential.reveal().into()),
            (_, None) => {
                let value = self.filled.get(name)?;
                self.description.field(name).map_or_else(|| Some(value.clone()), |field| field.as_sent(value))
            }
        }
    }

    /// JSON with values in it. What has none is left out.
    fn json(&self, template: &Value) -> Option<Value> {
        match template {
            Value::String(text) => placeholder(text).map_or_else(|| Some(template.clone()), |name| self.of(name)),
            Value::Array(items) => Some(items.iter().filter_map(|item| self.json(item)).collect()),
            Value::Object(members) => Some(Value::Object(self.members(members))),
            _ => Some(template.clone()),
        }
    }

    fn members(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().filter_map(|(name, value)| Some((name.clone(), self.json(value)?))).collect()
    }

    /// Each value is fit for its place: no path leads elsewhere, no header has a second line.
    pub fn request(&self, message: &Message) -> Result<HttpRequest, Invalid> {
        let unfit = |name: &str, place, hint| {
            Invalid::new(name, format!("{name} cannot stand in {place}, where this vendor takes it"), hint)
        };
        let mut path = String::new();
        for segment in &message.path {
            path.push('/');
            let Some(name) = placeholder(segment) else {
                path.push_str(segment);
                continue;
            };
            let value = self.of(name).as_ref().map(plain_text).unwrap_or_default();
            let hint = "it is neither empty nor one or two full stops";
            path.push_str(&path_segment(&value).ok_or_else(|| unfit(name, "the path of a URL", hint))?);
        }
        let texts = |members| {
            let members = self.members(members).into_iter();
            members.map(|(name, value)| (name, Secret::new(plain_text(&value))))
        };
        let authorization = self.description.authorization(self.call);
        let mut headers = Vec::from_iter(authorization.map(|value| ("authorization".into(), value)));
        for (header, value) in texts(&message.headers) {
            if !is_header_value(value.reveal()) {
                let name = message.headers[&header].as_str().and_then(placeholder).unwrap_or_default();
                let hint = "visible ASCII characters alone: no line break, no tab, no space at either end";
                return Err(unfit(name, "an HTTP header", hint));
            }
            headers.push((header, value));
        }
        let (method, query) = (message.method, texts(&message.query).collect());
        Ok(match (&message.json, &message.form) {
            (Some(members), _) => {
                let mut members = self.members(members);
                self.filled.lay_extra(&mut members)?;
                headers.push(("Content-Type".into(), Secret::new("application/json")));
                HttpRequest { method, query, ..json_request(&path, headers, members) }
            }
            (None, Some(members)) => {
                HttpRequest { method, query, ..form_request(&path, headers, self.members(members)) }
            }
            (None, None) => HttpRequest { method, path: Secret::new(path), query, headers, body: Secret::default() },
        })
    }
}
