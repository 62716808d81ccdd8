use serde_json::{Map, Value};

use crate::{
    call::{Call, HttpRequest, Method, form_body, path_segment},
    payload::{field::Invalid, fill::FilledPayload},
    rest::{Authorization, Description},
    secret::{Private, Secret},
};

/// The HTTP message of one operation. Its texts may be placeholders, whole: `{mobile}`.
#[derive(Default)]
pub(super) struct Message {
    pub method: Option<Method>,
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
                Some(self.description.field(name).map_or_else(|| value.clone(), |field| field.as_sent(value)))
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

    /// The same where there are texts alone.
    fn texts(&self, members: &Map<String, Value>) -> Vec<(String, Secret)> {
        let text = |value: Value| Secret::new(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        self.members(members).into_iter().map(|(name, value)| (name, text(value))).collect()
    }

    fn path(&self, message: &Message) -> Result<Secret, Invalid> {
        let mut path = String::new();
        for segment in &message.path {
            path.push('/');
            let Ok(Some(name)) = placeholder(segment) else {
                path.push_str(segment);
                continue;
            };
            let value = self.of(name).unwrap_or_default();
            let encoded = path_segment(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            path.push_str(&encoded.ok_or_else(|| {
                let hint = "it is neither empty nor one or two full stops";
                Invalid::new(name, format!("{name} cannot stand in the path of a URL"), hint)
            })?);
        }
        Ok(Secret::new(path))
    }

    fn headers(&self, message: &Message) -> Result<Vec<(String, Secret)>, Invalid> {
        let credential = |name: &str| self.call.credentials.get(name).cloned().unwrap_or_default();
        let authorization = self.description.authorization.as_ref().map(|authorization| match authorization {
            Authorization::Basic(user, password) => {
                format!("Basic {}", Secret::basic(&credential(user), &credential(password)).reveal())
            }
            Authorization::Bearer(token) => format!("Bearer {}", credential(token).reveal()),
        });
        let authorization = authorization.map(|value| ("authorization".to_owned(), Secret::new(value)));
        let headers: Vec<_> = authorization.into_iter().chain(self.texts(&message.headers)).collect();
        match headers.iter().find(|(_, value)| !is_visible(value.reveal())) {
            None => Ok(headers),
            Some((header, _)) => {
                let field = message
                    .headers
                    .get(header)
                    .and_then(Value::as_str)
                    .and_then(|text| placeholder(text).ok()?)
                    .unwrap_or(header);
                Err(Invalid::new(
                    field,
                    format!("{field} cannot stand in an HTTP header, where this vendor takes it"),
                    "visible ASCII characters alone: no line break, no tab, no space at either end",
                ))
            }
        }
    }

    pub fn request(&self, message: &Message) -> Result<HttpRequest, Invalid> {
        let mut headers = self.headers(message)?;
        let mut is_of = |kind: &str| headers.push(("content-type".into(), Secret::new(kind)));
        let mut body = Secret::default();
        if let Some(members) = &message.json {
            is_of("application/json");
            let mut members = self.members(members);
            self.filled.lay_extra(&mut members)?;
            body = Secret::new(Private::from(Value::Object(members)).to_string());
        } else if let Some(members) = &message.form {
            is_of("application/x-www-form-urlencoded");
            body = form_body(&Private::from(self.members(members)));
        }
        let (method, query) = (message.method.unwrap_or(Method::Post), self.texts(&message.query));
        Ok(HttpRequest { method, path: self.path(message)?, query, headers, body })
    }
}

/// Whether it can stand in a header.
pub(super) fn is_visible(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value
}
