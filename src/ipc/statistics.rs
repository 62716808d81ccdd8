//! The numbers counted since the server started, for the views `otp_gateway.stat_attempt` and its like, for each
//! provider of each database. Only the worker of a database writes its numbers; a reader waits for nobody, and sees a
//! provider's numbers as they were at one moment.

pub mod count;

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use dialect::{Operation, Outcome};
use policy::{BlockReason, Micros, Timestamp};
use seqlock::Version;

use crate::{
    ipc::{segment::Part, worker_report::QueueReport},
    store::counted::BOUNDS,
};

/// How many databases, and how many providers in all of them, have a place; attempts without a place are counted
/// together.
pub const DATABASES: usize = 256;
pub const PROVIDERS: usize = 256;
/// How many kinds of attempts are told apart at one provider; kinds differ in operation, outcome or reason.
const KINDS: usize = 104;
pub const BUCKETS: usize = BOUNDS.len() + 1;
const OPERATIONS: usize = Operation::ALL.len();
/// In place of a database's OID: a worker is taking or freeing the slot, and nobody reads it.
const TAKEN: u32 = u32::MAX;
/// How much of a vendor's code and of its words is kept, in units of eight bytes.
const CODE: usize = 8;
const WORDS: usize = 24;

/// The statistics' part of shared memory.
pub static STATISTICS: Part = Part::new(size_of::<Statistics>);

#[repr(C)]
pub struct Statistics {
    databases: [DatabaseSlot; DATABASES],
    providers: [ProviderSlot; PROVIDERS],
}

/// Returns the statistics; None if the library is not preloaded.
fn statistics() -> Option<&'static Statistics> {
    // SAFETY: null, or the memory is ours for the life of the server, zeroed at first, which is the empty state of all
    // of it; everything in it is atomic.
    unsafe { STATISTICS.base().cast::<Statistics>().as_ref() }
}

fn add(to: &AtomicU64, count: u64) {
    to.store(to.load(Relaxed).wrapping_add(count), Relaxed);
}

#[repr(C)]
struct DatabaseSlot {
    /// The database's OID; 0: the slot is free.
    database: AtomicU32,
    version: Version,
    reset_at: AtomicI64,
    /// Attempts that have no place in a provider's slot.
    other_attempts: AtomicU64,
    other_time: AtomicU64,
    /// How many times a worker has begun.
    starts: AtomicU64,
    /// How many attempts became `unknown` because an earlier worker had left them in flight.
    recovered: AtomicU64,
}

#[repr(C)]
struct ProviderSlot {
    /// The database's OID; 0: the slot is free.
    database: AtomicU32,
    version: Version,
    provider: AtomicI64,
    /// The OID of the foreign server; 0: the worker does not know it yet.
    server: AtomicU32,
    reset_at: AtomicI64,
    latency: [[AtomicU64; BUCKETS]; OPERATIONS],
    latency_time: [AtomicU64; OPERATIONS],
    last_success_at: AtomicI64,
    last_failure_at: AtomicI64,
    failing_since: AtomicI64,
    consecutive_failures: AtomicU64,
    /// The place of the last failure's outcome in `Outcome::ALL` plus 1; 0: there was no failure.
    last_failure: AtomicU32,
    code: Text<CODE>,
    words: Text<WORDS>,
    /// Until when the certificate of the host that answered last is valid; 0: none was seen.
    certificate_ends_at: AtomicI64,
    verifications: AtomicU64,
    converted: AtomicU64,
    in_flight: AtomicU64,
    ready: AtomicU64,
    parked: AtomicU64,
    oldest_ready_at: AtomicI64,
    /// The part of provider_limit that is used, in millionths, plus 1; 0: nobody has counted.
    limit_used: AtomicU64,
    kinds: [Kind; KINDS],
}

/// Attempts of one operation, outcome and reason.
#[repr(C)]
struct Kind {
    /// Operation, outcome and reason as one number; 0: the place is free.
    key: AtomicU32,
    count: AtomicU64,
    time: AtomicU64,
    last_at: AtomicI64,
}

/// A short text, in words of eight bytes.
#[repr(C)]
struct Text<const WORDS: usize> {
    length: AtomicU32,
    bytes: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Text<WORDS> {
    fn put(&self, text: Option<&str>) {
        let text = text.unwrap_or_default();
        let mut end = text.len().min(WORDS * 8);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        for (word, bytes) in self.bytes.iter().zip(text.as_bytes()[..end].chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Relaxed);
        }
        self.length.store(end as u32, Relaxed);
    }

