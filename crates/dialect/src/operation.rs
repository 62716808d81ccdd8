use serde::{Deserialize, Serialize};

/// What an attempt asks of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    Send,
    Verify,
    Resend,
    Cancel,
}

impl Operation {
    pub const ALL: [Operation; 4] = [Self::Send, Self::Verify, Self::Resend, Self::Cancel];

    /// Returns the name in `otp_gateway.attempt.operation`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Verify => "verify",
            Self::Resend => "resend",
            Self::Cancel => "cancel",
        }
    }
}
