//! The numbers of the tables' columns, as the install script and the upgrades after it give them.

/// The table that was added last. If it has another OID than before, the extension was installed anew.
pub const NEWEST_TABLE: &std::ffi::CStr = c"identity";

pub mod verification {
    pub const ID: usize = 1;
    pub const PROVIDER: usize = 2;
    pub const VENDOR: usize = 3;
    pub const STATUS: usize = 4;
    pub const RECIPIENT_MASKED: usize = 5;
    pub const RECIPIENT_KEY: usize = 6;
    pub const REFERENCE: usize = 7;
    pub const CREATED_BY: usize = 8;
    pub const CREATED_AT: usize = 9;
    pub const EXPIRES_AT: usize = 10;
    pub const APPROVED_AT: usize = 11;
    pub const SEND_COUNT: usize = 12;
    pub const CHECK_COUNT: usize = 13;
    pub const MAX_CHECKS: usize = 14;
    pub const SEALED: usize = 15;
    pub const ENQUEUED: usize = 16;
    pub const IDEMPOTENCY_KEY: usize = 17;
    pub const PAYLOAD_HASH: usize = 18;
    pub const IS_TEST: usize = 19;
    pub const ROUTE: usize = 20;
    pub const PROVIDER_ID: usize = 21;
    pub const ROLE_ID: usize = 22;
    pub const ROUTE_ID: usize = 23;
    pub const COUNTRY: usize = 24;
}

/// Of the view otp_gateway.verification.
pub mod shown {
    pub const ID: usize = 1;
    pub const PROVIDER: usize = 2;
    pub const VENDOR: usize = 3;
    pub const STATUS: usize = 4;
    pub const RECIPIENT_MASKED: usize = 5;
    pub const REFERENCE: usize = 6;
    pub const CREATED_BY: usize = 7;
    pub const CREATED_AT: usize = 8;
    pub const EXPIRES_AT: usize = 9;
    pub const APPROVED_AT: usize = 10;
    pub const SEND_COUNT: usize = 11;
    pub const CHECK_COUNT: usize = 12;
    pub const MAX_CHECKS: usize = 13;
    pub const IS_TEST: usize = 14;
    pub const ROUTE: usize = 15;
}

/// Of the composite type otp_gateway.result.
pub mod result {
    pub const VERIFICATION_ID: usize = 1;
    pub const ATTEMPT_ID: usize = 2;
    pub const STATUS: usize = 3;
    pub const OUTCOME: usize = 4;
    pub const RETRYABLE: usize = 5;
    pub const ATTEMPTS_LEFT: usize = 6;
    pub const RETRY_AFTER: usize = 7;
    pub const EXPIRES_AT: usize = 8;
    pub const REFERENCE: usize = 9;
    pub const VENDOR_CODE: usize = 10;
    pub const VENDOR_MESSAGE: usize = 11;
    pub const RESPONSE: usize = 12;
    pub const REASON: usize = 13;
}

pub mod attempt {
    pub const ID: usize = 1;
    pub const VERIFICATION_ID: usize = 2;
    pub const OPERATION: usize = 3;
    pub const OUTCOME: usize = 4;
    pub const HTTP_STATUS: usize = 5;
    pub const VENDOR_CODE: usize = 6;
    pub const VENDOR_MESSAGE: usize = 7;
    pub const RESPONSE: usize = 8;
    pub const STARTED_AT: usize = 9;
    pub const FINISHED_AT: usize = 10;
    pub const RECIPIENT_KEY: usize = 12;
    pub const REASON: usize = 13;
    pub const PROVIDER_ID: usize = 14;
    pub const ROLE_ID: usize = 15;
    pub const ACCOUNT: usize = 16;
    pub const RETRY_AT: usize = 17;
}

pub mod reference {
    pub const REFERENCE: usize = 2;
    pub const VERIFICATION_ID: usize = 3;
    pub const PROVIDER_ID: usize = 4;
}

pub mod breaker {
    pub const SERVER: usize = 1;
    pub const OPEN_UNTIL: usize = 2;
    pub const MAPPING: usize = 3;
    pub const OPENED_AT: usize = 4;
    pub const FAILED_AT: usize = 5;
    pub const OUTCOME: usize = 6;
    pub const VENDOR_CODE: usize = 7;
    pub const CONFIGURATION: usize = 8;
}

pub mod number_range {
    pub const PROVIDER_ID: usize = 1;
    pub const RANGE: usize = 2;
    pub const COUNTED_AT: usize = 3;
    pub const SENDS: usize = 4;
    pub const CONVERTED: usize = 5;
}

pub mod low_conversion {
    pub const PROVIDER_ID: usize = 1;
    pub const RANGE: usize = 2;
    pub const SINCE: usize = 3;
    pub const UNTIL: usize = 4;
    pub const SENDS: usize = 5;
    pub const CONVERTED: usize = 6;
    pub const USUAL: usize = 7;
    pub const PERCENT: usize = 8;
    pub const IS_ENFORCED: usize = 9;
    pub const BLOCKED: usize = 10;
    pub const PASSED: usize = 11;
}

pub mod sealing_key {
    pub const ID: usize = 1;
}

pub mod queue_home {
    pub const DATABASE: usize = 1;
    pub const CLUSTER: usize = 2;
    pub const SERVER: usize = 3;
    pub const TIMELINE: usize = 4;
    pub const DIRECTORY: usize = 5;
}

pub mod hourly {
    pub const HOUR: usize = 1;
    pub const PROVIDER_ID: usize = 2;
    pub const ROLE_ID: usize = 3;
    pub const ROUTE_ID: usize = 4;
    pub const COUNTRY: usize = 5;
    pub const COUNTS: usize = 6;
}

pub mod identity {
    pub const ID: usize = 1;
    pub const KIND: usize = 2;
    pub const OBJECT: usize = 3;
    pub const HOME: usize = 4;
    pub const NAME: usize = 5;
    pub const VENDOR: usize = 6;
}
