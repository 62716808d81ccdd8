//! The name of a role's channel, for LISTEN: only those who may see the role's verifications are told the name.

use pgrx::pg_sys;

use crate::{
    api::function::sql_function,
    error::Error,
    pg::{
        roles::{acting_owner, current_user, has_privileges_of, role_named},
        values::quoted,
    },
    provider::lookup::shown,
    store::{announcements::channels, sealing_key},
};

sql_function!(
    fn notification_channel(role: String) -> String {
        let keys = sealing_key::keys()?;
        // The name under the first key is the one that stays for longest.
        Ok(channels(&keys, listened_to(&role)?).next().unwrap_or_default())
    }
);

fn listened_to(name: &str) -> Result<pg_sys::Oid, Error> {
    let Some(role) = role_named(name) else {
        return Err(Error::undefined_object(
            format!("role {} does not exist", quoted(&shown(name))),
            "otp_gateway.channel() is the channel of your own role.",
        )
        .logged_as("role \"%s\" does not exist"));
    };
    if has_privileges_of(current_user(), role) {
        return Ok(role);
    }
    Err(Error::insufficient_privilege(
        format!("you may not listen to what {} began", quoted(name)),
        format!("GRANT {} TO the role that listens.{}", quoted(name), acting_owner()),
    ))
}
