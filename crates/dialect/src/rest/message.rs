use serde_json::{Map, Value};

use crate::{
    call::{Call, HttpRequest, Method, form_request, is_header_value, json_request, path_segment, plain_text},
    operation::Operation,
    payload::{field::Invalid, fill::FilledPayload},
    rest::Description,
    secret::Secret,
};

/// The HTTP message of one operation. Its texts may be placeholders, whole: `{mobile}`.
pub(super) struct Message {
    pub operation: Operation,
    pub method: Method,
    /// Segments.
    pub path: Vec<String>,
    pub query: Map<String, Value>,
    pub headers: Map<String, Value>,
    pub json: Option<Map<String, Value>>,
    pub form: Option<Map<String, Value>>,
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

/// The name in `{mobile}`; `Err`: there are braces elsewhere.
pub(super) fn placeholder(text: &str) -> Result<Option<&str>, ()> {
    let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let is_whole = !name.unwrap_or(text).contains(['{', '}']);
    is_whole.then_some(name).ok_or(())
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
            Value::String(text) => match placeholder(text) {
                Ok(Some(name)) => self.of(name),
                _ => Some(template.clone()),
            },
            Value::Array(items) => Some(items.iter().filter_map(|item| self.json(item)).collect()),
            Value::Object(members) => Some(Value::Object(self.members(members))),
            _ => Some(template.clone()),
        }
    }

    fn members(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().filter_map(|(name, value)| Some((name.clone(), self.json(value)?))).collect()
    }

    /// A text with its value in it, fit for its place; none: there is no value.
    fn text(&self, template: &str, position: Position) -> Result<Option<Secret>, Invalid> {
        let Ok(Some(name)) = placeholder(template) else { return Ok(Some(Secret::new(template))) };
        let text = self.of(name).map(|value| plain_text(&value));
        let fit = match (position, text) {
            (Position::Path, text) => path_segment(&text.unwrap_or_default())
                .map(Some)
                .ok_or(("the path of a URL", "it is neither empty nor one or two full stops")),
            (Position::Header, Some(text)) if !is_header_value(&text) => {
                Err(("an HTTP header", "visible ASCII characters alone: no line break, no tab, no space at either end"))
            }
            (_, text) => Ok(text),
        };
        fit.map(|text| text.map(Secret::new)).map_err(|(place, hint)| {
            Invalid::new(name, format!("{name} cannot stand in {place}, where this vendor takes it"), hint)
        })
    }

    fn texts(&self, members: &Map<String, Value>, position: Position) -> Result<Vec<(String, Secret)>, Invalid> {
        let text = |(name, template): (&String, &Value)| {
            let text = self.text(template.as_str().unwrap_or_default(), position);
            text.map(|text| text.map(|text| (name.clone(), text))).transpose()
        };
        members.iter().filter_map(text).collect()
    }

    pub fn request(&self, message: &Message) -> Result<HttpRequest, Invalid> {
        let mut path = String::new();
        for segment in &message.path {
            path.push('/');
            path.push_str(self.text(segment, Position::Path)?.unwrap_or_default().reveal());
        }
        let authorization = self.description.authorization(self.call);
        let mut headers = Vec::from_iter(authorization.map(|(value, _)| ("authorization".into(), value)));
        headers.extend(self.texts(&message.headers, Position::Header)?);
        let (method, query) = (message.method, self.texts(&message.query, Position::Pair)?);
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
