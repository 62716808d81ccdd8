//! The server settings that the extension has.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"otp_gateway.key"));

pub fn init() {
    GucRegistry::define_string_guc(
        c"otp_gateway.key_file",
        c"The file with the key that seals what is kept of open verifications.",
        c"Relative to the data directory. Made on first start, mode 0600. Keep a copy apart from your backups of the database.",
        &KEY_FILE,
        GucContext::Postmaster,
        GucFlags::SUPERUSER_ONLY,
    );
}

/// `otp_gateway.key_file`, absolute.
pub fn key_file() -> PathBuf {
    let name = KEY_FILE.get().unwrap_or_default();
    // SAFETY: DataDir is set once at server start and is a C string for the life of the process.
    let data_directory = unsafe { std::ffi::CStr::from_ptr(pgrx::pg_sys::DataDir) };
    Path::new(&*data_directory.to_string_lossy()).join(&*name.to_string_lossy())
}
