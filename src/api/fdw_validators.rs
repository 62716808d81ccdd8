//! The validators of the foreign data wrappers: a mistyped or misplaced option is refused when it is written.

use pgrx::pg_sys;

use crate::{
    api::function::sql_function,
    error::Error,
    pg::{
        arguments::{Argument, Unread},
        fingerprint::FingerprintBuilder,
        roles::current_user,
    },
    provider::{
        credentials,
        ownership::may_read_files,
        route::RouteOptions,
        server_options::{self, ServerOptions},
    },
};

macro_rules! validators {
    ($($function:ident $vendor:literal),* $(,)?) => {$(
        sql_function!(
            fn $function(options: Options, catalog: pg_sys::Oid) -> () {
                validate($vendor, &options.0, catalog)
            }
        );
    )*};
}

validators! {
    iserveu_validator "iserveu",
    hyperverge_validator "hyperverge",
    paytm_validator "paytm",
    relid_validator "relid",
    ideamart_validator "ideamart",
    sandbox_validator "sandbox",
}

sql_function!(
    fn route_validator(options: Options, catalog: pg_sys::Oid) -> () {
        match (catalog, options.0.first()) {
            (pg_sys::ForeignServerRelationId, _) => RouteOptions::parse(&options.0).map(|_| ()),
            (_, None) => Ok(()),
            (_, Some((name, _))) => Err(Error::invalid_option_name(
                format!("option \"{name}\" does not belong here: a route has options on its server alone"),
                "Credentials belong on the user mappings of its providers.",
            )
            .logged_as("option \"%s\" does not belong here: a route has options on its server alone")),
        }
    }
);

/// A statement that is refused has credentials in it as often as one that is not: both are hidden from the log.
pub fn validate(vendor: &str, options: &[(String, String)], catalog: pg_sys::Oid) -> Result<(), Error> {
    let dialect = dialect::by_name(vendor).expect("each validator names a dialect");
    match catalog {
        pg_sys::ForeignServerRelationId => {
            let files = options.iter().filter(|(name, _)| server_options::FILE_OPTIONS.contains(&name.as_str()));
            files.into_iter().try_for_each(|(name, _)| may_name_files(name))?;
            ServerOptions::parse(dialect, options).map(|_| ())
        }
        pg_sys::UserMappingRelationId => {
            credentials::check_user_mapping(dialect, options)?;
            let files = options.iter().filter(|(name, _)| name.ends_with("_file"));
            files.into_iter().try_for_each(|(name, _)| may_name_files(name))
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

/// A file option makes the server read a file: that takes the right to.
pub fn may_name_files(option: &str) -> Result<(), Error> {
    if may_read_files(current_user()) {
        return Ok(());
    }
    Err(Error::insufficient_privilege(
        format!("permission denied to set option {option}"),
        "Only members of pg_read_server_files may have the server read a file.",
    ))
}

/// Options of a server or a user mapping, as a validator is given them.
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
