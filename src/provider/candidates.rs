//! The providers behind a name that is given to otp_send: a provider, or a route over several.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgrx::pg_sys;
use policy::member_order;

use crate::{
    error::Error,
    pg::{
        foreign_servers::{self, Server, may_use},
        roles::{has_privileges_of, is_member_of, is_superuser},
    },
    provider::{
        Provider,
        lookup::{check_usage, shown},
        route::{Route, RouteOptions, is_route_server},
    },
    store::identity::{Identity, object_of},
};

/// The providers that a call may go to, in the order in which they are tried.
pub struct Candidates {
    /// The route, if the name stands for one.
    pub route: Option<Route>,
    pub members: Vec<Provider>,
}

impl Candidates {
    /// Finds a provider or a route by name. For a route, the role needs USAGE on the route alone.
    pub fn find(name: &str, role: pg_sys::Oid) -> Result<Self, Error> {
        Self::of(crate::provider::lookup::named(name)?, role)
    }

    /// Reads the candidates from a server as it is now.
    pub fn of(server: Server, role: pg_sys::Oid) -> Result<Self, Error> {
        if !is_route_server(&server) {
            return Ok(Self { route: None, members: vec![Provider::of(server, role)?] });
        }
        let options = RouteOptions::parse(&server.options)?;
        check_usage(&server, role)?;
        static DICE: AtomicU64 = AtomicU64::new(0);
        let seed = DICE.fetch_add(1, Relaxed) ^ uuid::Uuid::now_v7().as_u64_pair().1;
        let drawn = member_order(options.strategy, &options.weights, seed);
        let member = |name: &String| {
            let member = crate::provider::lookup::named(name)?;
            check_member(&server, &member)?;
            Provider::of_member(member, role)
        };
        let members = drawn.into_iter().map(|place| member(&options.providers[place])).collect::<Result<_, _>>()?;
        Ok(Self { route: Some(Route { server: server.oid, name: server.name }), members })
    }

    /// Returns the provider that a verification went to, for the operations after its send. `name` is what the provider
    /// was called then.
    pub fn of_verification(
        name: &str,
        provider: Identity,
        route: Option<Identity>,
        role: pg_sys::Oid,
    ) -> Result<Provider, Error> {
        let server = |id| Ok::<_, Error>(object_of(id)?.and_then(foreign_servers::server_of));
        let gone = |what: &str| {
            Error::undefined_object(
                format!("the {what} that this verification went through does not exist any more"),
                "Begin anew with otp_send.",
            )
        };
        let provider = server(provider)?.ok_or_else(|| gone(&format!("provider \"{}\"", shown(name))))?;
        let Some(route) = route else { return Provider::of(provider, role) };
        let route = server(route)?.ok_or_else(|| gone("route"))?;
        check_usage(&route, role)?;
        check_member(&route, &provider)?;
        Provider::of_member(provider, role)
    }
}

/// Fails if a route may not send through a member. A route does for its callers what its owner may do, as a view does.
/// And a name in the route's list is no invitation: somebody whom the owner does not act for may have made a server of
/// a name that was free.
pub fn check_member(route: &Server, member: &Server) -> Result<(), Error> {
    let (of, name) = (shown(&route.name), shown(&member.name));
    if !may_use(route.owner, member.oid) {
        return Err(Error::insufficient_privilege(
            format!("permission denied for foreign server {name}, a provider of route {of}: its owner may not use it"),
            format!("GRANT USAGE ON FOREIGN SERVER {name} TO the owner of foreign server {of}."),
        ));
    }
    // A superuser has the rights of every role, but here only those roles count that the superuser is a member of.
    if is_superuser(member.owner)
        || is_member_of(route.owner, member.owner) && has_privileges_of(route.owner, member.owner)
    {
        return Ok(());
    }
    Err(Error::insufficient_privilege(
        format!(
            "foreign server {name}, a provider of route {of}, belongs to a role whose rights the route's owner does \
            not have"
        ),
        format!(
            "ALTER SERVER {name} OWNER TO the owner of {of} or a superuser; or take it out of the option providers of \
            {of}."
        ),
    ))
}
