//! From a description's JSON to what it means: each name known, each value where it can stand, or where the mistake is.

use serde_json::{Map, Value};

use crate::{
    call::Method,
    operation::Operation,
    payload::suggest::nearest,
    rest::{
        Authorization, Description,
        answer::{Line, Places},
        cursor::{Cursor, Read},
        described_field::{DescribedField, GIVEN, read_name},
        message::{Message, is_visible, placeholder},
    },
};

/// Where a placeholder stands.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Path,
    Header,
    Plain,
    Json,
}

/// What messages may name, and what they have named.
struct Reader<'a> {
    fields: &'a [DescribedField],
    credentials: &'a [String],
    uses: Vec<(Operation, String, Position)>,
}

const MEMBERS: &str = "fields credentials authorization code_digits code_lifetime max_checks resend_after operations \
                       reference vendor_code vendor_message attempts_left retry_after outcomes sensitive opaque";

pub(super) fn read(top: &Cursor) -> Read<Description> {
    top.only(&MEMBERS.split(' ').collect::<Vec<_>>())?;
    let (fields, credentials) = (read_fields(&top.member("fields"))?, read_credentials(top)?);
    let authorization = read_authorization(&top.member("authorization"), &credentials)?;
    let mut reader = Reader { fields: &fields, credentials: &credentials, uses: Vec::new() };
    let operations = top.member("operations");
    operations.only(&Operation::ALL.map(Operation::as_str))?;
    let mut messages = [const { None }; 4];
    for operation in Operation::ALL {
        let at = operations.member(operation.as_str());
        if !at.is_missing() {
            messages[operation as usize] = Some(reader.message(operation, &at)?);
        }
    }
    let uses = reader.uses;
    let has = |operation, name: &str| uses.iter().any(|(of, used, _)| *of == operation && used == name);
    for (operation, name, why) in [
        (Operation::Send, "mobile", "nobody would get a code"),
        (Operation::Verify, "code", "the vendor would compare nothing"),
    ] {
        if !has(operation, name) {
            return operations.member(operation.as_str()).mistake(format!("it has no {{{name}}}: {why}"));
        }
    }
    let is_found_by_reference = has(Operation::Verify, "reference");
    if !is_found_by_reference && !has(Operation::Verify, "mobile") {
        return operations
            .member("verify")
            .mistake("it has neither {reference} nor {mobile}: whose code it is, nobody knows");
    }
    let resends = |message: &Option<Message>| message.as_ref().is_some_and(|message| message.cancel_first);
    if resends(&messages[Operation::Resend as usize]) && messages[Operation::Cancel as usize].is_none() {
        return operations.member("cancel").mistake("it is missing, and resend has cancel_first");
    }
    let at = top.member("reference");
    let gives_reference = at.value == "{verification_id}";
    let reference = if gives_reference { Places::default() } else { Places::read(&at)? };
    if uses.iter().any(|(_, name, _)| name == "reference") && !gives_reference && reference.is_empty() {
        return at.mistake("it is missing: where in an answer it stands");
    }
    let is_sent = |name: &str| authorization.iter().any(|one| one.holds(name)) || uses.iter().any(|one| one.1 == name);
    if let Some(idle) = fields.iter().map(|field| &field.name).chain(&credentials).find(|name| !is_sent(name)) {
        return top.mistake(format!("no message has a place for {{{idle}}}"));
    }
    let described: Vec<Operation> =
        Operation::ALL.into_iter().filter(|operation| messages[*operation as usize].is_some()).collect();
    let text = |at: &Cursor| at.text().map(str::to_owned);
    let mut opaque = top.member("opaque").each(text)?;
    opaque.extend(reference.names());
    let in_header = |name: &&String| {
        let is_bearer = matches!(&authorization, Some(Authorization::Bearer(token)) if token == *name);
        is_bearer || uses.iter().any(|(_, used, position)| used == *name && *position == Position::Header)
    };
    Ok(Description {
        text: top.value.to_string(),
        takes: Operation::ALL.map(|operation| takes_of(operation, &messages, &uses)),
        header_credentials: credentials.iter().filter(in_header).cloned().collect(),
        is_found_by_reference,
        gives_reference,
        reference,
        vendor_code: Places::read(&top.member("vendor_code"))?,
        vendor_message: Places::read(&top.member("vendor_message"))?,
        attempts_left: Places::read(&top.member("attempts_left"))?,
        retry_after: Places::read(&top.member("retry_after"))?,
        lines: top.member("outcomes").each(|at| Line::read(at, &described))?,
        sensitive: top.member("sensitive").each(text)?,
        opaque,
        messages,
        authorization,
        fields,
        credentials,
    })
}

