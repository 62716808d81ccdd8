//! The thread that makes the calls, and the owner's handle to it.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use dialect::{CallResult, Dialect, HttpRequest, Operation, Outcome, Secret};
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot},
    task,
};

use crate::{
    allowed_hosts::AllowedHosts,
    completion_queue::CompletionQueue,
    connection_check::{self, ConnectionCheck},
    connection_pools::ConnectionPools,
    endpoint::Endpoint,
    exchange,
    oauth::TokenCache,
    post,
    recent::Recent,
    wipe_stack::wipe_stack,
};

/// A call to make.
pub struct OutboundCall {
    /// The number by which the owner knows the call.
    pub call_id: u64,
    pub dialect: Dialect,
    pub operation: Operation,
    pub request: HttpRequest,
    /// A cancel that goes before the request: see [`dialect::Prepared::cancel_first`].
    pub first: Option<HttpRequest>,
    pub endpoint: Endpoint,
    /// Values that are redacted from the answer before it is put on record.
    pub secrets: Vec<Secret>,
}

/// How a call ended.
pub struct CompletedCall {
    pub call_id: u64,
    pub http_status: Option<u16>,
    /// The result as [`CallResult::redacted`] leaves it.
    pub result: CallResult,
    /// The answer as it may be put on record.
    pub record: Option<serde_json::Value>,
    /// Whether the `first` request, the cancel, went through.
    pub voided: bool,
    /// Whether the HTTP client was closed before the call began: certainly nothing has left.
    pub not_begun: bool,
    /// Whether the end says nothing of the vendor's health: a credential or an id cannot stand in a header, or the
    /// worker itself made the end.
    pub is_ours: bool,
    /// Until when the certificate of the host that answered is valid, in seconds since 1970. None: it cannot be seen,
    /// or there is none.
    pub certificate_ends: Option<i64>,
}

/// Leaves out the answer, redacted or not.
impl std::fmt::Debug for CompletedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompletedCall")
            .field("call_id", &self.call_id)
            .field("http_status", &self.http_status)
            .field("result", &self.result)
            .field("voided", &self.voided)
            .finish_non_exhaustive()
    }
}

/// The owner's handle to the thread that makes the calls.
pub struct HttpClient {
    calls: mpsc::UnboundedSender<OutboundCall>,
    pools: Arc<ConnectionPools>,
    completed: Arc<CompletionQueue>,
    permits: Arc<Permits>,
    runtime: runtime::Handle,
    wakeup: UnixStream,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The places among `max_in_flight`, for each provider. None: the HTTP client is closed.
struct Permits(Mutex<Option<PermitsOf>>);

/// Keyed by the provider and its max_in_flight.
type PermitsOf = Recent<(u32, u32), Arc<Semaphore>>;

impl Permits {
    fn of(&self, endpoint: &Endpoint) -> Option<Arc<Semaphore>> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(endpoint.max_in_flight as usize));
        // A semaphore in use has another owner besides the map.
        let is_idle = |place: &Arc<Semaphore>| Arc::strong_count(place) == 1;
        let of_endpoint =
            |permits: &mut PermitsOf| permits.get((endpoint.provider, endpoint.max_in_flight), new, is_idle);
        permits.as_mut().map(of_endpoint)
    }

    fn close(&self) {
        let permits = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        permits.iter().flat_map(Recent::values).for_each(|permits| permits.close());
    }
}

