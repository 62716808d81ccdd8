//! What a name given to otp_send stands for: a provider, or a route over several.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgrx::pg_sys;
use policy::{Strategy, order};
use vendor::nearest;

use super::{Provider, catalog, may_use, option_value::number, shown};
use crate::misuse::Misuse;

/// The foreign data wrapper of routes.
pub const ROUTE: &str = "otp_route";
pub const ROUTE_OPTIONS: [&str; 3] = ["providers", "strategy", "weights"];
const MOST_MEMBERS: usize = 16;

/// The providers that a call may go to, in the order in which they are tried.
pub struct Account {
    /// The route's name, if it is one.
    pub route: Option<String>,
    pub members: Vec<Provider>,
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
        let Some(options) = route_of(name)? else {
            return Ok(Self { route: None, members: vec![Provider::find(name, role)?] });
        };
        may_use_named(name, role)?;
        static DICE: AtomicU64 = AtomicU64::new(0);
        let dice = DICE.fetch_add(1, Relaxed) ^ uuid::Uuid::now_v7().as_u64_pair().1;
        let drawn = order(options.strategy, &options.weights, dice);
        let members = drawn.into_iter().map(|place| Provider::find_member(&options.providers[place], role));
        Ok(Self { route: Some(name.to_owned()), members: members.collect::<Result<_, _>>()? })
    }

    /// The provider that a verification went to, for what comes after its send.
    pub fn of_verification(provider: &str, route: Option<&str>, role: pg_sys::Oid) -> Result<Provider, Misuse> {
        let Some(route) = route else { return Provider::find(provider, role) };
        may_use_named(route, role)?;
        Provider::find_member(provider, role)
    }
}

/// USAGE on a server of that name; one that is there no more forbids nothing, and what comes after finds that out.
pub fn may_use_named(name: &str, role: pg_sys::Oid) -> Result<(), Misuse> {
    match catalog::server(name) {
        Some(server) if !may_use(role, server.oid) => Err(super::no_usage(name)),
        Some(_) => Ok(()),
        None => Err(super::no_such_provider(name)),
    }
}

/// The options of the route of that name; none if it is not a route.
pub fn route_of(name: &str) -> Result<Option<RouteOptions>, Misuse> {
    let Some(server) = catalog::server(name) else { return Ok(None) };
    if catalog::wrapper_name(server.wrapper) != ROUTE {
        return Ok(None);
    }
    RouteOptions::parse(&server.options).map(Some)
}

/// Whether a server of that name is a route.
pub fn is_route(name: &str) -> bool {
    catalog::server(name).is_some_and(|server| catalog::wrapper_name(server.wrapper) == ROUTE)
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
                    ));
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
