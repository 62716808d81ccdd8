//! Processes of this server: which one this is, and waking another.

use std::ffi::CStr;

use pgrx::pg_sys;

/// A process' place in the server's array of them: the same in every process and every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessNumber(pub u32);

impl ProcessNumber {
    /// This process.
    pub fn mine() -> Self {
        // SAFETY: MyProc is set for every process that can run our code and points into the array allProcs.
        let number = unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) };
        Self(u32::try_from(number).expect("MyProc lies in allProcs"))
    }

    /// Sets the latch of whoever has that place now: at worst a spurious wake-up.
    pub fn wake(self) {
        // SAFETY: allProcs lives as long as the shared memory, and the number came from mine(). SetLatch cannot fail,
        // so that a transaction callback may call this.
        unsafe {
            let process = (*pg_sys::ProcGlobal).allProcs.add(self.0 as usize);
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// Rust captures no backtraces in this process, whatever the server's environment wants: pgrx sends one along with
/// every error, also of a cancel, as a detail for the client, and it takes a tenth of a second to write.
pub fn capture_no_backtraces() {
    const SETTING: &str = "RUST_LIB_BACKTRACE";
    let before = std::env::var_os(SETTING);
    // SAFETY: in _PG_init, where this process has no other thread. What is asked for first is kept for good, by this
    // library alone; the environment is put back for others.
    unsafe {
        std::env::set_var(SETTING, "0");
        drop(std::backtrace::Backtrace::capture());
        match before {
            Some(value) => std::env::set_var(SETTING, value),
            None => std::env::remove_var(SETTING),
        }
    }
}

/// The system user that the server runs as, by name, or by number where it has none (in some containers).
pub fn system_user() -> String {
    // SAFETY: on the main thread; the entry is static memory, copied before the next call.
    unsafe {
        let id = libc::geteuid();
        let entry = libc::getpwuid(id);
        if entry.is_null() {
            return id.to_string();
        }
        CStr::from_ptr((*entry).pw_name).to_string_lossy().into_owned()
    }
}

/// Sleeps until the latch is set, for `milliseconds` at most (below 0: without end), then acts on interrupts.
pub fn wait(milliseconds: i64) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
    if milliseconds >= 0 {
        events |= pg_sys::WL_TIMEOUT;
    }
    // SAFETY: on the main thread, on this process' own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds as _, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
