//! The thread that makes the calls, and the way to it.

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
    /// The number by which the owner knows it.
    pub call_id: u64,
    pub dialect: Dialect,
    pub operation: Operation,
    pub request: HttpRequest,
    /// A cancel that goes first: see [`dialect::Prepared::cancel_first`].
    pub first: Option<HttpRequest>,
    pub endpoint: Endpoint,
    /// Removed from what is put on record of the answer.
    pub secrets: Vec<Secret>,
}

/// How a call ended.
pub struct CompletedCall {
    pub call_id: u64,
    pub http_status: Option<u16>,
    /// As [`CallResult::redacted`] leaves it.
    pub result: CallResult,
    /// The answer as it may be put on record.
    pub record: Option<serde_json::Value>,
    /// The `first` request went through.
    pub voided: bool,
    /// It ended before it began, because the HTTP client was closed: certainly nothing has left.
    pub not_begun: bool,
    /// It says nothing of the vendor: a credential or an id that cannot stand in a header, or an end that we made.
    pub is_ours: bool,
    /// Until when the certificate of the host that answered is valid, in seconds since 1970. None: it cannot be seen,
    /// or there is none.
    pub certificate_ends: Option<i64>,
}

/// Without the answer, redacted or not.
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

/// The thread that makes the calls, and the way to it.
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

/// The places of each provider; None: closed.
struct Permits(Mutex<Option<PermitsOf>>);

/// By the provider and its max_in_flight.
type PermitsOf = Recent<(u32, u32), Arc<Semaphore>>;

impl Permits {
    fn of(&self, endpoint: &Endpoint) -> Option<Arc<Semaphore>> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(endpoint.max_in_flight as usize));
        // In use it has another owner.
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
    /// Starts the thread. It inherits the caller's signal mask, and so do the ones that it starts: block them first.
    /// `allowed` as for [`set_allowed_hosts`](Self::set_allowed_hosts); `settle_in` runs first on each thread.
    pub fn start(allowed: Result<AllowedHosts, String>, settle_in: fn()) -> io::Result<Self> {
        // The process-wide choice; a second start finds the first one's, which is the same.
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
                // Waits for nothing: a resolver that hangs must not hold up the server's stop.
                runtime.shutdown_background();
            }
        })?;
        Ok(Self { calls, pools, completed, permits, runtime: handle, wakeup, stop: Some(stop), thread: Some(thread) })
    }

    /// Readable when there is something to [`take_completed`](Self::take_completed).
    pub fn wakeup(&self) -> &UnixStream {
        &self.wakeup
    }

    /// Where calls may go that begin from now on; nowhere, if the list cannot be read: the error says why.
    pub fn set_allowed_hosts(&self, allowed: Result<AllowedHosts, String>) {
        self.pools.set_allowed_hosts(allowed);
    }

    pub fn start_call(&self, outbound: OutboundCall) {
        // Fails only if the thread has died, which drops `serve` and everything in it: the owner's attempts stay in
        // flight and become unknown, which is what they are.
        let _ = self.calls.send(outbound);
    }

    /// Looks how far a connection to the URL of an option comes, beside all calls: it takes no place among
    /// `max_in_flight`, and sends no request.
    pub fn start_check(&self, check_id: u64, option: String, endpoint: Endpoint) {
        let (pools, completed) = (Arc::clone(&self.pools), Arc::clone(&self.completed));
        // Of a thread that has died nobody is told here: its owner ends with it.
        self.runtime.spawn(async move {
            let check = task::spawn(async move { connection_check::check(&option, &endpoint, &pools).await });
            completed.put_check(check_id, check.await.unwrap_or_else(|_| ConnectionCheck::fault()));
        });
    }

    /// The checks that have ended; after [`take_completed`](Self::take_completed), whose wake-up they share.
    pub fn take_checked(&self) -> Vec<(u64, ConnectionCheck)> {
        std::mem::take(&mut *self.completed.checked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that has come back since the last time.
    pub fn take_completed(&self) -> Vec<CompletedCall> {
        // Always: between the raising of the flag and the byte that follows it the owner may have come and gone, and a
        // byte that is never read would wake it for ever.
        let _ = (&self.wakeup).read(&mut [0; 16]);
        // Lowered after the socket is empty, so that the queue is looked at after each byte; and before it is
        // emptied, so that whatever is put on it from now on writes another byte.
        self.completed.notified.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.completed.completed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// No call begins from now on: one that waits for a place, or comes later, is delivered as it is. Those that have
    /// begun go on.
    pub fn close(&self) {
        self.permits.close();
    }

    /// Whether the thread still serves.
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
            // A task of its own, so that a panic in reading an answer is an outcome and not a caller left waiting.
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
    use super::*;

    #[test]
    fn every_thread_settles_in_first() {
        static SETTLED: Mutex<Vec<thread::ThreadId>> = Mutex::new(Vec::new());
        let settle_in = || SETTLED.lock().unwrap().push(thread::current().id());
        let runtime = settled_runtime(settle_in).unwrap();
        // As the system's resolver does.
        let resolver = runtime.block_on(async { task::spawn_blocking(|| thread::current().id()).await }).unwrap();
        assert!(SETTLED.lock().unwrap().contains(&resolver));
        let http = HttpClient::start(AllowedHosts::parse(""), settle_in).unwrap();
        let thread = http.thread.as_ref().unwrap().thread().id();
        drop(http);
        assert!(SETTLED.lock().unwrap().contains(&thread));
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
