use std::fmt::Display;

use serde_json::{Map, Value};

use crate::payload::suggest::nearest;

/// How many items of a kind a description may have. More describe no vendor, and each costs time with each call.
const MOST: usize = 256;

/// A value in a description, and the path to it.
pub(super) struct Cursor<'a> {
    pub value: &'a Value,
    pub path: String,
}

/// The value that was read, or a mistake with its path.
pub(super) type Read<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    pub fn mistake<T>(&self, what: impl Display) -> Read<T> {
        let path = if self.path.is_empty() { "its top" } else { &self.path };
        Err(format!("at {path}: {what}"))
    }

    /// Fails with `what` unless `holds`.
    pub fn need(&self, holds: bool, what: impl Display) -> Read<()> {
        if holds { Ok(()) } else { self.mistake(what) }
    }

    /// Returns an object's members, in their order; none if the value is missing.
    pub fn members(&self) -> Read<Vec<(&'a str, Self)>> {
        self.need(self.value.is_object() || self.value.is_null(), "it is no object")?;
        let names: Vec<&String> = self.value.as_object().into_iter().flat_map(Map::keys).collect();
        self.need(names.len() <= MOST, format_args!("there are more than {MOST}"))?;
        Ok(names.into_iter().map(|name| (name.as_str(), self.member(name))).collect())
    }

    /// Returns a member; its value is null if the member is missing.
    pub fn member(&self, name: &str) -> Self {
        // A pointer, or a name with a dot in it, is one step of the path. Of a long name the beginning says enough.
        let shown: String = name.chars().take(64).collect();
        let is_plain = shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let dot = if self.path.is_empty() { "" } else { "." };
        let step = if is_plain { format!("{dot}{shown}") } else { format!("[{shown:?}]") };
        Self { value: &self.value[name], path: format!("{}{step}", self.path) }
    }

    /// Fails if an object has other members than these and `about`, which is for the reader alone.
    pub fn only(&self, names: &str) -> Read<()> {
        let names: Vec<&str> = names.split_whitespace().collect();
        let mut members = self.members()?.into_iter().filter(|(name, _)| *name != "about");
        members.try_for_each(|(name, at)| at.find(name, &names, |name| name).map(drop))
    }

    /// Returns the item of that name. An error suggests the nearest name.
    pub fn find<'b, T: Copy>(&self, name: &str, all: &[T], name_of: impl Fn(T) -> &'b str) -> Read<T> {
        if let Some(found) = all.iter().find(|one| name_of(**one) == name) {
            return Ok(*found);
        }
        let names: Vec<&str> = all.iter().map(|one| name_of(*one)).collect();
        let meant = nearest(name, names.iter().copied()).map(|near| format!("did you mean {near}?"));
        let meant = meant.unwrap_or_else(|| format!("there are: {}", names.join(", ")));
        self.mistake(format_args!("there is no such name; {meant}"))
    }

    /// Returns the item that the value names.
    pub fn choice<'b, T: Copy>(&self, all: &[T], name_of: impl Fn(T) -> &'b str) -> Read<T> {
        self.find(&self.text()?, all, name_of)
    }

    /// Reads an array's items, or a single value that stands in an array's place; none if the value is missing.
    pub fn each<T>(&self, mut read: impl FnMut(&Self) -> Read<T>) -> Read<Vec<T>> {
        let Value::Array(items) = self.value else { return self.given(read).map(Vec::from_iter) };
        self.need(items.len() <= MOST, format_args!("there are more than {MOST}"))?;
        let item = |(number, value)| read(&Self { value, path: format!("{}[{number}]", self.path) });
        items.iter().enumerate().map(item).collect()
    }

    /// Reads the value; returns None if it is missing.
    pub fn given<T>(&self, read: impl FnOnce(&Self) -> Read<T>) -> Read<Option<T>> {
        if self.value.is_null() { Ok(None) } else { read(self).map(Some) }
    }

    /// Returns a text of one line, which an error may show.
    pub fn text(&self) -> Read<String> {
        let text = self.value.as_str().filter(|text| !text.is_empty() && !text.chars().any(char::is_control));
        text.map_or_else(|| self.mistake("it is missing, or no text of a line"), |text| Ok(text.to_owned()))
    }

    pub fn flag(&self) -> Read<bool> {
        let flag = self.value.as_bool().or(self.value.is_null().then_some(false));
        flag.map_or_else(|| self.mistake("it is neither true nor false"), Ok)
    }

    pub fn number(&self, least: u64, most: u64) -> Read<Option<u64>> {
        let number = self.value.as_u64().filter(|number| (least..=most).contains(number));
        let is_fit = number.is_some() || self.value.is_null();
        self.need(is_fit, format_args!("it is no whole number from {least} to {most}"))?;
        Ok(number)
    }
}
