//! The field `extra`: what the vendor takes and no table here knows goes into its body as it is, beside what the
//! gateway sets, and never over it.

use serde_json::{Map, Value};

use crate::{
    dialect::Dialect,
    payload::{
        field::{AnyField, Invalid, is_identifier, plain},
        fill::{code_in, is_code},
        rule::Rule,
    },
};

/// What is wrong with the names of `extra`, by those that a call sets.
pub(crate) fn faults(dialect: &Dialect, fields: &[AnyField], extra: Option<&Value>) -> Vec<Invalid> {
    let members = extra.and_then(Value::as_object).into_iter().flatten();
    members.flat_map(|(key, value)| faults_of(dialect, fields, key, value)).collect()
}

fn faults_of(dialect: &Dialect, fields: &[AnyField], key: &str, value: &Value) -> Vec<Invalid> {
    if is_code(key) {
        return vec![code_in(key, "extra")];
    }
    let over = |path: &str, name: &str| {
        let message = format!("extra.{path} would go over {name}, which is a field of its own");
        Invalid::new(format!("extra.{path}"), message, format!("give {name} beside extra"))
    };
    // A vendor may read names without regard to their case: another spelling of ours is ours.
    let is_same = |name: &str, key: &str| plain(name) == plain(key);
    let is_of =
        |field: &AnyField, key: &str| field.is_called(key) || is_same(field.name, key) || is_same(field.wire, key);
    // In an object of the gateway's own the members count, each for itself.
    match (fields.iter().find(|field| is_of(field, key)), value) {
        (Some(AnyField { name, wire, rule: Rule::Object { members, .. }, .. }), Value::Object(given))
            if *wire == key =>
        {
            let known = given.keys().filter_map(|inner| members.iter().find(|member| is_of(member, inner)));
            known.map(|member| over(&format!("{key}.{}", member.wire), &format!("{name}.{}", member.name))).collect()
        }
        (Some(field), _) => vec![over(key, field.name)],
        (None, Value::Object(_)) => Vec::new(),
        (None, _) => {
            let is_set = dialect.set_members().any(|name| is_same(name, key));
            is_set.then(|| set(key)).into_iter().collect()
        }
    }
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
        if !body.contains_key(key) && body.keys().any(|name| plain(name) == plain(key)) {
            faults.push(set(&path));
            continue;
        }
        match (body.get_mut(key), value) {
            (Some(Value::Object(body)), Value::Object(extra)) => beside(body, extra, &format!("{path}."), faults),
            (Some(_), _) => faults.push(set(&path)),
            (None, _) if !at.is_empty() && is_code(key) => faults.push(code_in(key, "extra")),
            (None, _) => drop(body.insert(key.clone(), value.clone())),
        }
    }
}