    fn get(&self) -> Option<String> {
        let length = (self.length.load(Relaxed) as usize).min(WORDS * 8);
        let bytes: Vec<u8> = self.bytes.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).take(length).collect();
        (length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What was counted of attempts of one operation, outcome and reason.
#[derive(Clone, Debug)]
pub struct KindOfAttempts {
    pub operation: Operation,
    pub outcome: Outcome,
    pub reason: Option<BlockReason>,
    pub count: u64,
    pub time: Micros,
    pub last_at: Timestamp,
}

/// How long the calls of one operation took.
#[derive(Clone, Debug)]
pub struct Latency {
    pub operation: Operation,
    pub time: Micros,
    /// How many calls each bucket holds by itself, not added up.
    pub buckets: [u64; BUCKETS],
}

/// A provider's numbers, of one moment.
#[derive(Clone, Debug)]
pub struct ProviderNumbers {
    /// The foreign server's OID.
    pub server: u32,
    pub reset_at: Timestamp,
    pub kinds: Vec<KindOfAttempts>,
    pub latency: Vec<Latency>,
    pub last_success_at: Option<Timestamp>,
    pub last_failure_at: Option<Timestamp>,
    pub failing_since: Option<Timestamp>,
    pub consecutive_failures: u64,
    pub last_failure: Option<Outcome>,
    pub last_code: Option<String>,
    pub last_words: Option<String>,
    pub certificate_ends_at: Option<Timestamp>,
    /// How many verifications a code was sent for, and how many of the codes were typed in.
    pub verifications: u64,
    pub converted: u64,
    pub state: ProviderState,
}

/// The present state of a provider or route, as its worker reports it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProviderState {
    pub in_flight: usize,
    pub queue: QueueReport,
    /// The part of provider_limit that is used, in the tightest of its windows; None: nobody has counted.
    pub limit_used: Option<f64>,
}

/// The numbers of a database as a whole.
#[derive(Clone, Debug)]
pub struct DatabaseNumbers {
    pub reset_at: Timestamp,
    pub other_attempts: u64,
    pub other_time: Micros,
    pub starts: u64,
    pub recovered: u64,
}

fn key(operation: Operation, outcome: Outcome, reason: Option<BlockReason>) -> u32 {
    let place = |found: Option<usize>| found.map_or(0, |place| place as u32 + 1);
    let operation = place(Operation::ALL.iter().position(|one| *one == operation));
    let outcome = place(Outcome::ALL.iter().position(|one| *one == outcome));
    let reason = place(reason.and_then(|reason| BlockReason::ALL.iter().position(|one| *one == reason)));
    operation | outcome << 8 | reason << 16
}

fn at<T: Copy>(all: &[T], place: u32) -> Option<T> {
    all.get((place as usize & 0xff).checked_sub(1)?).copied()
}

fn time(of: &AtomicI64) -> Option<Timestamp> {
    Some(of.load(Relaxed)).filter(|at| *at != 0).map(Timestamp)
}

impl Kind {
    fn read(&self) -> Option<KindOfAttempts> {
        let key = self.key.load(Relaxed);
        Some(KindOfAttempts {
            operation: at(&Operation::ALL, key)?,
            outcome: at(&Outcome::ALL, key >> 8)?,
            reason: at(&BlockReason::ALL, key >> 16),
            count: self.count.load(Relaxed),
            time: self.time.load(Relaxed).cast_signed(),
            last_at: Timestamp(self.last_at.load(Relaxed)),
        })
    }
}

impl ProviderSlot {
    fn state(&self) -> ProviderState {
        let count = |of: &AtomicU64| of.load(Relaxed) as usize;
        let used = self.limit_used.load(Relaxed).checked_sub(1);
        ProviderState {
            in_flight: count(&self.in_flight),
            queue: QueueReport {
                ready: count(&self.ready),
                parked: count(&self.parked),
                oldest_ready_at: time(&self.oldest_ready_at),
            },
            limit_used: used.map(|millionths| millionths as f64 / 1e6),
        }
    }

    /// Returns the numbers in the slot; None if it is not this database's.
    fn read(&self, database: u32) -> Option<ProviderNumbers> {
        let look = || {
            if self.database.load(Relaxed) != database {
                return None;
            }
            let latency = |(place, operation): (usize, &Operation)| Latency {
                operation: *operation,
                time: self.latency_time[place].load(Relaxed).cast_signed(),
                buckets: std::array::from_fn(|bucket| self.latency[place][bucket].load(Relaxed)),
            };
            Some(ProviderNumbers {
                server: self.server.load(Relaxed),
                reset_at: Timestamp(self.reset_at.load(Relaxed)),
                kinds: self.kinds.iter().map_while(Kind::read).collect(),
                latency: Operation::ALL.iter().enumerate().map(latency).collect(),
                last_success_at: time(&self.last_success_at),
                last_failure_at: time(&self.last_failure_at),
                failing_since: time(&self.failing_since),
                consecutive_failures: self.consecutive_failures.load(Relaxed),
                last_failure: at(&Outcome::ALL, self.last_failure.load(Relaxed)),
                last_code: self.code.get(),
                last_words: self.words.get(),
                certificate_ends_at: time(&self.certificate_ends_at),
                verifications: self.verifications.load(Relaxed),
                converted: self.converted.load(Relaxed),
                state: self.state(),
            })
        };
        self.version.read(look)
    }
}

/// Returns the numbers of every provider of a database.
pub fn providers(database: u32) -> Vec<ProviderNumbers> {
    let slots = statistics().map_or(&[][..], |statistics| &statistics.providers);
    slots.iter().filter_map(|slot| slot.read(database)).collect()
}

/// Returns the databases that have had a worker since the server started.
pub fn databases() -> Vec<u32> {
    let slots = statistics().map_or(&[][..], |statistics| &statistics.databases);
    slots.iter().map(|slot| slot.database.load(Relaxed)).filter(|oid| *oid != 0 && *oid != TAKEN).collect()
}

/// Returns the numbers of a database as a whole; None if it has had no worker since the server started.
pub fn database(database: u32) -> Option<DatabaseNumbers> {
    let slot = statistics()?.databases.iter().find(|slot| slot.database.load(Relaxed) == database)?;
    Some(slot.version.read(|| DatabaseNumbers {
        reset_at: Timestamp(slot.reset_at.load(Relaxed)),
        other_attempts: slot.other_attempts.load(Relaxed),
        other_time: slot.other_time.load(Relaxed).cast_signed(),
        starts: slot.starts.load(Relaxed),
        recovered: slot.recovered.load(Relaxed),
    }))
}
