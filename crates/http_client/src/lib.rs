//! Makes the HTTP calls: tokio and reqwest on a thread of their own. Knows no Postgres: calls come over a channel,
//! completed calls are fetched by the owner, whom a byte on a socket wakes.
//!
//! What it promises: a request whose bytes may have left this machine is never sent again. What certainly did not
//! leave is `unreachable`; what may have left and was not answered legibly is `unknown`.
#![forbid(unsafe_code)]

mod allowed_hosts;
mod certificate;
mod client;
mod completion_queue;
mod connection_check;
mod connection_pools;
mod endpoint;
mod exchange;
mod oauth;
mod option_file;
mod post;
mod recent;
mod wipe_stack;

pub use allowed_hosts::AllowedHosts;
pub use certificate::certificate_end;
pub use client::{CompletedCall, HttpClient, OutboundCall};
pub use connection_check::{ConnectionCheck, Reached};
pub use endpoint::{Endpoint, OAuthClient, Proxy};
pub use option_file::{file_error, open_file};
pub use post::call_url;
pub use wipe_stack::wipe_stack;
