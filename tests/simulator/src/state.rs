//! The simulated world, and the way of a request through it: whose it is, count, fault, dialect, inbox, log.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::{Clock, real_ms};
use crate::code::Dice;
use crate::dialect::{Call, Operation};
use crate::fault::{Faults, Kind};
use crate::http::{Ending, Line, Pause, Request, Response, Service, Turn};
use crate::inbox::Inbox;
use crate::log::{Entry, Log};
use crate::vendor::{Vendor, Vendors, prefixes};

#[derive(Default)]
pub struct World {
    pub clock: Clock,
    pub faults: Faults,
    pub inbox: Inbox,
    pub log: Log,
    pub vendors: Vendors,
}

/// Everything runs on one thread; nothing borrows the world across an await.
pub struct Simulator {
    pub world: RefCell<World>,
    pub gate: Rc<Gate>,
    pub logging: Cell<bool>,
    dice: RefCell<Dice>,
    latency: Duration,
    /// Rung after every request, for those who wait for one.
    changed: Notify,
}

impl Simulator {
    pub fn new(latency: Duration) -> Self {
        Simulator {
            world: RefCell::default(),
            gate: Rc::default(),
            logging: Cell::new(true),
            dice: RefCell::new(Dice::new()),
            latency,
            changed: Notify::new(),
        }
    }

    pub fn reset(&self) {
        *self.world.borrow_mut() = World::default();
        self.gate.open();
    }

    /// What `probe` finds, as soon as it finds something, for as long as `wait`.
    pub async fn wait_for<T>(&self, wait: Duration, probe: impl Fn(&Simulator) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            if let Some(found) = probe(self) {
                return Some(found);
            }
            timeout_at(deadline, changed).await.ok()?;
        }
    }

    fn handle(&self, request: &Request<'_>, line: Line) -> Turn {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let now_ms = world.clock.now_ms();
        let (vendor, path) = Vendor::of_path(request.path);

        let Some(dialect) = world.vendors.dialect(vendor) else {
            let mut entry = Entry::new(vendor, Operation::Unknown, request, line, real_ms());
            world.log.count(vendor, Operation::Unknown, None, None);
            let response = match vendor {
                Vendor::Redirected => Response::json(200, "{}"),
                _ => {
                    entry.complaint = Some("the path begins with no vendor's prefix".into());
                    Response::text(404, format!("No vendor lives here. Prefixes: {}\n", prefixes()))
                }
            };
            entry.status = Some(response.status);
            if self.logging.get() {
                world.log.keep(entry);
            }
            self.changed.notify_waiters();
            return response.into();
        };

        let operation = dialect.operation_of(request.method, path);
        let call = Call::new(operation, path, request);
        let about = dialect.about(&call);
        let recipient = about.recipient.as_deref().map(|recipient| vendor.recipient_key(recipient));
        let key = about.key.map(|key| key.into_owned());
        let mut entry = self.logging.get().then(|| Entry::new(vendor, operation, request, line, real_ms()));
        if let Some(entry) = &mut entry {
            entry.recipient = about.recipient.map(|recipient| recipient.into_owned());
            entry.reference = about.reference.map(|reference| reference.into_owned());
        }

        let fault = match world.faults.is_empty() {
            true => None,
            false => world.faults.take(vendor, operation, recipient.as_deref()),
        };
        world.log.count(vendor, operation, recipient, key.as_deref());

        let mut normal = None;
        if fault.as_ref().is_none_or(|fault| fault.processes())
            && let Some(dialect) = world.vendors.dialect(vendor)
        {
            let reply = dialect.answer(&call, now_ms, &mut self.dice.borrow_mut());
            if let Some((recipient, code)) = reply.message {
                world.inbox.deliver(vendor, &recipient, code);
            }
            if let Some(entry) = &mut entry {
                entry.complaint = reply.complaint;
                entry.status = Some(reply.status);
            }
            normal = Some(Response::json(reply.status, reply.body));
        }
        if let Some(mut entry) = entry {
            entry.fault = fault.as_ref().map(|fault| fault.kind.name());
            world.log.keep(entry);
        }

        let normal = normal.unwrap_or_else(|| Response::json(200, "{}"));
        let delay = self.latency + fault.as_ref().map_or(Duration::ZERO, |fault| fault.delay());
        let pause: Option<Pause> = match &fault {
            Some(fault) if fault.kind == Kind::Hold => Some(Box::pin(self.gate.hold())),
            _ if delay > Duration::ZERO => Some(Box::pin(sleep(delay))),
            _ => None,
        };
        let ending = match fault {
            Some(fault) => fault.ending(normal),
            None => Ending::Answer(normal),
        };
        self.changed.notify_waiters();
        Turn { pause, ending }
    }
}

impl Service for Rc<Simulator> {
    fn refuse_to_read(&self, method: &str, target: &str) -> bool {
        let mut world = self.world.borrow_mut();
        if world.faults.is_empty() {
            return false;
        }
        let (vendor, path) = Vendor::of_path(target.split('?').next().unwrap_or(""));
        let operation =
            world.vendors.dialect(vendor).map_or(Operation::Unknown, |dialect| dialect.operation_of(method, path));
        world.faults.take_before_read(vendor, operation)
    }

    async fn turn(&self, request: &Request<'_>, line: Line) -> Turn {
        self.handle(request, line)
    }
}

/// Where requests are held until a test lets them all go.
#[derive(Default)]
pub struct Gate {
    held: Cell<u64>,
    openings: Cell<u64>,
    opened: Notify,
}

impl Gate {
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    /// Lets go all that are held now, and says how many.
    pub fn open(&self) -> u64 {
        self.openings.set(self.openings.get() + 1);
        self.opened.notify_waiters();
        self.held.get()
    }

    /// Counts as held from the call on, and until the future ends or is dropped (its caller went away).
    fn hold(self: &Rc<Self>) -> impl Future<Output = ()> + use<> {
        struct Held(Rc<Gate>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.held.set(self.0.held.get() - 1);
            }
        }
        self.held.set(self.held.get() + 1);
        let held = Held(self.clone());
        let openings = self.openings.get();
        async move {
            while held.0.openings.get() == openings {
                held.0.opened.notified().await;
            }
        }
    }
}
