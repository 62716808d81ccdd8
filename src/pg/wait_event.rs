//! The wait events that pg_stat_activity shows of our processes: by name from Postgres 17 on, before that as
//! `Extension`.

use pgrx::pg_sys;

#[derive(Clone, Copy)]
pub enum WaitEvent {
    /// The launcher has nothing to do.
    LauncherMain,
    /// A worker has nothing to do, or waits for vendors.
    WorkerMain,
    /// A session waits for what becomes of its call.
    Call,
    /// Somebody waits for a worker to come, or to go.
    Worker,
}

#[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
impl WaitEvent {
    pub fn number(self) -> u32 {
        pg_sys::PG_WAIT_EXTENSION
    }
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
impl WaitEvent {
    const COUNT: usize = Self::Worker as usize + 1;

    const fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::LauncherMain => c"OtpGatewayLauncherMain",
            Self::WorkerMain => c"OtpGatewayWorkerMain",
            Self::Call => c"OtpGatewayCall",
            Self::Worker => c"OtpGatewayWorker",
        }
    }

    /// Returns the number by which the server knows the event; the server is asked once in a process.
    pub fn number(self) -> u32 {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

        static KNOWN: [AtomicU32; WaitEvent::COUNT] = [const { AtomicU32::new(0) }; WaitEvent::COUNT];
        let known = &KNOWN[self as usize];
        match known.load(Relaxed) {
            0 => {
                let number = self.ask();
                known.store(number, Relaxed);
                number
            }
            number => number,
        }
    }

    /// Asks for the number of the event's name. The server has room for a limited number of names, and other extensions
    /// may have used it up: no call fails for that.
    fn ask(self) -> u32 {
        pgrx::PgTryBuilder::new(|| {
            // SAFETY: on the main thread, in a process that has shared memory; the name is a C string, which is copied.
            unsafe { pg_sys::WaitEventExtensionNew(self.name().as_ptr()) }
        })
        .catch_others(|_| {
            // SAFETY: the error is raised with a lock of the names held, and this process holds no other.
            unsafe { pg_sys::LWLockReleaseAll() };
            pg_sys::PG_WAIT_EXTENSION
        })
        .execute()
    }
}
