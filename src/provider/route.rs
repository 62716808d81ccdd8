//! A route: several providers under one name.

use dialect::nearest;
use pgrx::pg_sys;
use policy::Strategy;

use crate::{
    error::Error,
    pg::foreign_servers::{self, Server},
    provider::{lookup::shown, option_value::number},
};

/// The foreign data wrapper of routes.
pub const ROUTE: &str = "otp_route";

pub const ROUTE_OPTIONS: [&str; 3] = ["providers", "strategy", "weights"];

pub const MOST_MEMBERS: usize = 16;

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

pub fn is_route_server(server: &Server) -> bool {
    foreign_servers::wrapper_name(server.wrapper) == ROUTE
}

/// Returns the options of a server that is a route; None if it is not.
pub fn route_of(server: &Server) -> Result<Option<RouteOptions>, Error> {
    if is_route_server(server) { RouteOptions::parse(&server.options).map(Some) } else { Ok(None) }
}

/// Returns whether a server of that name is a route.
pub fn is_route(name: &str) -> bool {
    foreign_servers::server(name).is_some_and(|server| is_route_server(&server))
}

impl RouteOptions {
    pub fn parse(options: &[(String, String)]) -> Result<Self, Error> {
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
                            return Err(Error::invalid_parameter(
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
                    return Err(Error::invalid_option_name(
                        format!("a route has no option \"{name}\""),
                        format!("{meant}Valid options: {}.", ROUTE_OPTIONS.join(", ")),
                    )
                    .logged_as("a route has no option \"%s\""));
                }
            }
        }
        parsed.check()
    }

    fn check(mut self) -> Result<Self, Error> {
        let refuse = |what: &str| {
            Err(Error::invalid_parameter(
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
            return Err(Error::invalid_parameter(
                "option weights has not as many numbers as providers has names",
                "One for each, in the same order: providers 'ideamart, hyperverge', weights '3, 1'.",
            ));
        }
        Ok(self)
    }
}

/// Returns names as a list, without what an error may not show.
pub fn listed(names: &[String]) -> String {
    names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}
