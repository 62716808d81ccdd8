//! A function and its arguments as one digest, by which two calls are recognised as the same.

use ring::digest;

/// The digest of a function and its arguments. It cannot be reversed: a code may be among the arguments.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// Writes hexadecimal digits.
impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A fingerprint in the making.
pub struct FingerprintBuilder(digest::Context);

impl FingerprintBuilder {
    pub fn of(function: &str) -> Self {
        let mut builder = Self(digest::Context::new(&digest::SHA256));
        builder.add(Some(function.as_bytes()));
        builder
    }

    /// Adds one more value; None stands for null.
    pub fn add(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.0.update(&[0]),
            Some(bytes) => {
                self.0.update(&[1]);
                self.0.update(&bytes.len().to_le_bytes());
                self.0.update(bytes);
            }
        }
    }

    pub fn finish(self) -> Fingerprint {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Fingerprint(digest)
    }
}
