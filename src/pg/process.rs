//! Processes of this server: which one this is, and how another is woken.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use pgrx::pg_sys;

use crate::pg::wait_event::WaitEvent;

/// A process' place in the server's array of processes. Every process and every version of Postgres counts it alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessNumber(pub u32);

impl ProcessNumber {
    /// Returns the number of this process.
    pub fn mine() -> Self {
        // SAFETY: MyProc is set for every process that can run our code and points into the array allProcs.
        let number = unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) };
        Self(u32::try_from(number).expect("MyProc lies in allProcs"))
    }

    /// Sets the latch of the process that has this number now. If that is another process than before, it wakes in
    /// vain.
    pub fn wake(self) {
        // SAFETY: allProcs lives as long as the shared memory, and the number came from mine(). SetLatch cannot fail,
        // so that a transaction callback may call this.
        unsafe {
            let process = (*pg_sys::ProcGlobal).allProcs.add(self.0 as usize);
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

pub fn pid() -> i32 {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::MyProcPid }
}

/// Runs `then` when this process ends, also by a FATAL error, while shared memory is still attached. On the main
/// thread.
pub fn before_exit(then: fn()) {
    // SAFETY: the argument is the function, which lives for ever.
    unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(then as usize)) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: std::ffi::c_int, then: pg_sys::Datum) {
    // SAFETY: the function that before_exit() was given.
    let then: fn() = unsafe { std::mem::transmute(then.value()) };
    then();
}

/// Has Rust capture no backtraces in this process, whatever the server's environment wants: pgrx sends a backtrace to
/// the client as the detail of every error, also of a cancel, and a backtrace takes a tenth of a second to write.
pub fn capture_no_backtraces() {
    const SETTING: &str = "RUST_LIB_BACKTRACE";
    let before = std::env::var_os(SETTING);
    // SAFETY: in _PG_init, where this process has no other thread. Rust reads the variable once, and keeps the answer
    // for this library alone; the environment is put back for others.
    unsafe {
        std::env::set_var(SETTING, "0");
        drop(std::backtrace::Backtrace::capture());
        match before {
            Some(value) => std::env::set_var(SETTING, value),
            None => std::env::remove_var(SETTING),
        }
    }
}

/// Returns the system user that the server runs as: its name, or its number if it has no name (in some containers).
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

/// Returns whether the system user may make files in a directory.
pub fn may_write_into(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    // SAFETY: a C string.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// Sleeps until the latch is set, for `milliseconds` at most (below 0: without end), then handles interrupts;
/// pg_stat_activity shows `event` meanwhile.
pub fn wait(event: WaitEvent, milliseconds: i64) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
    if milliseconds >= 0 {
        events |= pg_sys::WL_TIMEOUT;
    }
    let number = event.number();
    // SAFETY: on the main thread, on this process' own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds as _, number);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
