//! Errors: what the caller did wrong, and what to do next. Business outcomes are rows and never come here; no text
//! here ever holds a value of a payload.

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};
use serde::{Deserialize, Serialize};

/// An error on its way to the user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Misuse {
    kind: Kind,
    message: String,
    hint: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Kind {
    InvalidParameterValue,
    InvalidOptionName,
    UndefinedObject,
    InsufficientPrivilege,
    NotInPrerequisiteState,
    ReadOnlyTransaction,
    ConfigurationLimitExceeded,
    Internal,
}

impl Kind {
    fn sqlstate(self) -> PgSqlErrorCode {
        match self {
            Self::InvalidParameterValue => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::InvalidOptionName => PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
            Self::UndefinedObject => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Self::InsufficientPrivilege => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NotInPrerequisiteState => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::ReadOnlyTransaction => PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Self::ConfigurationLimitExceeded => PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            Self::Internal => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>, hint: impl Into<String>) -> Self {
            Self { kind: Kind::$kind, message: message.into(), hint: hint.into() }
        }
    )*};
}

impl Misuse {
    constructors! {
        /// 22023: a payload or an option of the wrong shape.
        invalid => InvalidParameterValue,
        /// HV00D: an option that does not exist or does not belong there.
        invalid_option => InvalidOptionName,
        /// 42704: no such provider or verification.
        undefined => UndefinedObject,
        /// 42501
        forbidden => InsufficientPrivilege,
        /// 55000: not preloaded, no key.
        not_ready => NotInPrerequisiteState,
        /// 25006
        read_only => ReadOnlyTransaction,
        /// 53400
        limit => ConfigurationLimitExceeded,
        /// XX000: something that should not happen; nothing was sent.
        internal => Internal,
    }

    /// Ends the statement.
    pub fn raise(self) -> ! {
        ErrorReport::new(self.kind.sqlstate(), format!("otp_gateway: {}", self.message), "otp_gateway")
            .set_hint(self.hint)
            .report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

impl From<vendor::Invalid> for Misuse {
    fn from(invalid: vendor::Invalid) -> Self {
        Self::invalid(invalid.message, invalid.hint)
    }
}
