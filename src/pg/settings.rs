//! Settings, and values in the forms in which Postgres reads settings.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::{
    GucContext, GucFlags, GucRegistry, GucSetting, PgLogLevel, PgSqlErrorCode,
    pg_sys::{self, panic::pgrx_extern_c_guard},
};

use crate::pg::session::is_preloading;

/// The rule for a setting that is a text.
pub trait Checked {
    const SETTING: &str;

    /// Checks a text; an error says why the setting does not take it.
    fn check(text: &str) -> Result<(), String>;
}

/// Defines a setting that refuses a wrong text when it is set. A wrong text in postgresql.conf ends the server's start:
/// Postgres itself would only warn, and go on with the default.
pub fn define_checked<T: Checked>(
    name: &'static CStr,
    what: &'static CStr,
    more: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    context: GucContext,
    flags: GucFlags,
) {
    // SAFETY: the hook is guarded.
    unsafe {
        let check = Some(check::<T> as _);
        GucRegistry::define_string_guc_with_hooks(name, what, more, setting, context, flags, check, None, None);
    }
}

unsafe extern "C-unwind" fn check<T: Checked>(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres passes a C string; the default is one, so that it is never null. The reason is put where
    // Postgres' own GUC_check_errdetail() puts it.
    unsafe {
        pgrx_extern_c_guard(|| {
            let Err(why) = T::check(&CStr::from_ptr(*value).to_string_lossy()) else { return true };
            if is_preloading() {
                pgrx::ereport!(
                    PgLogLevel::FATAL,
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("invalid value for parameter \"{}\": {why}", T::SETTING)
                );
            }
            let why = CString::new(why).unwrap_or_default();
            pg_sys::GUC_check_errdetail_string = pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, why.as_ptr());
            false
        })
    }
}

/// Reads a number with a unit of time, in milliseconds. A number without a unit is milliseconds already.
pub fn milliseconds(text: &str) -> Option<i32> {
    let text = CString::new(text).ok()?;
    let mut millis = 0;
    // SAFETY: on the main thread; a C string, a place for the number, and none for a hint.
    let is_one =
        unsafe { pg_sys::parse_int(text.as_ptr(), &mut millis, pg_sys::GUC_UNIT_MS as i32, std::ptr::null_mut()) };
    is_one.then_some(millis)
}

/// Reads a boolean, in any of the words that Postgres takes for one.
pub fn boolean(text: &str) -> Option<bool> {
    let text = CString::new(text).ok()?;
    let mut value = false;
    // SAFETY: on the main thread; a C string, and a place for the value.
    let is_one = unsafe { pg_sys::parse_bool(text.as_ptr(), &mut value) };
    is_one.then_some(value)
}

/// Returns the value of a setting of Postgres' own, as text; None if this version has no such setting.
pub fn value(name: &CStr) -> Option<String> {
    // SAFETY: on the main thread; C strings both.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// Sets a setting for this process, so that no reload changes it; does nothing if this version of Postgres lacks it.
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

/// Returns how many background workers this server has room for.
pub fn max_worker_processes() -> usize {
    // SAFETY: a variable that is set at server start.
    unsafe { pg_sys::max_worker_processes }.unsigned_abs() as usize
}

pub fn data_directory() -> String {
    // SAFETY: DataDir is set once at server start and is a C string for the life of the process.
    unsafe { CStr::from_ptr(pg_sys::DataDir) }.to_string_lossy().into_owned()
}

/// Refuses unknown settings of this prefix from now on, as far as this version of Postgres can. To be called after the
/// last setting of the prefix is defined.
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
