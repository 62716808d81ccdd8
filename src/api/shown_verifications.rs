//! Rows of the view `otp_gateway.verification`, as an array, which SQL takes apart.

use pgrx::pg_sys;

use crate::{
    api::function::{Call, Returned},
    error::Error,
    ipc::segment,
    pg::{
        fingerprint::Fingerprint,
        relation::{verification_array_type, verification_view},
        roles::{current_user, may_select},
        row_array::{Columns, RowType},
    },
    store::{columns::shown, recipient_lookup::ShownVerification},
};

/// What a look-up has found, for whoever may read the view.
pub struct ShownVerifications(pub Vec<ShownVerification>);

impl Returned for ShownVerifications {
    fn declared() -> pg_sys::Oid {
        verification_array_type()
    }

    fn answer(_: &Call, _: Fingerprint, body: impl FnOnce() -> Result<Self, Error>) -> Result<pg_sys::Datum, Error> {
        segment::check()?;
        let view = verification_view();
        if !may_select(current_user(), view) {
            return Err(Error::insufficient_privilege(
                "permission denied for view verification",
                "What is found is shown as the view otp_gateway.verification shows it: GRANT SELECT on it.",
            ));
        }
        let Self(found) = body()?;
        Ok(RowType::of(view).array(&found, fill))
    }
}

fn fill(one: &ShownVerification, columns: &mut Columns) {
    columns.uuid(shown::ID, one.id);
    columns.text(shown::PROVIDER, one.provider.as_deref());
    columns.text(shown::VENDOR, one.vendor.as_deref());
    columns.text(shown::STATUS, one.status.as_deref());
    columns.text(shown::RECIPIENT_MASKED, one.recipient_masked.as_deref());
    columns.text(shown::REFERENCE, one.reference.as_deref());
    columns.name(shown::CREATED_BY, &one.created_by);
    columns.time(shown::CREATED_AT, one.created_at);
    columns.time(shown::EXPIRES_AT, one.expires_at);
    columns.time(shown::APPROVED_AT, one.approved_at);
    columns.integer(shown::SEND_COUNT, one.send_count);
    columns.integer(shown::CHECK_COUNT, one.check_count);
    columns.integer(shown::MAX_CHECKS, one.max_checks);
    columns.boolean(shown::IS_TEST, one.is_test);
    columns.text(shown::ROUTE, one.route.as_deref());
}
