//! Whom a code went to, by what a person types.

use vendor::Secret;

use super::{account::route_of, catalog, dialect_of, no_such_provider, not_a_provider};
use crate::misuse::Misuse;

/// What a number (for REL-ID a user id) is at a provider, or at each provider of a route, in normal form.
pub fn recipients(name: &str, typed: &Secret) -> Result<Vec<Secret>, Misuse> {
    let members = route_of(name)?.map_or_else(|| vec![name.to_owned()], |route| route.providers);
    let mut recipients: Vec<Secret> = Vec::new();
    let mut wanted = None;
    for member in &members {
        let server = catalog::server(member).ok_or_else(|| no_such_provider(member))?;
        let wrapper = catalog::wrapper_name(server.wrapper);
        let dialect = dialect_of(&wrapper).ok_or_else(|| not_a_provider(member, &wrapper))?;
        wanted.get_or_insert_with(|| dialect.recipient_field().rule.describe());
        recipients.extend((dialect.recipient)(typed.reveal()).filter(|recipient| !recipients.contains(recipient)));
    }
    if recipients.is_empty() {
        return Err(Misuse::invalid(
            format!("mobile is nothing that provider \"{}\" sends to", super::shown(name)),
            format!("It takes {}.", wanted.unwrap_or_default()),
        ));
    }
    Ok(recipients)
}
