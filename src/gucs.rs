//! The extension's server settings.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use http_client::AllowedHosts;
use policy::Micros;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::settings;

static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"otp_gateway.key"));

static MAX_TRIES: GucSetting<i32> = GucSetting::<i32>::new(5);
static QUEUE_MAX_AGE: GucSetting<i32> = GucSetting::<i32>::new(600);
static MAX_SENDS_PER_TRANSACTION: GucSetting<i32> = GucSetting::<i32>::new(1000);
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(90 * 86_400);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(-1);
static WORKER_IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(300);
static PAUSE: GucSetting<bool> = GucSetting::<bool>::new(false);
static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(false);
static ALLOWED_HOSTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

pub fn init() {
    define_key_file();
    define_queue();
    define_record();
    define_workers();
    define_allowed_hosts();
    settings::reserve_prefix(c"otp_gateway");
}

fn define_key_file() {
    GucRegistry::define_string_guc(
        c"otp_gateway.key_file",
        c"The file with the keys, one in a line: the first seals what is kept of open verifications, all open it.",
        c"Relative to the data directory. Made on first start, mode 0600. Keep a copy apart from your backups of the \
        database.",
        &KEY_FILE,
        GucContext::Postmaster,
        GucFlags::SUPERUSER_ONLY,
    );
}

fn define_queue() {
    GucRegistry::define_int_guc(
        c"otp_gateway.max_tries",
        c"How often a queued send is tried before its verification is failed.",
        c"Tried again is only what certainly sent nothing: unreachable, rate_limited, provider_error. What ends as \
          auth_failed is tried until queue_max_age, whatever this says.",
        &MAX_TRIES,
        1,
        100,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"otp_gateway.queue_max_age",
        c"How long a send may stay queued; an older one expires unsent.",
        c"Nobody waits for an old code, and a restored backup must not text yesterday's customers.",
        &QUEUE_MAX_AGE,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"otp_gateway.pause",
        c"Nothing is sent: a send is blocked, what is queued waits; codes are checked as before.",
        c"To stop all of it at once, and for a copy of the server to start with. One provider: its option paused.",
        &PAUSE,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"otp_gateway.max_sends_per_transaction",
        c"How many sends one transaction may enqueue.",
        c"Guards against the UPDATE without WHERE on a table with the trigger.",
        &MAX_SENDS_PER_TRANSACTION,
        1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::empty(),
    );
}

fn define_record() {
    GucRegistry::define_int_guc(
        c"otp_gateway.retention",
        c"How long verifications and their attempts are kept; 0 keeps all.",
        c"Never shorter than what limits and idempotency keys look back on.",
        &RETENTION,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"otp_gateway.notify",
        c"Announces every change of a verification's status with NOTIFY on the channel of the role that began it.",
        c"otp_gateway.channel() names it. The payload is a JSON object with id, provider and status.",
        &NOTIFY,
        GucContext::Sighup,
        GucFlags::empty(),
    );
}

fn define_workers() {
    GucRegistry::define_int_guc(
        c"otp_gateway.max_workers",
        c"How many databases have a background worker at once; -1: half of max_worker_processes.",
        c"Where more want one, the one that has been idle for longest gives way. The others of max_worker_processes \
        are left to parallel queries, replication and other extensions.",
        &MAX_WORKERS,
        -1,
        256,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"otp_gateway.worker_idle_timeout",
        c"After how long without anything to do a database's background worker leaves; 0: it stays.",
        c"It comes back when somebody calls, enqueues, or something is due.",
        &WORKER_IDLE_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

fn define_allowed_hosts() {
    settings::define_checked::<Hosts>(
        c"otp_gateway.allowed_hosts",
        c"The hosts and networks that providers may point to; empty: all.",
        c"Separated by commas: host.example, *.example, 192.0.2.1, 10.1.0.0/16. A name allows public addresses alone.",
        &ALLOWED_HOSTS,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
}

/// The check hook of `otp_gateway.allowed_hosts`: a list that cannot be read is refused when it is set.
struct Hosts;

impl settings::Checked for Hosts {
    const SETTING: &str = "otp_gateway.allowed_hosts";

    fn check(text: &str) -> Result<(), String> {
        AllowedHosts::parse(text).map(|_| ())
    }
}

/// Returns `otp_gateway.max_tries`.
pub fn max_tries() -> u32 {
    MAX_TRIES.get().unsigned_abs()
}

/// Returns `otp_gateway.queue_max_age`, in microseconds.
pub fn queue_max_age() -> Micros {
    Micros::from(QUEUE_MAX_AGE.get()) * 1_000_000
}

/// Returns `otp_gateway.max_sends_per_transaction`.
pub fn max_sends_per_transaction() -> u32 {
    MAX_SENDS_PER_TRANSACTION.get().unsigned_abs()
}

/// Returns `otp_gateway.max_workers`; for -1, half of max_worker_processes. At least 1.
pub fn max_workers() -> usize {
    match usize::try_from(MAX_WORKERS.get()) {
        Ok(most) => most.max(1),
        Err(_) => (settings::max_worker_processes() / 2).max(1),
    }
}

/// Returns `otp_gateway.worker_idle_timeout`, in microseconds; None if an idle worker stays.
pub fn worker_idle_timeout() -> Option<Micros> {
    Some(Micros::from(WORKER_IDLE_TIMEOUT.get()) * 1_000_000).filter(|timeout| *timeout > 0)
}

/// Returns `otp_gateway.pause`.
pub fn pause() -> bool {
    PAUSE.get()
}

/// Returns `otp_gateway.notify`.
pub fn notify() -> bool {
    NOTIFY.get()
}

/// Returns `otp_gateway.retention`, in microseconds; None if everything is kept.
pub fn retention() -> Option<Micros> {
    Some(Micros::from(RETENTION.get()) * 1_000_000).filter(|retention| *retention > 0)
}

/// Returns `otp_gateway.allowed_hosts`. An error says why the list cannot be read.
pub fn allowed_hosts() -> Result<AllowedHosts, String> {
    AllowedHosts::parse(&ALLOWED_HOSTS.get().unwrap_or_default().to_string_lossy())
}

/// Returns `otp_gateway.key_file`, as an absolute path.
pub fn key_file() -> PathBuf {
    in_data_directory(&KEY_FILE.get().unwrap_or_default().to_string_lossy())
}

/// Returns where the key file is unless the setting names another path.
pub fn default_key_file() -> PathBuf {
    in_data_directory("otp_gateway.key")
}

/// Returns the file that notes the id of the key that sealed last. It lies with the data that it belongs to, wherever
/// the key file is.
pub fn key_note() -> PathBuf {
    in_data_directory("otp_gateway.key_id")
}

fn in_data_directory(name: &str) -> PathBuf {
    Path::new(&settings::data_directory()).join(name)
}
