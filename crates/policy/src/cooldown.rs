use crate::Micros;

/// How long a recipient has yet to wait for another send; None: free. A last send in the future (the clock was set
/// back) counts as now, so that the wait is never longer than `resend_after`.
pub fn cooldown(resend_after: Micros, last_send: Option<Micros>, now: Micros) -> Option<Micros> {
    let age = now.saturating_sub(last_send?).max(0);
    (age < resend_after).then(|| resend_after - age)
}
