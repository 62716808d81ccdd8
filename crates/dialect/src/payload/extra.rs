//! The field `extra`: members that the vendor takes and that no table here knows. They go into the body as they are,
//! beside what the gateway sets and never in its place. The variables of a vendor's template go the same way.

use serde_json::{Map, Value};

use crate::{
    dialect::Dialect,
    payload::{
        field::{AnyField, Invalid, is_identifier, plain},
        fill::{code_in, is_code},
        rule::Rule,
    },
};

/// Returns what is wrong with the names in `extra`: they may name no field and no code. `place` is the field's name.
pub(crate) fn faults(dialect: &Dialect, fields: &[AnyField], place: &str, extra: Option<&Value>) -> Vec<Invalid> {
    let members = extra.and_then(Value::as_object).into_iter().flatten();
    members.flat_map(|(key, value)| faults_of(dialect, fields, place, key, value)).collect()
}

fn faults_of(dialect: &Dialect, fields: &[AnyField], place: &str, key: &str, value: &Value) -> Vec<Invalid> {
    if is_code(key) {
        return vec![code_in(key, place)];
    }
    let over = |path: &str, name: &str| {
        let message = format!("{place}.{path} would go over {name}, which is a field of its own");
        Invalid::new(format!("{place}.{path}"), message, format!("give {name} beside {place}"))
    };
    // A vendor may read names without regard to case: another spelling of a name of ours counts as that name.
    let is_same = |name: &str, key: &str| plain(name) == plain(key);
    let is_of =
        |field: &AnyField, key: &str| field.is_called(key) || is_same(field.name, key) || is_same(field.wire, key);
    // In an object that the gateway sets itself, each member of `extra` is compared with that object's members.
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
            is_set.then(|| set(place, key)).into_iter().collect()
        }
    }
}

fn set(place: &str, path: &str) -> Invalid {
    let (field, message) = match path.rsplit('.').all(is_identifier) {
        true => (format!("{place}.{path}"), format!("{place}.{path} would go over what the gateway sets itself")),
        false => (place.to_owned(), format!("{place} has a member that would go over what the gateway sets itself")),
    };
    Invalid::new(field, message, format!("leave it out of {place}"))
}

/// Adds the members of `extra` to the body; fails if one would replace what the body has.
pub(crate) fn lay(body: &mut Map<String, Value>, place: &str, extra: &Map<String, Value>) -> Result<(), Invalid> {
    let mut faults = Vec::new();
    beside(body, place, extra, "", &mut faults);
    Invalid::all(faults)
}

fn beside(body: &mut Map<String, Value>, place: &str, extra: &Map<String, Value>, at: &str, faults: &mut Vec<Invalid>) {
    for (key, value) in extra {
        let path = format!("{at}{key}");
        if !body.contains_key(key) && body.keys().any(|name| plain(name) == plain(key)) {
            faults.push(set(place, &path));
            continue;
        }
        match (body.get_mut(key), value) {
            (Some(Value::Object(body)), Value::Object(extra)) => {
                beside(body, place, extra, &format!("{path}."), faults)
            }
            (Some(_), _) => faults.push(set(place, &path)),
            (None, _) if !at.is_empty() && is_code(key) => faults.push(code_in(key, place)),
            (None, _) => drop(body.insert(key.clone(), value.clone())),
        }
    }
}
