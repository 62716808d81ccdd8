//! Errors: what the caller did wrong, and what to do next. Business outcomes are rows and never come here; no text
//! here ever holds a value of a payload.

pub mod logged_message;

pub use http_client::file_error;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};
use serde::{Deserialize, Serialize};

/// An error on its way to the user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    message: String,
    /// The text for the server's log in place of the message, if the message holds the caller's own words.
    logged: Option<String>,
    hint: String,
    /// Details of a wrong payload, if the error is about one.
    payload: Option<Box<PayloadFault>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct PayloadFault {
    /// The payload fields that are to blame.
    fields: Vec<String>,
    /// Whether a field's value is wrong, rather than the choice of fields.
    is_of_value: bool,
    /// The fields that are missing, and whether each may stand in the server option `defaults`.
    missing: Vec<(String, bool)>,
    source: PayloadSource,
}

/// Where a payload comes from.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
enum PayloadSource {
    #[default]
    Caller,
    TriggerMapping,
}

impl PayloadSource {
    /// Says where a missing field is to be put.
    fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "the payload",
            Self::TriggerMapping => "the trigger's mapping (as a column, or as \"=constant\")",
        }
    }
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
    ProgramLimitExceeded,
    TriggerProtocolViolated,
    InvalidTransactionState,
    LockNotAvailable,
    FeatureNotSupported,
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
            Self::ProgramLimitExceeded => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Self::TriggerProtocolViolated => PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            Self::InvalidTransactionState => PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            Self::LockNotAvailable => PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            Self::FeatureNotSupported => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            Self::Internal => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>, hint: impl Into<String>) -> Self {
            Self {
                kind: Kind::$kind,
                message: message.into(),
                logged: None,
                hint: hint.into(),
                payload: None,
            }
        }
    )*};
}

impl Error {
    constructors! {
        /// 22023: a payload or an option has the wrong shape.
        invalid_parameter => InvalidParameterValue,
        /// HV00D: an option does not exist or does not belong there.
        invalid_option_name => InvalidOptionName,
        /// 42704: no such provider or verification.
        undefined_object => UndefinedObject,
        /// 42501: the role lacks a right.
        insufficient_privilege => InsufficientPrivilege,
        /// 55000: something is not as it has to be: the library is not preloaded, there is no key.
        not_in_prerequisite_state => NotInPrerequisiteState,
        /// 25006: the transaction, or the server, is read-only.
        read_only_transaction => ReadOnlyTransaction,
        /// 53400: a limit of the server's configuration is reached.
        configuration_limit => ConfigurationLimitExceeded,
        /// 54000: more sends than one transaction may enqueue.
        program_limit => ProgramLimitExceeded,
        /// 39P01: a trigger is made wrongly, whatever row it runs for.
        trigger_protocol_violated => TriggerProtocolViolated,
        /// 25000: the call is in a parallel operation.
        invalid_transaction_state => InvalidTransactionState,
        /// 55P03: somebody holds a lock on the record.
        lock_not_available => LockNotAvailable,
        /// 0A000: the extension cannot be in this database.
        not_supported => FeatureNotSupported,
        /// XX000: something that should not happen; nothing was sent.
        internal => Internal,
    }

    /// The error where the extension's tables are missing.
    pub fn not_installed() -> Self {
        Self::undefined_object(
            "the extension is not installed in this database, or its tables are of an older version than the library",
            "CREATE EXTENSION otp_gateway; or, after installing a new version, ALTER EXTENSION otp_gateway UPDATE.",
        )
    }

    /// Sets the text for the log. For a message with the caller's own words, which the log must not have: a code or a
    /// number may have got into the wrong place.
    #[must_use]
    pub fn logged_as(mut self, message: &str) -> Self {
        self.logged = Some(message.to_owned());
        self
    }

    /// Returns what happened, without the prefix and the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether something is not as it has to be, and may be so later: 55000.
    pub fn is_of_state(&self) -> bool {
        matches!(self.kind, Kind::NotInPrerequisiteState)
    }

    /// Returns what to do next.
    pub fn hint(&self) -> String {
        let Some(fault) = self.payload.as_ref().filter(|fault| !fault.missing.is_empty()) else {
            return self.hint.clone();
        };
        let all: Vec<&str> = fault.missing.iter().map(|(name, _)| name.as_str()).collect();
        let lasting: Vec<&str> = fault.missing.iter().filter(|(_, lasts)| *lasts).map(|(name, _)| &**name).collect();
        let defaults = match lasting.len() {
            0 => String::new(),
            some if some == all.len() => ", or into the server option defaults".into(),
            _ => format!(", or {} into the server option defaults", lasting.join(", ")),
        };
        format!("{}. Put {} into {}{defaults}.", self.hint, all.join(", "), fault.source.as_str())
    }

    /// Returns the error as one of a payload that a trigger's mapping made, prefixed with its `place`. Unless the row's
    /// value in a mapped column is wrong, the mapping is to blame: no application can mend that by asking its user
    /// again.
    #[must_use]
    pub fn of_trigger(mut self, place: &str) -> Self {
        let is_of_value = self.payload.as_ref().is_some_and(|fault| fault.is_of_value);
        if matches!(self.kind, Kind::InvalidParameterValue) && !is_of_value {
            self.kind = Kind::TriggerProtocolViolated;
        }
        if let Some(fault) = &mut self.payload {
            fault.source = PayloadSource::TriggerMapping;
        }
        self.at(place)
    }

    /// Returns the error as one that no user's value is to blame for, since a wrong field is, at least in part, a
    /// constant of the trigger's mapping.
    #[must_use]
    pub fn of_constants(mut self) -> Self {
        if let Some(fault) = &mut self.payload {
            fault.is_of_value = false;
        }
        self
    }

    /// Returns what happened, without the caller's own words.
    pub fn message_for_the_record(&self) -> &str {
        self.logged.as_ref().unwrap_or(&self.message)
    }

    /// Returns the payload fields that are to blame, if any are.
    pub fn fields(&self) -> &[String] {
        self.payload.as_ref().map_or(&[], |fault| &fault.fields)
    }

    /// Returns the error with the place where it happened before its message.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self.logged = self.logged.map(|logged| format!("{place}: {logged}"));
        self
    }

    /// Writes the error to the server's log as a warning, where no caller could get it.
    pub fn warn(self) {
        let hint = self.hint();
        let message = self.logged.unwrap_or(self.message);
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, format!("otp_gateway: {message}"), "otp_gateway")
            .set_hint(hint)
            .report(PgLogLevel::WARNING);
    }

    /// Raises the error, which ends the statement.
    pub fn raise(self) -> ! {
        let (message, hint) = (format!("otp_gateway: {}", self.message), self.hint());
        if let Some(logged) = self.logged {
            logged_message::instead_of(&message, &format!("otp_gateway: {logged}"));
        }
        ErrorReport::new(self.kind.sqlstate(), message, "otp_gateway").set_hint(hint).report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

impl From<dialect::Invalid> for Error {
    fn from(invalid: dialect::Invalid) -> Self {
        let logged = Some(invalid.logged).filter(|logged| *logged != invalid.message);
        let blame = *invalid.blame;
        let fields = std::iter::once(invalid.field).chain(blame.others).collect();
        let fault = PayloadFault { fields, is_of_value: blame.is_value, missing: blame.missing, ..Default::default() };
        Self { logged, payload: Some(Box::new(fault)), ..Self::invalid_parameter(invalid.message, invalid.hint) }
    }
}
