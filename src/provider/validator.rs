//! The validators of the foreign data wrappers: a mistyped or misplaced option is refused when it is written.

use pgrx::pg_sys;

use super::{
    account::RouteOptions,
    options::{self, ServerOptions},
    ownership::may_read_files,
    user_mapping,
};
use crate::{
    api::{Options, sql_function},
    misuse::Misuse,
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
            (_, Some((name, _))) => Err(Misuse::invalid_option(
                format!("option \"{name}\" does not belong here: a route has options on its server alone"),
                "Credentials belong on the user mappings of its providers.",
            )
            .logged_as("option \"%s\" does not belong here: a route has options on its server alone")),
        }
    }
);

/// A statement that is refused has credentials in it as often as one that is not: both are hidden from the log.
fn validate(vendor: &str, options: &[(String, String)], catalog: pg_sys::Oid) -> Result<(), Misuse> {
    let dialect = vendor::dialect(vendor).expect("each validator names a dialect");
    match catalog {
        pg_sys::ForeignServerRelationId => {
            let files = options.iter().filter(|(name, _)| options::FILE_OPTIONS.contains(&name.as_str()));
            files.into_iter().try_for_each(|(name, _)| may_name_files(name))?;
            ServerOptions::parse(dialect, options).map(|_| ())
        }
        pg_sys::UserMappingRelationId => {
            user_mapping::check_user_mapping(dialect, options)?;
            let files = options.iter().filter(|(name, _)| name.ends_with("_file"));
            files.into_iter().try_for_each(|(name, _)| may_name_files(name))
        }
        _ => match options.first() {
            None => Ok(()),
            Some((name, _)) => Err(Misuse::invalid_option(
                format!("option \"{name}\" does not belong here: a foreign data wrapper of otp_gateway has none"),
                "Options belong on the server, credentials on the user mapping.",
            )
            .logged_as("option \"%s\" does not belong here: a foreign data wrapper of otp_gateway has none")),
        },
    }
}

/// A file option makes the server read a file: that takes the right to.
fn may_name_files(option: &str) -> Result<(), Misuse> {
    // SAFETY: a variable of this session.
    if may_read_files(unsafe { pg_sys::GetUserId() }) {
        return Ok(());
    }
    Err(Misuse::forbidden(
        format!("permission denied to set option {option}"),
        "Only members of pg_read_server_files may have the server read a file.",
    ))
}
