//! Finds whom a code went to, by what a person types.

use dialect::{DIALECTS, Secret};

use crate::{
    error::Error,
    pg::foreign_servers,
    provider::{
        lookup::{dialect_of, named, not_a_provider},
        route::route_of,
    },
};

/// Returns the providers that a name stands for, itself or each provider of a route: name and dialect.
pub fn members(name: &str) -> Result<Vec<(String, String)>, Error> {
    let server = named(name)?;
    let names = route_of(&server)?.map_or_else(|| vec![name.to_owned()], |route| route.providers);
    let member = |name: String| {
        let vendor = foreign_servers::vendor_of(&named(&name)?);
        Ok((name, vendor))
    };
    names.into_iter().map(member).collect()
}

/// Returns what a number (for REL-ID a user id) is at these providers, in normal form.
pub fn recipients(members: &[(String, String)], typed: &Secret) -> Result<Vec<Secret>, Error> {
    let mut recipients: Vec<Secret> = Vec::new();
    let mut wanted = None;
    for (name, vendor) in members {
        let wrapper = format!("otp_{vendor}");
        let dialect = dialect_of(&wrapper).ok_or_else(|| not_a_provider(name, &wrapper))?;
        wanted.get_or_insert_with(|| dialect.recipient_field().rule.describe());
        recipients.extend((dialect.recipient)(typed.reveal()).filter(|recipient| !recipients.contains(recipient)));
    }
    if recipients.is_empty() {
        let name = members.first().map_or("", |(name, _)| name);
        let what = if dialect::is_phone_number(typed.reveal()) {
            "mobile is a number of another country or kind than"
        } else {
            "mobile is nothing that"
        };
        return Err(Error::invalid_parameter(
            format!("{what} provider \"{}\" sends to", crate::provider::lookup::shown(name)),
            format!("It takes {}.", wanted.unwrap_or_default()),
        ));
    }
    Ok(recipients)
}

/// Returns what a typed number or user id may be at any vendor, in normal form.
pub fn recipients_anywhere(typed: &Secret) -> Result<Vec<Secret>, Error> {
    let mut recipients: Vec<Secret> = Vec::new();
    for dialect in DIALECTS {
        recipients.extend((dialect.recipient)(typed.reveal()).filter(|recipient| !recipients.contains(recipient)));
    }
    if recipients.is_empty() {
        return Err(Error::invalid_parameter(
            "mobile is nothing that a code is sent to",
            "Give a number with + and the code of its country, or as its own country dials it; for REL-ID, a user id.",
        ));
    }
    Ok(recipients)
}