/// What an operation takes from the payload or the record, and whether its path does.
fn takes_of(
    operation: Operation,
    messages: &[Option<Message>; 4],
    uses: &[(Operation, String, Position)],
) -> Vec<(String, bool)> {
    let voids = messages[operation as usize].as_ref().is_some_and(|message| message.cancel_first);
    let mut takes: Vec<(String, bool)> = Vec::new();
    for (_, name, position) in uses.iter().filter(|(of, ..)| *of == operation || voids && *of == Operation::Cancel) {
        match takes.iter_mut().find(|(taken, _)| taken == name) {
            Some((_, in_path)) => *in_path |= *position == Position::Path,
            None => takes.push((name.clone(), *position == Position::Path)),
        }
    }
    takes
}

fn read_fields(at: &Cursor) -> Read<Vec<DescribedField>> {
    let mut fields: Vec<DescribedField> = Vec::new();
    for (name, at) in at.members()? {
        let field = DescribedField::read(&at, name)?;
        let is_called = |other: &DescribedField| {
            [&field.name, &field.vendor_name].iter().any(|name| [&other.name, &other.vendor_name].contains(name))
        };
        if fields.iter().any(is_called) || GIVEN.contains(&field.vendor_name.as_str()) {
            return at.mistake("another field is called so");
        }
        if name == "mobile" && !field.is_phone_number() {
            return at.mistake("a code goes to the rule phone");
        }
        fields.push(field);
    }
    Ok(fields)
}

fn read_credentials(top: &Cursor) -> Read<Vec<String>> {
    let mut credentials: Vec<String> = Vec::new();
    top.member("credentials").each(|at| {
        let name = read_name(at, at.text()?)?;
        let is_ours = name.ends_with("_file") || matches!(name.as_str(), "proxy_user" | "proxy_password");
        if is_ours || credentials.contains(&name) || !top.member("fields").member(&name).is_missing() {
            return at.mistake("the name is taken, by another of them, a field or the gateway itself");
        }
        credentials.push(name);
        Ok(())
    })?;
    Ok(credentials)
}

