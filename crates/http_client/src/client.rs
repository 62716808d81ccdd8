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

use dialect::{Dialect, Operation, Outcome, Reading, Request, Secret};
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot},
    task,
};

use crate::{
    allowed_hosts::AllowedHosts, completion_queue::Shelf, connection_pools::Clients, endpoint::Route, exchange,
    oauth::Tokens, post, recent::Recent, wipe_stack::wipe_stack,
};

/// A call to make.
pub struct Parcel {
    /// The owner's name for it.
    pub ticket: u64,
    pub dialect: &'static Dialect,
    pub operation: Operation,
    pub request: Request,
    /// A cancel that goes first: see [`dialect::Prepared::first`].
    pub first: Option<Request>,
    pub route: Route,
    /// Removed from what is put on record of the answer.
    pub secrets: Vec<Secret>,
}

/// How a call ended.
pub struct Delivery {
    pub ticket: u64,
    pub http_status: Option<u16>,
    /// As [`Reading::redacted`] leaves it.
    pub reading: Reading,
    /// The answer as it may be put on record.
    pub record: Option<serde_json::Value>,
    /// The `first` request went through.
    pub voided: bool,
    /// It ended before it began, because the courier was closed: certainly nothing has left.
    pub unbegun: bool,
    /// It never left, by a fault of the caller's: a credential or an id that cannot stand in a header.
    pub is_callers_fault: bool,
}

/// Without the answer, redacted or not.
impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("ticket", &self.ticket)
            .field("http_status", &self.http_status)
            .field("reading", &self.reading)
            .field("voided", &self.voided)
            .finish_non_exhaustive()
    }
}

/// The thread that makes the calls, and the way to it.
pub struct Courier {
    parcels: mpsc::UnboundedSender<Parcel>,
    clients: Arc<Clients>,
    shelf: Arc<Shelf>,
    places: Arc<Places>,
    bell: UnixStream,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The places of each provider; None: closed.
struct Places(Mutex<Option<PlacesOf>>);

/// By the provider and its max_in_flight.
type PlacesOf = Recent<(u32, u32), Arc<Semaphore>>;

impl Places {
    fn of(&self, route: &Route) -> Option<Arc<Semaphore>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(route.max_in_flight as usize));
        // In use it has another owner.
        let is_idle = |place: &Arc<Semaphore>| Arc::strong_count(place) == 1;
        let of_route = |places: &mut PlacesOf| places.get((route.provider, route.max_in_flight), new, is_idle);
        places.as_mut().map(of_route)
    }

    fn close(&self) {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        places.iter().flat_map(Recent::values).for_each(|places| places.close());
    }
}

impl Courier {
    /// Starts the thread. It inherits the caller's signal mask, and so do the ones that it starts: block them first.
    /// `allowed` as for [`allow`](Self::allow); `settle_in` runs first on each thread.
    pub fn start(allowed: Result<AllowedHosts, String>, settle_in: fn()) -> io::Result<Self> {
        // The process-wide choice; a second start finds the first one's, which is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (bell, ours) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        let shelf = Arc::new(Shelf { deliveries: Mutex::default(), rung: AtomicBool::new(false), bell: ours });
        let clients = Arc::new(Clients::new(allowed));
        let places = Arc::new(Places(Mutex::new(Some(Recent::default()))));
        let (parcels, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = settled_runtime(settle_in)?;
        let thread = thread::Builder::new().name("courier".into()).spawn({
            let (clients, shelf, places) = (Arc::clone(&clients), Arc::clone(&shelf), Arc::clone(&places));
            move || {
                settle_in();
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(inbox, clients, shelf, places) => {}
                        _ = stopped => {}
                    }
                });
                // Waits for nothing: a resolver that hangs must not hold up the server's stop.
                runtime.shutdown_background();
            }
        })?;
        Ok(Self { parcels, clients, shelf, places, bell, stop: Some(stop), thread: Some(thread) })
    }

    /// Readable when there is something to [`fetch`](Self::fetch).
    pub fn bell(&self) -> &UnixStream {
        &self.bell
    }

    /// Where calls may go that begin from now on; nowhere, if the list cannot be read: the error says why.
    pub fn allow(&self, allowed: Result<AllowedHosts, String>) {
        self.clients.allow(allowed);
    }

    pub fn dispatch(&self, parcel: Parcel) {
        // Fails only if the thread has died, which drops `serve` and everything in it: the owner's attempts stay in
        // flight and become unknown, which is what they are.
        let _ = self.parcels.send(parcel);
    }

    /// Everything that has come back since the last time.
    pub fn fetch(&self) -> Vec<Delivery> {
        // Always: between the raising of the flag and the byte that follows it the owner may have come and gone, and a byte
        // that is never read would wake it for ever.
        let _ = (&self.bell).read(&mut [0; 16]);
        // Lowered after the bell is quiet, so that nothing rings unheard; and before the shelf is emptied, so that whatever
        // is put on it from now on rings again.
        self.shelf.rung.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.shelf.deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// No call begins from now on: one that waits for a place, or comes later, is delivered as it is. Those that have begun
    /// go on.
    pub fn close(&self) {
        self.places.close();
    }

    /// Whether the thread still serves.
    pub fn is_alive(&self) -> bool {
        !self.parcels.is_closed()
    }
}

impl Drop for Courier {
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
    mut inbox: mpsc::UnboundedReceiver<Parcel>,
    clients: Arc<Clients>,
    shelf: Arc<Shelf>,
    places: Arc<Places>,
) {
    let tokens = Arc::new(Tokens::default());
    while let Some(parcel) = inbox.recv().await {
        let Some(place) = places.of(&parcel.route) else {
            shelf.put(exchange::unbegun(parcel.ticket));
            continue;
        };
        let (clients, tokens, shelf) = (Arc::clone(&clients), Arc::clone(&tokens), Arc::clone(&shelf));
        task::spawn(async move {
            let ticket = parcel.ticket;
            // A task of its own, so that a panic in reading an answer is an outcome and not a caller left waiting.
            let call = task::spawn(async move { exchange::carry(parcel, &clients, &tokens, &place).await });
            shelf.put(call.await.unwrap_or_else(|_| Delivery {
                ticket,
                http_status: None,
                reading: post::reading(Outcome::Unknown, "the call ended by a fault in the gateway"),
                record: None,
                voided: false,
                unbegun: false,
                is_callers_fault: false,
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
        let courier = Courier::start(AllowedHosts::parse(""), settle_in).unwrap();
        let thread = courier.thread.as_ref().unwrap().thread().id();
        drop(courier);
        assert!(SETTLED.lock().unwrap().contains(&thread));
    }

    #[test]
    fn a_delivery_does_not_show_what_was_answered() {
        let answer = || Some(serde_json::Value::from("canary"));
        let delivery = Delivery {
            ticket: 7,
            http_status: Some(200),
            reading: Reading {
                reference: Some("canary".into()),
                response: answer(),
                ..post::reading(Outcome::Sent, "canary")
            },
            record: answer(),
            voided: false,
            unbegun: false,
            is_callers_fault: false,
        };
        let shown = format!("{delivery:?}");
        assert!(shown.contains("Sent") && !shown.contains("canary"), "{shown}");
    }
}
