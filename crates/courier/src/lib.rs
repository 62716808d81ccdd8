//! Makes the HTTP calls: tokio and reqwest on a thread of their own. Knows no Postgres: parcels come over a channel,
//! deliveries are fetched by the owner, whom a byte on a socket wakes.
//!
//! What it promises: a request whose bytes may have left this machine is never sent again. What certainly did not
//! leave is `unreachable`; what may have left and was not answered legibly is `unknown`.
#![forbid(unsafe_code)]

mod allowed_hosts;
mod client;
mod exchange;
mod post_office;
mod recent;
mod route;
mod stack;
mod token;

pub use allowed_hosts::AllowedHosts;
pub use post_office::{Courier, Delivery, Parcel};
pub use route::{OAuth, Proxy, Route};
pub use stack::wipe_stack;