fn read_authorization(at: &Cursor, credentials: &[String]) -> Read<Option<Authorization>> {
    at.only(&["basic", "bearer"])?;
    let credential = |at: &Cursor| match at.text()? {
        name if credentials.iter().any(|credential| credential == name) => Ok(name.to_owned()),
        _ => at.mistake("it is none of credentials"),
    };
    match (at.member("basic").each(credential)?.as_slice(), at.member("bearer").each(credential)?.as_slice()) {
        ([], []) if at.is_missing() => Ok(None),
        ([user, password], []) => Ok(Some(Authorization::Basic(user.clone(), password.clone()))),
        ([], [token]) => Ok(Some(Authorization::Bearer(token.clone()))),
        _ => at.mistake(r#"it is neither {"basic": ["user", "password"]} nor {"bearer": "token"}"#),
    }
}

impl Reader<'_> {
    fn message(&mut self, operation: Operation, at: &Cursor) -> Read<Message> {
        at.only(&["method", "path", "query", "headers", "json", "form", "cancel_first", "keeps_code"])?;
        let (method, json, form) = (at.member("method"), at.member("json"), at.member("form"));
        let message = Message {
            method: if method.is_missing() { None } else { Some(method.choice(&Method::ALL, Method::as_str)?) },
            path: self.path(operation, &at.member("path"))?,
            query: self.texts(operation, &at.member("query"), Position::Plain)?.unwrap_or_default(),
            headers: self.texts(operation, &at.member("headers"), Position::Header)?.unwrap_or_default(),
            json: self.json(operation, &json)?,
            form: self.texts(operation, &form, Position::Plain)?,
            cancel_first: at.member("cancel_first").flag()?,
            keeps_code: at.member("keeps_code").flag()?,
        };
        let is_get = message.method == Some(Method::Get);
        if message.json.is_some() && message.form.is_some()
            || is_get && (message.json.is_some() || message.form.is_some())
        {
            return at.mistake("a message has one body, json or form, and a GET has none");
        }
        if (message.cancel_first || message.keeps_code) && operation != Operation::Resend {
            return at.mistake("cancel_first and keeps_code are of a resend alone");
        }
        Ok(message)
    }

    fn path(&mut self, operation: Operation, at: &Cursor) -> Read<Vec<String>> {
        let Some(path) = at.text()?.strip_prefix('/') else { return at.mistake("a path begins with /") };
        let segments: Vec<&str> = path.split('/').collect();
        for (number, segment) in segments.iter().enumerate() {
            // Nothing that needs to be encoded, that ends a path or leads out of it. The last may be empty: `/v2/verify/`.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;={}".contains(&byte);
            let is_gap = segment.is_empty() && number + 1 < segments.len();
            if !segment.bytes().all(is_plain) || matches!(*segment, "." | "..") || is_gap {
                return at
                    .mistake("a path has letters, digits and -._~:@!$&'()*+,;= between its slashes, and leads down");
            }
            let value = Value::from(*segment);
            self.text(operation, &Cursor { value: &value, path: at.path.clone() }, Position::Path)?;
        }
        Ok(segments.into_iter().map(str::to_owned).collect())
    }

    /// Members that are texts, if there are any.
    fn texts(&mut self, operation: Operation, at: &Cursor, position: Position) -> Read<Option<Map<String, Value>>> {
        /// What a message itself says of its host, length and body is not a description's.
        const OURS: &str = "host content-length content-type transfer-encoding connection keep-alive upgrade te trailer \
                            expect proxy-authorization proxy-connection";
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        for (name, at) in at.members()? {
            let is_ours = OURS.split(' ').any(|ours| name.eq_ignore_ascii_case(ours));
            if position == Position::Header && (name.is_empty() || !name.bytes().all(is_token) || is_ours) {
                return at.mistake("it is no name of a header, or the gateway's own");
            }
            self.text(operation, &at, position)?;
        }
        Ok(at.value.as_object().cloned())
    }

    /// A body, if there is one.
    fn json(&mut self, operation: Operation, at: &Cursor) -> Read<Option<Map<String, Value>>> {
        for (_, at) in at.members()? {
            self.each_text(operation, &at)?;
        }
        Ok(at.value.as_object().cloned())
    }

    fn each_text(&mut self, operation: Operation, at: &Cursor) -> Read<()> {
        match at.value {
            Value::String(_) => self.text(operation, at, Position::Json),
            Value::Array(_) => at.each(|at| self.each_text(operation, at)).map(drop),
            Value::Object(_) => self.json(operation, at).map(drop),
            _ => Ok(()),
        }
    }

    fn text(&mut self, operation: Operation, at: &Cursor, position: Position) -> Read<()> {
        let text = at.text()?;
        let Ok(name) = placeholder(text) else {
            return at.mistake("a placeholder is a whole value, as {mobile}, and no other braces may stand in a text");
        };
        let Some(name) = name else {
            return match position == Position::Header && !is_visible(text) {
                true => at.mistake("a header holds visible ASCII characters alone"),
                false => Ok(()),
            };
        };
        let field = self.fields.iter().find(|field| field.name == name);
        let names = || self.credentials.iter().map(String::as_str).chain(GIVEN);
        if field.is_none() && !names().any(|other| other == name) {
            let near = nearest(name, self.fields.iter().map(|field| field.name.as_str()).chain(names()));
            let meant = near.map_or_else(String::new, |near| format!("; did you mean {{{near}}}?"));
            return at.mistake(format!("there is no field, credential or value of that name{meant}"));
        }
        if name == "code" && operation != Operation::Verify || name == "reference" && operation == Operation::Send {
            return at.mistake("only a verify has a code, and a send has no reference yet");
        }
        if field.is_some_and(DescribedField::is_json) && position != Position::Json {
            return at.mistake("a field of the rule json goes into a body of json alone");
        }
        self.uses.push((operation, name.to_owned(), position));
        Ok(())
    }
}
