//! The dialect of a foreign server. For `otp_rest`, the server's own description makes the dialect.

use std::{
    io::{ErrorKind, Read},
    sync::{Mutex, PoisonError},
};

use dialect::{Dialect, MAX_DESCRIPTION_BYTES};

use crate::{
    error::Error,
    pg::foreign_servers::{self, Server},
    provider::{
        lookup::{dialect_of, not_a_provider},
        option_file::{open, unreadable},
        ownership::owner_must_read_files,
    },
};

/// The descriptions that this process has read last, with the dialects that they make.
static READ: Mutex<Vec<(String, Dialect)>> = Mutex::new(Vec::new());

/// How many descriptions are kept. More providers with descriptions are rare, and cost a reading each.
const MOST_READ: usize = 32;

/// The option that names the file of a description.
pub const FILE: &str = "description_file";

/// Returns the dialect of a server as it is now; an error if the server is none of ours, or its description cannot be
/// had.
pub fn of_server(server: &Server) -> Result<Dialect, Error> {
    let wrapper = foreign_servers::wrapper_name(server.wrapper);
    let vendor = dialect_of(&wrapper).ok_or_else(|| not_a_provider(&server.name, &wrapper))?;
    if vendor.is_for_descriptions() && server.options.iter().any(|(option, _)| option == FILE) {
        owner_must_read_files(server, FILE)?;
    }
    of_options(vendor, &server.options)
}

/// Returns the dialect that a server's options make.
pub fn of_options(vendor: &Dialect, options: &[(String, String)]) -> Result<Dialect, Error> {
    if !vendor.is_for_descriptions() {
        return Ok(vendor.clone());
    }
    let given = |name: &str| options.iter().find(|(option, _)| option == name).map(|(_, value)| value);
    if given("base_url").is_none() {
        return Err(Error::invalid_parameter(
            "option base_url is required: a description says the paths, not the host",
            "OPTIONS (base_url 'https://host').",
        ));
    }
    match (given("description"), given(FILE)) {
        (Some(text), None) => read(text),
        (None, Some(path)) => read(&file(path).map_err(|error| unreadable("option description_file", &error))?),
        _ => Err(Error::invalid_parameter(
            "exactly one of the options description and description_file is required: it says how the vendor is \
             spoken to",
            "docs/rest.md shows how to write one.",
        )),
    }
}

/// Returns the dialect when a server is written. A description_file that is missing is no mistake then, as with every
/// file option: None is returned, and the options are not checked.
pub fn when_written(vendor: &Dialect, options: &[(String, String)]) -> Result<Option<Dialect>, Error> {
    let is_missing = |path: &str| file(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let by_file = |option: &(String, String)| option.0 == FILE && is_missing(&option.1);
    let is_both = options.iter().any(|(option, _)| option == "description");
    if !vendor.is_for_descriptions() || is_both || !options.iter().any(by_file) {
        let dialect = of_options(vendor, options)?;
        if options.iter().any(|(option, _)| option == "description") {
            warn_of_literals(&dialect);
        }
        return Ok(Some(dialect));
    }
    Error::not_in_prerequisite_state(
        "the file of option description_file is not there, and its description was not checked",
        "Each call reads it, and checks it then; otp_gateway.try shows what it makes of a payload.",
    )
    .warn();
    Ok(None)
}

/// Warns if a description, which everybody may read, seems to hold a credential.
fn warn_of_literals(dialect: &Dialect) {
    let Some(description) = &dialect.description else { return };
    let places: Vec<&str> = description.literals().collect();
    if !places.is_empty() {
        Error::invalid_parameter(
            format!(
                "everybody may read a description, and what stands at {} looks like a credential",
                places.join(", ")
            ),
            "Name it in credentials, put {name} in its place, and its value into the user mapping. A real one is to be \
             changed.",
        )
        .warn();
    }
}

/// Returns the dialect that the text of a description makes.
pub fn read(text: &str) -> Result<Dialect, Error> {
    let mut known = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, dialect)) = known.iter().find(|(of, _)| of == text) {
        return Ok(dialect.clone());
    }
    let dialect = dialect::described(text)?;
    if known.len() == MOST_READ {
        known.remove(0);
    }
    known.push((text.to_owned(), dialect.clone()));
    Ok(dialect)
}

/// Reads a file, but no more of it than shows that it is too long.
fn file(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    open(path)?.take(MAX_DESCRIPTION_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
