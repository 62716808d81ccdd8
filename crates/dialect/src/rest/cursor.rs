use std::fmt::Display;

use serde_json::Value;

use crate::payload::suggest::nearest;

/// A place in a description, and the way to it.
pub(super) struct Cursor<'a> {
    pub value: &'a Value,
    pub path: String,
}

/// What is read, or where which mistake is.
pub(super) type Read<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    pub fn mistake<T>(&self, what: impl Display) -> Read<T> {
        let path = if self.path.is_empty() { "its top" } else { &self.path };
        Err(format!("at {path}: {what}"))
    }

    /// An object's members, in their order; of what is not there none.
    pub fn members(&self) -> Read<Vec<(&'a str, Self)>> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(members) => Ok(members.keys().map(|name| (name.as_str(), self.member(name))).collect()),
            _ => self.mistake("it is no object"),
        }
    }

    /// One of them; null if it is not there.
    pub fn member(&self, name: &str) -> Self {
        // A pointer, or a name with a dot in it, is one step.
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let dot = if self.path.is_empty() { "" } else { "." };
        let step = if is_plain { format!("{dot}{name}") } else { format!("[{name:?}]") };
        Self { value: &self.value[name], path: format!("{}{step}", self.path) }
    }

    /// That an object has no members but these, and what is said for the reader alone.
    pub fn only(&self, names: &[&str]) -> Read<()> {
        for (name, at) in self.members()? {
            if name != "about" && !names.contains(&name) {
                let near = nearest(name, names.iter().copied());
                let meant = near
                    .map_or_else(|| format!("there are: {}", names.join(", ")), |near| format!("did you mean {near}?"));
                return at.mistake(format!("there is no such member; {meant}"));
            }
        }
        Ok(())
    }

    pub fn is_missing(&self) -> bool {
        self.value.is_null()
    }

    /// An array's items; anything else itself; of what is not there none.
    pub fn each<T>(&self, mut read: impl FnMut(&Self) -> Read<T>) -> Read<Vec<T>> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) if items.len() <= MOST => {
                let item = |(number, value)| read(&Self { value, path: format!("{}[{number}]", self.path) });
                items.iter().enumerate().map(item).collect()
            }
            Value::Array(_) => self.mistake(format!("there are more than {MOST}")),
            _ => Ok(vec![read(self)?]),
        }
    }

    pub fn text(&self) -> Read<&'a str> {
        self.value.as_str().map_or_else(|| self.mistake("it is missing, or no text"), Ok)
    }

    /// Which of these it names.
    pub fn choice<T: Copy>(&self, choices: &[T], name: impl Fn(T) -> &'static str) -> Read<T> {
        let text = self.text()?;
        let names = || choices.iter().map(|choice| name(*choice)).collect::<Vec<_>>().join(", ");
        let found = choices.iter().copied().find(|choice| name(*choice) == text);
        found.map_or_else(|| self.mistake(format!("it is none of {}", names())), Ok)
    }

    pub fn flag(&self) -> Read<bool> {
        let flag = if self.is_missing() { Some(false) } else { self.value.as_bool() };
        flag.map_or_else(|| self.mistake("it is neither true nor false"), Ok)
    }

    pub fn number(&self, least: u64, most: u64) -> Read<Option<u64>> {
        let number = self.value.as_u64().filter(|number| (least..=most).contains(number));
        match number.is_none() && !self.is_missing() {
            true => self.mistake(format!("it is no whole number from {least} to {most}")),
            false => Ok(number),
        }
    }
}

/// More of a kind are no description of a vendor, and each costs time with each call.
const MOST: usize = 256;
