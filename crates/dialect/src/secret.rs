use std::{
    fmt::{Debug, Display, Formatter, Result},
    ops::{Deref, DerefMut},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A value that nobody may see: a code, a number, a token, a credential. Wiped on drop; neither `Debug` nor `Display`
/// shows it.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the value itself, for the one place that must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the credentials part of `Authorization: Basic` (RFC 7617).
    pub(crate) fn basic(name: &Secret, password: &Secret) -> Self {
        let pair = Self::new(format!("{}:{}", name.reveal(), password.reveal()));
        Self::new(STANDARD.encode(pair.reveal()))
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(HIDDEN)
    }
}

impl Display for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(HIDDEN)
    }
}

/// The text that is shown in place of a value.
const HIDDEN: &str = "[secret]";

/// JSON that may hold secrets: a payload, the part of it that is kept, an answer as it came. Its texts are wiped on
/// drop, and `Debug` does not show them. There is no `Display`, so that `to_string` is the JSON's own.
#[derive(Clone, Default, PartialEq)]
pub struct Private<T: Wipe>(T);

impl<T: Wipe> From<T> for Private<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Wipe> Deref for Private<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> DerefMut for Private<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Wipe> Debug for Private<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(HIDDEN)
    }
}

impl<T: Wipe> Drop for Private<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// JSON whose texts can be wiped. Its numbers cannot be: serde_json gives no access to them.
pub trait Wipe {
    fn wipe(&mut self);
}

impl Wipe for Value {
    fn wipe(&mut self) {
        match self {
            Self::String(text) => text.zeroize(),
            Self::Array(items) => items.iter_mut().for_each(Wipe::wipe),
            Self::Object(members) => members.wipe(),
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
        }
    }
}

impl Wipe for Map<String, Value> {
    fn wipe(&mut self) {
        for (mut key, mut value) in std::mem::take(self) {
            key.zeroize();
            value.wipe();
        }
    }
}
