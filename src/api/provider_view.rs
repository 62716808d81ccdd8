//! `effective_settings`, for the view `otp_gateway.provider`.

use pgrx::pg_sys;
use serde_json::Value;

use crate::{
    api::function::sql_function,
    provider::effective_settings::{Setting, of_provider},
};

sql_function!(
    fn effective_settings(server: pg_sys::Oid) -> pgrx::JsonB {
        let settings = of_provider(server).iter().map(Setting::json).collect();
        Ok(pgrx::JsonB(Value::Array(settings)))
    }
);
