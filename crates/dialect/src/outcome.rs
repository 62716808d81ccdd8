use serde::{Deserialize, Serialize};

/// How an attempt ended: the one vocabulary that every vendor's answer is read into (docs/vendors/README.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    Sent,
    Approved,
    Canceled,
    InvalidCode,
    Expired,
    AlreadyUsed,
    AlreadyRegistered,
    MaxAttemptsReached,
    NotFound,
    RateLimited,
    InvalidRequest,
    AuthFailed,
    Refused,
    ProviderError,
    Unreachable,
    Unknown,
    Blocked,
}

impl Outcome {
    pub const ALL: [Outcome; 17] = [
        Self::Sent,
        Self::Approved,
        Self::Canceled,
        Self::InvalidCode,
        Self::Expired,
        Self::AlreadyUsed,
        Self::AlreadyRegistered,
        Self::MaxAttemptsReached,
        Self::NotFound,
        Self::RateLimited,
        Self::InvalidRequest,
        Self::AuthFailed,
        Self::Refused,
        Self::ProviderError,
        Self::Unreachable,
        Self::Unknown,
        Self::Blocked,
    ];

    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == label)
    }

    /// Returns the label of the SQL domain `otp_gateway_internal.outcome`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Approved => "approved",
            Self::Canceled => "canceled",
            Self::InvalidCode => "invalid_code",
            Self::Expired => "expired",
            Self::AlreadyUsed => "already_used",
            Self::AlreadyRegistered => "already_registered",
            Self::MaxAttemptsReached => "max_attempts_reached",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::InvalidRequest => "invalid_request",
            Self::AuthFailed => "auth_failed",
            Self::Refused => "refused",
            Self::ProviderError => "provider_error",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
            Self::Blocked => "blocked",
        }
    }
}
