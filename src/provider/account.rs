//! What a name given to otp_send stands for: a provider, or a route over several.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgrx::pg_sys;
use policy::{Strategy, order};
use vendor::nearest;

use super::{Provider, catalog, catalog::Server, may_use, option_value::number, shown};
use crate::{
    identity::{Identity, object_of},
    misuse::Misuse,
};

/// The foreign data wrapper of routes.
pub const ROUTE: &str = "otp_route";
pub const ROUTE_OPTIONS: [&str; 3] = ["providers", "strategy", "weights"];
const MOST_MEMBERS: usize = 16;

/// The providers that a call may go to, in the order in which they are tried.
pub struct Account {
    /// If it is one.
    pub route: Option<Route>,
    pub members: Vec<Provider>,
}

/// A route as the catalog has it.
pub struct Route {
    pub server: pg_sys::Oid,
    pub name: String,
}

/// A route's options.
pub struct RouteOptions {
    pub providers: Vec<String>,
    pub strategy: Strategy,
    pub weights: Vec<u32>,
}

impl Account {
    /// Finds a provider or a route by name. Of a route the role needs USAGE on the route alone.
    pub fn find(name: &str, role: pg_sys::Oid) -> Result<Self, Misuse> {
        Self::of(super::named(name)?, role)
    }

    /// The same, of a server as it is now.
    pub fn of(server: Server, role: pg_sys::Oid) -> Result<Self, Misuse> {
        if !is_route_server(&server) {
            return Ok(Self { route: None, members: vec![Provider::of(server, role)?] });
        }
        let options = RouteOptions::parse(&server.options)?;
        check_usage(&server, role)?;
        static DICE: AtomicU64 = AtomicU64::new(0);
        let dice = DICE.fetch_add(1, Relaxed) ^ uuid::Uuid::now_v7().as_u64_pair().1;
        let drawn = order(options.strategy, &options.weights, dice);
        let member = |name: &String| {
            let member = super::named(name)?;
            check_member(&server, &member)?;
            Provider::of_member(member, role)
        };
        let members = drawn.into_iter().map(|place| member(&options.providers[place])).collect::<Result<_, _>>()?;
        Ok(Self { route: Some(Route { server: server.oid, name: server.name }), members })
    }

    /// The provider that a verification went to, for what comes after its send. `name`: what it was called then.
    pub fn of_verification(
        name: &str,
        provider: Identity,
        route: Option<Identity>,
        role: pg_sys::Oid,
    ) -> Result<Provider, Misuse> {
        let server = |id| Ok::<_, Misuse>(object_of(id)?.and_then(catalog::server_of));
        let gone = |what: &str| {
            Misuse::undefined(
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

/// USAGE on a server.
pub fn check_usage(server: &Server, role: pg_sys::Oid) -> Result<(), Misuse> {
    if may_use(role, server.oid) { Ok(()) } else { Err(super::no_usage(&server.name)) }
}

/// A route does for its callers what its owner may do, as a view does. And a name in its list is no invitation: whoever
/// makes a server of a name that is free is somebody whom the route's owner does not act for.
fn check_member(route: &Server, member: &Server) -> Result<(), Misuse> {
    let (of, name) = (shown(&route.name), shown(&member.name));
    if !may_use(route.owner, member.oid) {
        return Err(Misuse::forbidden(
            format!("permission denied for foreign server {name}, a provider of route {of}: its owner may not use it"),
            format!("GRANT USAGE ON FOREIGN SERVER {name} TO the owner of foreign server {of}."),
        ));
    }
    // A superuser has everybody's rights, and is known for none but those of its own roles.
    // SAFETY: look-ups in the catalog.
    let is_known = unsafe {
        pg_sys::superuser_arg(member.owner)
            || pg_sys::is_member_of_role_nosuper(route.owner, member.owner)
                && pg_sys::has_privs_of_role(route.owner, member.owner)
    };
    if is_known {
        return Ok(());
    }
    Err(Misuse::forbidden(
        format!(
            "foreign server {name}, a provider of route {of}, belongs to a role whose rights the route's owner does not have"
        ),
        format!(
            "ALTER SERVER {name} OWNER TO the owner of {of} or a superuser; or take it out of the option providers of {of}."
        ),
    ))
}

fn is_route_server(server: &Server) -> bool {
    catalog::wrapper_name(server.wrapper) == ROUTE
}

/// The options of a server that is a route; none if it is not.
pub fn route_of(server: &Server) -> Result<Option<RouteOptions>, Misuse> {
    if is_route_server(server) { RouteOptions::parse(&server.options).map(Some) } else { Ok(None) }
}

/// Whether a server of that name is a route.
pub fn is_route(name: &str) -> bool {
    catalog::server(name).is_some_and(|server| is_route_server(&server))
}

impl RouteOptions {
    pub fn parse(options: &[(String, String)]) -> Result<Self, Misuse> {
        let mut parsed = Self { providers: Vec::new(), strategy: Strategy::Ordered, weights: Vec::new() };
        let list = |value: &str| value.split(',').map(|entry| entry.trim().to_owned()).collect::<Vec<_>>();
        for (name, value) in options {
            match name.as_str() {
                "providers" => parsed.providers = list(value),
                "strategy" => {
                    parsed.strategy = match value.trim().to_ascii_lowercase().as_str() {
                        "ordered" => Strategy::Ordered,
                        "weighted" => Strategy::Weighted,
                        _ => {
                            return Err(Misuse::invalid(
                                "option strategy is no strategy",
                                "'ordered': as listed; 'weighted': by lot, by the option weights.",
                            ));
                        }
                    }
                }
                "weights" => {
                    let weights = list(value);
                    parsed.weights =
                        weights.iter().map(|one| number(name, one, 0, 1_000_000)).collect::<Result<_, _>>()?;
                }
                _ => {
                    let meant = nearest(name, ROUTE_OPTIONS)
                        .map_or_else(String::new, |nearest| format!("Perhaps you meant \"{nearest}\". "));
                    return Err(Misuse::invalid_option(
                        format!("a route has no option \"{name}\""),
                        format!("{meant}Valid options: {}.", ROUTE_OPTIONS.join(", ")),
                    )
                    .logged_as("a route has no option \"%s\""));
                }
            }
        }
        parsed.check()
    }

    fn check(mut self) -> Result<Self, Misuse> {
        let refuse = |what: &str| {
            Err(Misuse::invalid(
                format!("option providers {what}"),
                "For example: providers 'ideamart, hyperverge'; each is a foreign server that is no route itself.",
            ))
        };
        if self.providers.is_empty() {
            return refuse("is required");
        }
        if self.providers.len() > MOST_MEMBERS {
            return refuse("names more than 16");
        }
        for (place, name) in self.providers.iter().enumerate() {
            if name.is_empty() {
                return refuse("has an empty place");
            }
            if self.providers[..place].contains(name) {
                return refuse("names one twice");
            }
        }
        if self.weights.is_empty() {
            self.weights = vec![1; self.providers.len()];
        } else if self.weights.len() != self.providers.len() {
            return Err(Misuse::invalid(
                "option weights has not as many numbers as providers has names",
                "One for each, in the same order: providers 'ideamart, hyperverge', weights '3, 1'.",
            ));
        }
        Ok(self)
    }
}

/// A name as it is listed: nothing that an error may not show.
pub fn listed(names: &[String]) -> String {
    names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}
