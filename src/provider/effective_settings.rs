//! The settings in force at a provider, and where each comes from: the rows of the view `otp_gateway.provider`.
//! Everybody may read the view, so no secret may get here.

use dialect::{DefaultsInForce, Dialect, TIMEOUT, defaults_in_force};
use pgrx::pg_sys;
use policy::Strategy;
use serde_json::{Value, json};

use crate::{
    pg::{
        clock::clock,
        foreign_servers::{self, Server},
        relation::of_extension,
        roles::current_user,
        values,
    },
    provider::{
        Provider,
        account_breaker::AccountBreaker,
        description,
        lookup::dialect_of,
        option_value::shown,
        route::{ROUTE, ROUTE_OPTIONS, RouteOptions, listed},
        server_options::{self, Enforce, ServerOptions},
    },
};

pub struct Setting {
    setting: &'static str,
    value: Option<String>,
    source: &'static str,
}

impl Setting {
    pub fn json(&self) -> Value {
        json!({"setting": self.setting, "value": self.value, "source": self.source})
    }
}

/// Returns the settings of a provider or route; none for a server that is not ours, or that is gone.
pub fn of_provider(server: pg_sys::Oid) -> Vec<Setting> {
    let Some(server) = foreign_servers::server_of(server) else { return Vec::new() };
    if foreign_servers::wrapper_name(server.wrapper) == ROUTE {
        return of_route(&server.options);
    }
    if dialect_of(&foreign_servers::wrapper_name(server.wrapper)).is_none() {
        return Vec::new();
    }
    let read = description::of_server(&server)
        .and_then(|dialect| Ok((ServerOptions::parse(&dialect, &server.options)?, dialect)));
    let mut settings = match read {
        Ok((options, dialect)) => of_server(&dialect, &server.options, &options),
        // Options may have been written past the validator, or by an older version. A view that failed would hide all
        // others.
        Err(error) => {
            vec![Setting { setting: "error", value: Some(error.message().to_owned()), source: "server" }]
        }
    };
    let (mapping, options) = foreign_servers::user_mapping(current_user(), server.oid).unzip();
    settings.push(credentials(options));
    settings.extend(breaker(server, mapping.unwrap_or(pg_sys::InvalidOid)));
    settings
}

/// Returns whether sends with the current role's credentials are let through. Returns None if the view is that of an
/// older version, which looks at the breaker itself.
fn breaker(server: Server, mapping: pg_sys::Oid) -> Option<Setting> {
    of_extension(c"breaker")?;
    let configuration = |server| Provider::of_member(server, current_user()).ok().map(|it| it.configuration());
    let value = match AccountBreaker::of(server.oid, mapping, || configuration(server), clock()) {
        Ok(AccountBreaker::Closed | AccountBreaker::Mended) => "closed".to_owned(),
        Ok(AccountBreaker::Open(open)) => format!("open until {}", values::shown_time(open.open_until)),
        Ok(AccountBreaker::HalfOpen(_)) => "half-open: the next send is a probe".to_owned(),
        Err(error) => error.message().to_owned(),
    };
    Some(Setting { setting: "breaker", value: Some(value), source: "state" })
}

fn of_route(given: &[(String, String)]) -> Vec<Setting> {
    let options = match RouteOptions::parse(given) {
        Ok(options) => options,
        Err(error) => {
            return vec![Setting { setting: "error", value: Some(error.message().to_owned()), source: "server" }];
        }
    };
    let weights: Vec<String> = options.weights.iter().map(u32::to_string).collect();
    let strategy = if options.strategy == Strategy::Ordered { "ordered" } else { "weighted" };
    let values = [listed(&options.providers), strategy.to_owned(), weights.join(", ")];
    let is_given = |setting| given.iter().any(|(name, _)| name == setting);
    let setting = |(setting, value)| Setting {
        setting,
        value: Some(value),
        source: if is_given(setting) { "server" } else { "default" },
    };
    ROUTE_OPTIONS.into_iter().zip(values).map(setting).collect()
}

