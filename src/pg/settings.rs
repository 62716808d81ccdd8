//! Settings, and values as Postgres reads those.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// A number and a unit of time, in milliseconds. A number alone is one already.
pub fn milliseconds(text: &str) -> Option<i32> {
    let text = CString::new(text).ok()?;
    let mut millis = 0;
    // SAFETY: on the main thread; a C string, a place for the number, and none for a hint.
    let is_one =
        unsafe { pg_sys::parse_int(text.as_ptr(), &mut millis, pg_sys::GUC_UNIT_MS as i32, std::ptr::null_mut()) };
    is_one.then_some(millis)
}

/// A boolean, in any of the words that Postgres takes for one.
pub fn boolean(text: &str) -> Option<bool> {
    let text = CString::new(text).ok()?;
    let mut value = false;
    // SAFETY: on the main thread; a C string, and a place for the value.
    let is_one = unsafe { pg_sys::parse_bool(text.as_ptr(), &mut value) };
    is_one.then_some(value)
}

/// The value of a setting of Postgres' own, as text. None: this version has none of that name.
pub fn value(name: &CStr) -> Option<String> {
    // SAFETY: on the main thread; C strings both.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// A setting of this process, if this version of Postgres has it: no reload changes it.
pub fn override_with(name: &CStr, value: &CStr) {
    // SAFETY: on the main thread; C strings both; an error is Postgres' own.
    unsafe {
        if pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() {
            return;
        }
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// How many background workers this server has room for.
pub fn max_worker_processes() -> usize {
    // SAFETY: a variable that is set at server start.
    unsafe { pg_sys::max_worker_processes }.unsigned_abs() as usize
}

pub fn data_directory() -> String {
    // SAFETY: DataDir is set once at server start and is a C string for the life of the process.
    unsafe { CStr::from_ptr(pg_sys::DataDir) }.to_string_lossy().into_owned()
}

/// A misspelt setting of this prefix is refused from now on, as far as this version of Postgres can. After the last of
/// them is defined.
pub fn reserve_prefix(prefix: &CStr) {
    #[cfg(not(feature = "pg14"))]
    // SAFETY: on the main thread; a C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
    #[cfg(feature = "pg14")]
    let _ = prefix;
}

/// Reads the settings again, after SIGHUP. Outside a transaction.
pub fn reload() {
    // SAFETY: on the main thread, outside a transaction.
    unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
}
