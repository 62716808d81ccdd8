//! The end of a transaction: one callback, and the steps that run in it.

use std::sync::OnceLock;

use pgrx::pg_sys;

/// What one module does around the end of each transaction.
pub struct Step {
    /// Runs before a COMMIT or PREPARE TRANSACTION, where an error still undoes the transaction.
    pub before: Option<fn()>,
    /// Runs after the end, and is told whether the transaction is committed now. Cannot fail: only atomics, SetLatch
    /// and the freeing of memory are allowed, or the server goes down.
    pub after: Option<fn(bool)>,
}

static STEPS: OnceLock<&'static [Step]> = OnceLock::new();

/// Takes the steps, in their order; called in `_PG_init`.
pub fn init(steps: &'static [Step]) {
    STEPS.get_or_init(|| steps);
    // SAFETY: on the main thread; sessions inherit it from the postmaster.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => {
            // SAFETY: on the main thread, in a transaction that is about to commit.
            unsafe { before() }
        }
        pg_sys::XactEvent::XACT_EVENT_COMMIT => after(true),
        // A prepared transaction is committed by COMMIT PREPARED, which the hook of utility statements sees.
        pg_sys::XactEvent::XACT_EVENT_ABORT
        | pg_sys::XactEvent::XACT_EVENT_PREPARE
        | pg_sys::XactEvent::XACT_EVENT_PARALLEL_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PARALLEL_ABORT => after(false),
        _ => {}
    }
}

fn steps() -> &'static [Step] {
    STEPS.get().copied().unwrap_or_default()
}

/// Runs the steps before a commit. An error of a step is an error of the COMMIT.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before() {
    steps().iter().filter_map(|step| step.before).for_each(|before| before());
}

fn after(is_committed: bool) {
    steps().iter().filter_map(|step| step.after).for_each(|after| after(is_committed));
}
