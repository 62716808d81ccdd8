use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A value that must not be seen: a code, a number, a token, a credential. Wiped on drop; `Debug` never shows it.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The credentials part of `Authorization: Basic` (RFC 7617).
    pub(crate) fn basic(name: &Secret, password: &Secret) -> Self {
        let pair = Self::new(format!("{}:{}", name.reveal(), password.reveal()));
        Self::new(STANDARD.encode(pair.reveal()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}
