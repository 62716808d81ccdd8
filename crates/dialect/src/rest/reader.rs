//! From a description's JSON to what it means: each name known, each value where it can stand, or where the mistake is.

use serde_json::{Map, Value};

use crate::{
    call::{Method, is_header_value},
    operation::Operation::{self, Cancel, Resend, Send, Verify},
    payload::field::plain,
    rest::{
        Description,
        answer::{Line, Place},
        cursor::{Cursor, Read},
        described_field::{DescribedField, GIVEN, read_name},
        message::{Message, Position, placeholder},
    },
};

/// Reads one message: what it may name, and what it has named.
struct Reader<'a> {
    fields: &'a [DescribedField],
    credentials: &'a [String],
    operation: Operation,
    uses: Vec<(String, Position)>,
    /// Where a text stands that may be a credential.
    literals: Vec<String>,
}

const MEMBERS: &str = "fields credentials authorization code_digits code_lifetime max_checks resend_after operations \
                       reference vendor_code vendor_message attempts_left retry_after outcomes sensitive opaque";

pub(super) fn read(top: &Cursor) -> Read<Description> {
    top.only(&MEMBERS.split(' ').collect::<Vec<_>>())?;
    // The names of fields and credentials, and the vendor's own.
    let mut taken = Vec::new();
    let fields =
        top.member("fields").members()?.into_iter().map(|(name, at)| DescribedField::read(&at, name, &mut taken));
    let fields = fields.collect::<Read<Vec<_>>>()?;
    let credentials = top.member("credentials").each(|at| {
        taken.push(read_name(at, at.text()?, &taken)?);
        Ok(taken[taken.len() - 1].clone())
    })?;
    let operations = top.member("operations");
    operations.only(&Operation::ALL.map(Operation::as_str))?;
    let mut messages = Vec::new();
    for operation in Operation::ALL {
        let reader =
            Reader { fields: &fields, credentials: &credentials, operation, uses: Vec::new(), literals: Vec::new() };
        messages.extend(operations.member(operation.as_str()).given(|at| reader.message(at))?);
    }
    let described: Vec<Operation> = messages.iter().map(|message| message.operation).collect();
    let reference = top.member("reference");
    let reference = if reference.value == "{verification_id}" { None } else { Some(reference.each(Place::read)?) };
    let text = |at: &Cursor| at.text().map(str::to_owned);
    let mut opaque = top.member("opaque").each(text)?;
    opaque.extend(reference.iter().flatten().filter_map(Place::id_name));
    let description = Description {
        text: top.value.to_string(),
        authorization: read_authorization(&top.member("authorization"), &credentials)?,
        vendor_code: top.member("vendor_code").each(Place::read)?,
        vendor_message: top.member("vendor_message").each(Place::read)?,
        attempts_left: top.member("attempts_left").each(Place::read)?,
        retry_after: top.member("retry_after").each(Place::read)?,
        lines: top.member("outcomes").each(|at| Line::read(at, &described))?,
        sensitive: top.member("sensitive").each(text)?,
        opaque,
        reference,
        messages,
        fields,
        credentials,
    };
    check_flow(&description, top)?;
    Ok(description)
}

/// That a flow can come of it: somebody gets a code, the vendor compares one, and all that is there is used.
fn check_flow(description: &Description, top: &Cursor) -> Read<()> {
    let has = |operation, name: &str| !description.places_of(operation, name).is_empty();
    let is_used = |name: &str| Operation::ALL.into_iter().any(|operation| has(operation, name));
    let voids = description.message(Resend).is_some_and(|message| message.cancel_first);
    let operation = |operation: Operation| top.member("operations").member(operation.as_str());
    let has_one = has(Verify, "reference") || has(Verify, "mobile");
    let has_cancel = !voids || description.message(Cancel).is_some();
    let has_place = !is_used("reference") || description.reference.as_ref().is_none_or(|places| !places.is_empty());
    let whose = "it has neither {reference} nor {mobile}: whose code it is, nobody knows";
    operation(Send).need(has(Send, "mobile"), "it has no {mobile}: nobody would get a code")?;
    operation(Verify).need(has(Verify, "code"), "it has no {code}: the vendor would compare nothing")?;
    operation(Verify).need(has_one, whose)?;
    operation(Cancel).need(has_cancel, "it is missing, and resend has cancel_first")?;
    top.member("reference").need(has_place, "it is missing: where in an answer it stands")?;
    let mut names = description.fields.iter().map(|field| &field.name).chain(&description.credentials);
    match names.find(|name| !description.authorization.contains(name) && !is_used(name)) {
        Some(idle) => top.mistake(format!("no message has a place for {{{idle}}}")),
        None => Ok(()),
    }
}

