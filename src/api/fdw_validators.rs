//! The validators of the foreign data wrappers: they refuse a mistyped or misplaced option when it is written.

use dialect::Dialect;
use pgrx::pg_sys;

use crate::{
    api::function::{declared_otherwise, sql_function},
    error::Error,
    pg::{
        arguments::{Argument, Unread},
        fingerprint::FingerprintBuilder,
        roles::current_user,
    },
    provider::{
        credentials, description,
        file_rights::{is_open_to_all, open_to_all},
        option_value::refuse_placeholders,
        ownership::may_read_files,
        route::{ROUTE_OPTIONS, RouteOptions},
        server_options::{self, ServerOptions},
    },
};

/// Defines one validator for all vendors: the name of the called function, `twilio_validator`, says which vendor's.
macro_rules! validators {
    ($($symbol:ident),* $(,)?) => {$(
        sql_function!(
            fn $symbol[name](options: Options, catalog: pg_sys::Oid) -> () {
                validate(vendor_of(&name)?, &options.0, catalog)
            }
        );
    )*};
}

validators! {
    vendor_validator,
    // The symbols that scripts before 0.6.0 name.
    iserveu_validator,
    hyperverge_validator,
    paytm_validator,
    relid_validator,
    ideamart_validator,
    sandbox_validator,
}

fn vendor_of(validator: &str) -> Result<&'static Dialect, Error> {
    validator.strip_suffix("_validator").and_then(dialect::by_name).ok_or_else(declared_otherwise)
}

sql_function!(
    fn route_validator(options: Options, catalog: pg_sys::Oid) -> () {
        match (catalog, options.0.first()) {
            (pg_sys::ForeignServerRelationId, _) => {
                refuse_placeholders(&options.0, ROUTE_OPTIONS.into_iter())?;
                RouteOptions::parse(&options.0).map(|_| ())
            }
            (_, None) => Ok(()),
            (_, Some((name, _))) => Err(Error::invalid_option_name(
                format!("option \"{name}\" does not belong here: a route has options on its server alone"),
                "Credentials belong on the user mappings of its providers.",
            )
            .logged_as("option \"%s\" does not belong here: a route has options on its server alone")),
        }
    }
);

/// Checks the options of a server or a user mapping. The statement is kept out of the log, refused or not: it may hold
/// credentials either way.
pub fn validate(dialect: &Dialect, options: &[(String, String)], catalog: pg_sys::Oid) -> Result<(), Error> {
    match catalog {
        pg_sys::ForeignServerRelationId => {
            let files = options.iter().filter(|(name, _)| server_options::FILE_OPTIONS.contains(&name.as_str()));
            files.into_iter().try_for_each(|(name, _)| may_name_files(name))?;
            refuse_placeholders(options, server_options::of_server(dialect))?;
            if let Some(dialect) = description::when_written(dialect, options)? {
                ServerOptions::parse(&dialect, options)?;
            }
            warn_of_open_files(options, |name| name == "client_key_file");
            Ok(())
        }
        pg_sys::UserMappingRelationId => {
            credentials::check_user_mapping(dialect, options)?;
            let files = options.iter().filter(|(name, _)| name.ends_with("_file"));
            files.into_iter().try_for_each(|(name, _)| may_name_files(name))?;
            warn_of_open_files(options, |name| name.ends_with("_file"));
            Ok(())
        }
        _ => match options.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid_option_name(
                format!("option \"{name}\" does not belong here: a foreign data wrapper of otp_gateway has none"),
                "Options belong on the server, credentials on the user mapping.",
            )
            .logged_as("option \"%s\" does not belong here: a foreign data wrapper of otp_gateway has none")),
        },
    }
}

/// Warns of files that hold secrets and that every user of the machine can read.
fn warn_of_open_files(options: &[(String, String)], is_private: impl Fn(&str) -> bool) {
    let open = options.iter().filter(|(name, path)| is_private(name) && is_open_to_all(path));
    open.for_each(|(name, path)| open_to_all(name, path).warn());
}

/// Fails if the role may not have the server read a file, as an option that names a file does.
pub fn may_name_files(option: &str) -> Result<(), Error> {
    if may_read_files(current_user()) {
        return Ok(());
    }
    Err(Error::insufficient_privilege(
        format!("permission denied to set option {option}"),
        "Only members of pg_read_server_files may have the server read a file.",
    ))
}

/// The options of a server or a user mapping, as a validator gets them.
pub struct Options(pub Vec<(String, String)>);

impl Argument for Options {
    const TYPE: pg_sys::Oid = pg_sys::TEXTARRAYOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        let null = || Error::invalid_parameter(format!("{name} is null"), "Give an array of 'name=value'.");
        let no_value =
            |()| Error::invalid_parameter(format!("{name} has an element without a value"), "Each is 'name=value'.");
        value.options().ok_or_else(null)?.map(Self).map_err(no_value)
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        for (name, value) in &self.0 {
            fingerprint.add(Some(name.as_bytes()));
            fingerprint.add(Some(value.as_bytes()));
        }
    }
}