fn of_server(dialect: &Dialect, given: &[(String, String)], options: &ServerOptions) -> Vec<Setting> {
    let defaults = defaults_in_force(dialect, &options.vendors_own, &options.defaults);
    let setting = |setting| {
        // A value that every payload gets from the option defaults weighs more than the server's own.
        if let Some(value) = of_defaults(setting, &defaults, options) {
            return Setting { setting, value, source: "defaults" };
        }
        let value = value(setting, dialect, options);
        let source = if given.iter().any(|(name, _)| name == setting) {
            "server"
        } else if value.is_some() && is_of_the_vendor(setting) {
            "vendor default"
        } else {
            "default"
        };
        Setting { setting, value, source }
    };
    server_options::of_server(dialect).map(setting).collect()
}

/// Returns a setting's value if the option defaults decides it.
fn of_defaults(setting: &str, defaults: &DefaultsInForce, options: &ServerOptions) -> Option<Option<String>> {
    match setting {
        "code_lifetime" if defaults.code_lifetime.is_some() => Some(defaults.code_lifetime.map(shown)),
        // The vendor's page does not say how long such a code lives.
        "code_lifetime" if defaults.has_no_life && options.code_lifetime.is_none() => Some(None),
        "max_checks" if defaults.max_checks.is_some() => Some(defaults.max_checks.map(|checks| checks.to_string())),
        _ => None,
    }
}

/// Returns whether a setting's default is the dialect's.
fn is_of_the_vendor(setting: &str) -> bool {
    matches!(setting, "base_url" | "code_lifetime" | "max_checks" | "resend_after")
}

/// Returns a setting's value in the form that the option takes; None if it is not set and has no default.
fn value(setting: &str, dialect: &Dialect, options: &ServerOptions) -> Option<String> {
    match setting {
        "base_url" => Some(options.base_url.clone()),
        "timeout" => Some(shown(options.timeout.unwrap_or(TIMEOUT))),
        "connect_timeout" => Some(shown(options.connect_timeout)),
        "proxy" => options.proxy.clone(),
        "ca_file" => options.ca_file.clone(),
        "client_cert_file" => options.client_cert_file.clone(),
        "client_key_file" => options.client_key_file.clone(),
        "max_in_flight" => Some(options.max_in_flight.to_string()),
        "defaults" => Some(Value::Object(options.defaults.clone()).to_string()),
        "allow_plain_http" => Some(options.allow_plain_http.to_string()),
        "paused" => Some(options.is_paused.to_string()),
        "code_lifetime" => options.code_lifetime.or(dialect.code_lifetime).map(shown),
        "max_checks" => Some(options.max_checks.to_string()),
        "resend_after" => Some(shown(options.resend_after)),
        "send_limit" => options.send_limit.as_ref().map(ToString::to_string),
        "check_limit" => options.check_limit.as_ref().map(ToString::to_string),
        "provider_limit" => options.provider_limit.as_ref().map(ToString::to_string),
        "min_conversion" => options.min_conversion.as_ref().map(ToString::to_string),
        "allowed_prefixes" => options.allowed_prefixes.as_ref().map(ToString::to_string),
        "enforce" => Some(
            match options.enforce {
                Enforce::On => "on",
                Enforce::Observe => "observe",
            }
            .to_owned(),
        ),
        "test_numbers" => options.test_numbers.as_ref().map(policy::TestNumbers::masked),
        of_the_vendor => options.vendors_own.get(of_the_vendor).cloned(),
    }
}

/// Returns the credentials by their names alone: their values must not be seen.
fn credentials(mapping: Option<Vec<(String, String)>>) -> Setting {
    let names: Vec<String> = mapping.unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    let value = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Setting { setting: "credentials", value: Some(value), source: "user mapping" }
}