fn read_authorization(at: &Cursor, credentials: &[String]) -> Read<Vec<String>> {
    at.only(&["basic", "bearer"])?;
    let credentials: Vec<&String> = credentials.iter().collect();
    let credential = |at: &Cursor| at.choice(&credentials, |name| name.as_str()).cloned();
    let (basic, bearer) = (at.member("basic").each(credential)?, at.member("bearer").each(credential)?);
    match (basic.len(), bearer.len()) {
        (0, 0) if at.value.is_null() => Ok(Vec::new()),
        (2, 0) => Ok(basic),
        (0, 1) => Ok(bearer),
        _ => at.mistake(r#"it is neither {"basic": ["user", "password"]} nor {"bearer": "token"}"#),
    }
}

impl Reader<'_> {
    fn message(mut self, at: &Cursor) -> Read<Message> {
        let members = ["method", "path", "query", "headers", "json", "form", "cancel_first", "keeps_code"];
        // The last two are a resend's.
        at.only(if self.operation == Resend { &members } else { &members[..6] })?;
        let method = at.member("method").given(|at| at.choice(&Method::ALL, |method| method.as_str()))?;
        let mut part = |name, position| at.member(name).given(|at| self.members(at, position));
        let (json, form) = (part("json", Position::Json)?, part("form", Position::Pair)?);
        let query = part("query", Position::Pair)?.unwrap_or_default();
        let headers = part("headers", Position::Header)?.unwrap_or_default();
        if json.is_some() && form.is_some() || method == Some(Method::Get) && (json.is_some() || form.is_some()) {
            return at.mistake("a message has one body, json or form, and a GET has none");
        }
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
            at.need(
                leads_down,
                "a path has letters, digits and -._~:@!$&'()*+,;= between its slashes, and leads down",
            )?;
            self.text(&Cursor { value: &Value::from(*segment), path: at.path.clone() }, Position::Path)?;
        }
        Ok(segments.into_iter().map(str::to_owned).collect())
    }

    /// Those of a query, of headers, of a form: texts all. JSON has others, too.
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
            if SECRETS.split(' ').any(|end| plain(name).ends_with(end))
                && at.value.as_str().is_some_and(|text| placeholder(text) == Ok(None))
            {
                self.literals.push(at.path.clone());
            }
            if position == Position::Json { self.json(&at) } else { self.text(&at, position) }?;
        }
        Ok(at.value.as_object().cloned().unwrap_or_default())
    }

    fn json(&mut self, at: &Cursor) -> Read<()> {
        match at.value {
            Value::String(_) => self.text(at, Position::Json),
            Value::Array(_) => at.each(|at| self.json(at)).map(drop),
            Value::Object(_) => self.members(at, Position::Json).map(drop),
            _ => Ok(()),
        }
    }

    fn text(&mut self, at: &Cursor, position: Position) -> Read<()> {
        let Some(text) = at.value.as_str() else { return at.mistake("it is missing, or no text") };
        let Ok(name) = placeholder(text) else {
            return at.mistake("a placeholder is a whole value, as {mobile}, and no other braces may stand in a text");
        };
        let is_fit = position != Position::Header || is_header_value(text);
        at.need(is_fit, "a header holds visible ASCII characters alone")?;
        let Some(name) = name else { return Ok(()) };
        let field = self.fields.iter().find(|field| field.name == name);
        let names = self.fields.iter().map(|field| &field.name).chain(self.credentials).map(String::as_str);
        at.find(name, &names.chain(GIVEN).collect::<Vec<_>>(), |name| *name)?;
        let is_early = name == "code" && self.operation != Verify || name == "reference" && self.operation == Send;
        at.need(!is_early, "only a verify has a code, and a send has no reference yet")?;
        let is_json = field.is_some_and(DescribedField::is_json);
        at.need(!is_json || position == Position::Json, "a field of the rule json goes into a body of json alone")?;
        if !self.uses.contains(&(name.to_owned(), position)) {
            self.uses.push((name.to_owned(), position));
        }
        Ok(())
    }
}
