//! Errors: what the caller did wrong, and what to do next. Business outcomes are rows and never come here; no text
//! here ever holds a value of a payload.

pub mod logged_message;

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};
use serde::{Deserialize, Serialize};

/// What is wrong with a file, as every system says it.
pub fn file_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        other => other.to_string(),
    }
}

/// An error on its way to the user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    message: String,
    /// What the server's log has in place of the message, where that says what the caller wrote.
    logged: Option<String>,
    hint: String,
    /// What is wrong with a payload, if that is what is wrong.
    payload: Option<Box<PayloadFault>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct PayloadFault {
    /// The fields that are to blame.
    fields: Vec<String>,
    /// A value is, and not what fields there are.
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
    /// Where a field is put.
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
        /// 22023: a payload or an option of the wrong shape.
        invalid_parameter => InvalidParameterValue,
        /// HV00D: an option that does not exist or does not belong there.
        invalid_option_name => InvalidOptionName,
        /// 42704: no such provider or verification.
        undefined_object => UndefinedObject,
        /// 42501
        insufficient_privilege => InsufficientPrivilege,
        /// 55000: not preloaded, no key.
        not_in_prerequisite_state => NotInPrerequisiteState,
        /// 25006
        read_only_transaction => ReadOnlyTransaction,
        /// 53400
        configuration_limit => ConfigurationLimitExceeded,
        /// 54000: more sends than one transaction may enqueue.
        program_limit => ProgramLimitExceeded,
        /// 39P01: a trigger that is made wrongly, whatever row it runs for.
        trigger_protocol_violated => TriggerProtocolViolated,
        /// 25000: in a parallel worker, or beside some.
        invalid_transaction_state => InvalidTransactionState,
        /// 55P03: somebody holds the record.
        lock_not_available => LockNotAvailable,
        /// 0A000: a database that it cannot be in.
        not_supported => FeatureNotSupported,
        /// XX000: something that should not happen; nothing was sent.
        internal => Internal,
    }

    /// The tables are not there.
    pub fn not_installed() -> Self {
        Self::undefined_object(
            "the extension is not installed in this database, or its tables are of an older version than the library",
            "CREATE EXTENSION otp_gateway; or, after installing a new version, ALTER EXTENSION otp_gateway UPDATE.",
        )
    }

    /// A message with the caller's own words in it, which the log is not to have: a code or a number may have got into
    /// the wrong place.
    #[must_use]
    pub fn logged_as(mut self, message: &str) -> Self {
        self.logged = Some(message.to_owned());
        self
    }

    /// What happened, without the prefix and the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Something is not as it has to be, and may be by and by: 55000.
    pub fn is_of_state(&self) -> bool {
        matches!(self.kind, Kind::NotInPrerequisiteState)
    }

    /// What to do next.
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

    /// The same, of a payload that a trigger's mapping has made: what is not a value that the row has in a mapped
    /// column is the mapping's fault, and no application can mend it by asking its user again.
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

    /// Not a value of the user's, for all or some of it stands in the trigger's mapping.
    #[must_use]
    pub fn of_constants(mut self) -> Self {
        if let Some(fault) = &mut self.payload {
            fault.is_of_value = false;
        }
        self
    }

    /// The same, without the caller's own words.
    pub fn message_for_the_record(&self) -> &str {
        self.logged.as_ref().unwrap_or(&self.message)
    }

    /// The payload fields that are to blame, if any are.
    pub fn fields(&self) -> &[String] {
        self.payload.as_ref().map_or(&[], |fault| &fault.fields)
    }

    /// The same, with where it happened before it.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self.logged = self.logged.map(|logged| format!("{place}: {logged}"));
        self
    }

    /// To the server's log, where nobody has called.
    pub fn warn(self) {
        let hint = self.hint();
        let message = self.logged.unwrap_or(self.message);
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, format!("otp_gateway: {message}"), "otp_gateway")
            .set_hint(hint)
            .report(PgLogLevel::WARNING);
    }

    /// Ends the statement.
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
