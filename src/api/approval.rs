//! `otp_gateway.is_approved` and `send_again`, for users' tables: whether a number is proven, and whether it needs
//! another code, by the verification that the table's row names.

use dialect::Secret;
use policy::{Micros, Status};
use uuid::Uuid;

use crate::{
    api::function::sql_function,
    error::Error,
    pg::{arguments::Interval, clock::clock, session},
    store::{
        sealing_key,
        session_reads::{self, VerificationSnapshot},
    },
};

/// The value of a row's column with which the trigger sends for the row.
pub const SEND_AGAIN: Uuid = Uuid::nil();

/// How far ahead an approval may be dated. One that is dated later was not just made: the clock was set back.
const AHEAD: Micros = 60_000_000;

sql_function!(
    fn is_approved(verification_id: Option<Uuid>, mobile: Option<Secret>, within: Interval) -> bool {
        not_in_parallel()?;
        let (Some(id), Some(mobile)) = (verification_id, mobile) else { return Ok(false) };
        let Some(recorded) = session_reads::own(id)? else { return Ok(false) };
        Ok(is_fresh(&recorded, within.0) && went_to(id, &recorded, &mobile)?)
    }
);

sql_function!(
    fn send_again(verification_id: Option<Uuid>) -> pgrx::datum::Uuid {
        not_in_parallel()?;
        // A verification that is not there, or not the caller's, has no code that anybody could still type.
        let recorded = verification_id.map(session_reads::own).transpose()?.flatten();
        let is_open = |recorded: &VerificationSnapshot| match recorded.status {
            Status::Pending | Status::Unknown => recorded.expires_at.is_none_or(|end| end > clock()),
            status => !status.is_terminal(),
        };
        let open = match verification_id.filter(|_| recorded.as_ref().is_some_and(is_open)) {
            // A vendor's word that the code is over is believed here, and only here: it ends no verification.
            Some(id) if session_reads::is_called_expired(id)? => None,
            open => open,
        };
        Ok(pgrx::datum::Uuid::from_bytes(*open.unwrap_or(SEND_AGAIN).as_bytes()))
    }
);

/// Fails during a parallel operation, where the record cannot be read as it is now.
fn not_in_parallel() -> Result<(), Error> {
    if session::is_parallel() {
        return Err(Error::invalid_transaction_state(
            "cannot run during a parallel operation: it reads what is on record now",
            "Functions that call it are PARALLEL UNSAFE, which is the default.",
        ));
    }
    Ok(())
}

fn is_fresh(recorded: &VerificationSnapshot, within: Micros) -> bool {
    recorded.status == Status::Approved
        && recorded.approved_at.is_some_and(|at| (-AHEAD..=within).contains(&clock().since(at)))
}

/// Returns whether the code went to this very number, in whatever spelling.
fn went_to(id: Uuid, recorded: &VerificationSnapshot, mobile: &Secret) -> Result<bool, Error> {
    let Some(key) = &recorded.recipient_key else { return Ok(false) };
    let recipient = dialect::by_name(&recorded.vendor).and_then(|dialect| (dialect.recipient)(mobile.reveal()));
    let Some(recipient) = recipient else { return Ok(false) };
    Ok(sealing_key::keys()?.recipients(&recipient).contains(key) && session_reads::was_sent_here(id)?)
}
