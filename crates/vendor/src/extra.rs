//! The field `extra`: what the vendor takes and no table here knows goes into its body as it is, beside what the
//! gateway sets, and never over it.

use serde_json::{Map, Value};

use crate::{
    Dialect, Field, Invalid,
    field::is_identifier,
    filled::{code_in, is_code},
};

/// What is wrong with the names of `extra`, by those that a call sets.
pub(crate) fn faults(dialect: &Dialect, fields: &[&Field], extra: Option<&Value>) -> Vec<Invalid> {
    let members = extra.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| fault(dialect, fields, key, value)).collect()
}

fn fault(dialect: &Dialect, fields: &[&Field], key: &str, value: &Value) -> Option<Invalid> {
    if is_code(key) {
        return Some(code_in(key, "extra"));
    }
    if let Some(field) = fields.iter().find(|field| field.is_called(key)) {
        let message = format!("extra.{key} would go over {}, which is a field of its own", field.name);
        return Some(Invalid::new(format!("extra.{key}"), message, format!("give {} beside extra", field.name)));
    }
    // In an object of the gateway's own the members count, each for itself.
    let is_set = dialect.set_members.contains(&key) && !value.is_object();
    is_set.then(|| set(key))
}

fn set(path: &str) -> Invalid {
    let (field, message) = match path.rsplit('.').all(is_identifier) {
        true => (format!("extra.{path}"), format!("extra.{path} would go over what the gateway sets itself")),
        false => ("extra".to_owned(), "extra has a member that would go over what the gateway sets itself".to_owned()),
    };
    Invalid::new(field, message, "leave it out of extra")
}

/// Lays the members of `extra` beside those of the body.
pub(crate) fn lay(body: &mut Map<String, Value>, extra: &Map<String, Value>) -> Result<(), Invalid> {
    let mut faults = Vec::new();
    beside(body, extra, "", &mut faults);
    Invalid::all(faults)
}

fn beside(body: &mut Map<String, Value>, extra: &Map<String, Value>, at: &str, faults: &mut Vec<Invalid>) {
    for (key, value) in extra {
        let path = format!("{at}{key}");
        match (body.get_mut(key), value) {
            (Some(Value::Object(body)), Value::Object(extra)) => beside(body, extra, &format!("{path}."), faults),
            (Some(_), _) => faults.push(set(&path)),
            (None, _) if !at.is_empty() && is_code(key) => faults.push(code_in(key, "extra")),
            (None, _) => drop(body.insert(key.clone(), value.clone())),
        }
    }
}
