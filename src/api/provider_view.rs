//! The functions behind the views `otp_gateway.provider` and `otp_gateway.payload_field`.

use pgrx::pg_sys;
use serde_json::{Value, json};

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

sql_function!(
    fn payload_fields() -> pgrx::JsonB {
        let of_vendor = |dialect: &&'static dialect::Dialect| {
            let vendor = dialect.name;
            dialect::payload_fields(dialect).into_iter().map(move |row| {
                json!({
                    "vendor": vendor,
                    "operation": row.operation.as_str(),
                    "field": row.field,
                    "vendor_name": row.vendor_name,
                    "required": row.required,
                    "rule": row.rule,
                    "example": row.example,
                })
            })
        };
        Ok(pgrx::JsonB(dialect::DIALECTS.iter().flat_map(of_vendor).collect()))
    }
);
