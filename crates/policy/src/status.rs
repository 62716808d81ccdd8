use serde::{Deserialize, Serialize};

/// The status of a verification: `otp_gateway.verification.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    Queued,
    Sending,
    Pending,
    Approved,
    Canceled,
    Expired,
    MaxAttemptsReached,
    Failed,
    Blocked,
    Unknown,
}

impl Status {
    pub const ALL: [Status; 10] = [
        Self::Queued,
        Self::Sending,
        Self::Pending,
        Self::Approved,
        Self::Canceled,
        Self::Expired,
        Self::MaxAttemptsReached,
        Self::Failed,
        Self::Blocked,
        Self::Unknown,
    ];

    /// Returns the label of the SQL domain `otp_gateway_internal.status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::MaxAttemptsReached => "max_attempts_reached",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }

    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == label)
    }

    /// Returns whether the verification's send has no outcome yet.
    pub const fn awaits_send(self) -> bool {
        matches!(self, Self::Queued | Self::Sending)
    }

    /// Returns whether the status is terminal. A terminal verification never reopens: it answers from the record, and
    /// what was sealed for it is erased.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Approved | Self::Canceled | Self::Expired | Self::MaxAttemptsReached | Self::Failed | Self::Blocked
        )
    }
}