impl HttpClient {
    /// Starts the thread. The thread inherits the caller's signal mask, and so do the threads that it starts: block the
    /// signals first. `allowed` is as for [`set_allowed_hosts`](Self::set_allowed_hosts); `settle_in` runs first on
    /// each thread.
    pub fn start(allowed: Result<AllowedHosts, String>, settle_in: fn()) -> io::Result<Self> {
        // The choice is the whole process's; a second start fails and finds the first one's choice, which is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (wakeup, ours) = UnixStream::pair()?;
        wakeup.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        let completed = Arc::new(CompletionQueue {
            completed: Mutex::default(),
            checked: Mutex::default(),
            notified: AtomicBool::new(false),
            wakeup: ours,
        });
        let pools = Arc::new(ConnectionPools::new(allowed));
        let permits = Arc::new(Permits(Mutex::new(Some(Recent::default()))));
        let (calls, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = settled_runtime(settle_in)?;
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new().name("http client".into()).spawn({
            let (pools, completed, permits) = (Arc::clone(&pools), Arc::clone(&completed), Arc::clone(&permits));
            move || {
                settle_in();
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(inbox, pools, completed, permits) => {}
                        _ = stopped => {}
                    }
                });
                // Waits for no other thread: a resolver that hangs must not hold up the server's stop.
                runtime.shutdown_background();
            }
        })?;
        Ok(Self { calls, pools, completed, permits, runtime: handle, wakeup, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the socket that is readable when there is something to [`take_completed`](Self::take_completed).
    pub fn wakeup(&self) -> &UnixStream {
        &self.wakeup
    }

    /// Sets where calls that begin from now on may go. An error says why the list cannot be read: then nothing is
    /// allowed.
    pub fn set_allowed_hosts(&self, allowed: Result<AllowedHosts, String>) {
        self.pools.set_allowed_hosts(allowed);
    }

    pub fn start_call(&self, outbound: OutboundCall) {
        // Sending fails only if the thread has died, and `serve` with everything in it was dropped: the owner's
        // attempts stay in flight and become `unknown`, as they truly are.
        let _ = self.calls.send(outbound);
    }

    /// Checks how far a connection to the URL of an option comes, beside all calls: the check takes no place among
    /// `max_in_flight`, and sends no request.
    pub fn start_check(&self, check_id: u64, option: String, endpoint: Endpoint) {
        let (pools, completed) = (Arc::clone(&self.pools), Arc::clone(&self.completed));
        // If the thread has died, the check never ends; nobody is told here, since its owner ends with the thread.
        self.runtime.spawn(async move {
            let check = task::spawn(async move { connection_check::check(&option, &endpoint, &pools).await });
            completed.put_check(check_id, check.await.unwrap_or_else(|_| ConnectionCheck::fault()));
        });
    }

    /// Returns the checks that have ended; to be called after [`take_completed`](Self::take_completed), which empties
    /// the socket for both.
    pub fn take_checked(&self) -> Vec<(u64, ConnectionCheck)> {
        std::mem::take(&mut *self.completed.checked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the calls that have ended since the last time.
    pub fn take_completed(&self) -> Vec<CompletedCall> {
        // A byte is looked for only if there is one, or one is on its way: each round of the owner asks this, mostly
        // for nothing. The flag stays up until its byte has come: no byte is left unread, which would wake the owner
        // for ever. It is lowered before the queue is emptied, so that whatever is put on the queue from now on writes
        // another byte.
        let notified = &self.completed.notified;
        if notified.load(Ordering::SeqCst) && matches!((&self.wakeup).read(&mut [0]), Ok(1..)) {
            notified.store(false, Ordering::SeqCst);
        }
        std::mem::take(&mut *self.completed.completed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets no call begin from now on: a call that waits for a place, or comes later, ends with `not_begun`. Calls that
    /// have begun go on.
    pub fn close(&self) {
        self.permits.close();
    }

    /// Returns whether the thread still serves calls.
    pub fn is_alive(&self) -> bool {
        !self.calls.is_closed()
    }
}

impl Drop for HttpClient {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn settled_runtime(settle_in: fn()) -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().on_thread_start(settle_in).on_thread_park(wipe_stack).build()
}

async fn serve(
    mut inbox: mpsc::UnboundedReceiver<OutboundCall>,
    pools: Arc<ConnectionPools>,
    completed: Arc<CompletionQueue>,
    permits: Arc<Permits>,
) {
    let tokens = Arc::new(TokenCache::default());
    while let Some(outbound) = inbox.recv().await {
        let Some(place) = permits.of(&outbound.endpoint) else {
            completed.put(exchange::not_begun(outbound.call_id));
            continue;
        };
        let (pools, tokens, completed) = (Arc::clone(&pools), Arc::clone(&tokens), Arc::clone(&completed));
        task::spawn(async move {
            let call_id = outbound.call_id;
            // The call runs in a task of its own, so that a panic becomes an outcome and no caller is left waiting.
            let call = task::spawn(async move { exchange::run_call(outbound, &pools, &tokens, &place).await });
            completed.put(call.await.unwrap_or_else(|_| CompletedCall {
                call_id,
                http_status: None,
                result: post::own_result(Outcome::Unknown, "the call ended by a fault in the gateway"),
                record: None,
                voided: false,
                not_begun: false,
                is_ours: false,
                certificate_ends: None,
            }));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::Interest, time::timeout};

    use super::*;

    #[test]
    fn every_thread_settles_in_first() {
        static SETTLED: Mutex<Vec<thread::ThreadId>> = Mutex::new(Vec::new());
        let settle_in = || SETTLED.lock().unwrap().push(thread::current().id());
        let runtime = settled_runtime(settle_in).unwrap();
        // As the system's resolver does: on a blocking thread.
        let resolver = runtime.block_on(async { task::spawn_blocking(|| thread::current().id()).await }).unwrap();
        assert!(SETTLED.lock().unwrap().contains(&resolver));
        let http = HttpClient::start(AllowedHosts::parse(""), settle_in).unwrap();
        let thread = http.thread.as_ref().unwrap().thread().id();
        drop(http);
        assert!(SETTLED.lock().unwrap().contains(&thread));
    }

    /// The owner sleeps on the socket alone: an end that writes no byte would be told with the next one, if at all.
    #[test]
    fn each_end_wakes_the_owner_and_no_byte_is_left() {
        const ENDS: u64 = 100_000;
        let http = HttpClient::start(AllowedHosts::parse(""), || {}).unwrap();
        let completed = Arc::clone(&http.completed);
        let ends = thread::spawn(move || {
            for id in 0..ENDS {
                completed.put(exchange::not_begun(id));
                // Mostly the next end comes when the owner is about to sleep, and not on top of this one.
                while id % 16 > 0 && !completed.completed.lock().unwrap().is_empty() {
                    std::hint::spin_loop();
                }
            }
        });
        let mut taken = Vec::new();
        runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let socket = tokio::net::UnixStream::from_std(http.wakeup.try_clone().unwrap()).unwrap();
            while taken.len() < ENDS as usize {
                timeout(Duration::from_secs(20), socket.readable()).await.expect("an end woke nobody").unwrap();
                let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                // The owner has other reasons to look, too: then it may come before the byte does.
                for _ in 0..3 {
                    taken.extend(http.take_completed().iter().map(|end| end.call_id));
                }
            }
        });
        ends.join().unwrap();
        // The byte of the last end may have come after the end itself was taken.
        assert!(http.take_completed().is_empty());
        assert!(taken.into_iter().eq(0..ENDS));
        assert!(!http.completed.notified.load(Ordering::SeqCst));
        assert_eq!((&http.wakeup).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_delivery_does_not_show_what_was_answered() {
        let answer = || Some(serde_json::Value::from("canary"));
        let completed = CompletedCall {
            call_id: 7,
            http_status: Some(200),
            result: CallResult {
                reference: Some("canary".into()),
                response: answer(),
                ..post::own_result(Outcome::Sent, "canary")
            },
            record: answer(),
            voided: false,
            not_begun: false,
            is_ours: false,
            certificate_ends: None,
        };
        let shown = format!("{completed:?}");
        assert!(shown.contains("Sent") && !shown.contains("canary"), "{shown}");
    }
}
