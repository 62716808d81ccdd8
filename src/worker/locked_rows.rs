//! What needs a row that somebody else has locked: it waits alone, and is looked at again without waiting for the lock.
//! Whoever locked the record and calls in the same transaction waits for themselves, and hears of it.

use std::collections::HashSet;

use http_client::Delivery;
use policy::Micros;
use uuid::Uuid;

use crate::{
    error::Misuse,
    ipc::{
        message::{Letter, Reply},
        worker::Ticket,
    },
    job::{Order, Target},
    pg::clock::since_boot,
    provider::option_value::micros,
    store::transaction::{Durability, Failure},
    worker::state::{AGAIN_AFTER, Desk},
};

/// For so long after its own timeout a call waits for a lock, before its caller hears of it.
pub const PATIENCE: Micros = 3_000_000;
/// The timeout of a call that has none.
pub const TIMEOUT: Micros = 10_000_000;

/// Since when a call that has not been put on record is older than its own timeout.
pub fn overdue_since(order: &Order) -> Micros {
    let timeout = order.outgoing.as_ref().map_or(TIMEOUT, |outgoing| micros(outgoing.route.timeout));
    order.taken_at.saturating_add(timeout)
}

impl Desk {
    /// Whether an order is still to be put on record: not what is older than its own timeout, and whose caller has left.
    /// On its way from one provider of its route to the next, it is on record.
    pub fn is_wanted(&self, ticket: Ticket, order: &Order) -> bool {
        matches!(order.target, Target::Onward(_)) || overdue_since(order) > since_boot() || self.mailbox.waits(ticket)
    }

    /// A lock has held up an order: whether its caller is to wait on.
    pub fn may_wait_on(&mut self, ticket: Ticket, order: &Order) -> bool {
        let waits =
            matches!(order.target, Target::Onward(_)) || overdue_since(order).saturating_add(PATIENCE) > since_boot();
        if !waits {
            self.reply(
                ticket,
                &Reply::Refused(Misuse::locked(
                    "the record is locked by another transaction, or by your own; nothing was sent",
                    "pg_locks tells by whom. Who locks rows or tables of otp_gateway calls its functions after the COMMIT.",
                )),
            );
        }
        waits
    }

    /// Puts those of these orders aside that need what somebody has locked, and returns the others; `needed` is the
    /// verification on record that each is about. `Err`: it is not a matter of single rows.
    pub fn put_aside_orders(&mut self, orders: Orders, needed: &[Option<Uuid>]) -> Result<Orders, Orders> {
        let ids: Vec<Uuid> = needed.iter().copied().flatten().collect();
        let Some(locked) = self.locked(&ids, &[]).ok().filter(|locked| !locked.is_empty()) else { return Err(orders) };
        let mut others = Vec::new();
        for ((ticket, order), id) in orders.into_iter().zip(needed) {
            match id.filter(|id| locked.contains(id)) {
                Some(id) => {
                    self.busy.entry(id).or_default();
                    self.locked.orders.push((id, ticket, order));
                }
                None => others.push((ticket, order)),
            }
        }
        self.locked.again_at = Some(since_boot() + AGAIN_AFTER);
        Ok(others)
    }

    /// The same of deliveries.
    pub fn put_aside_deliveries(&mut self, deliveries: Vec<Delivery>) -> Result<Vec<Delivery>, Vec<Delivery>> {
        let rows = |delivery: &Delivery| {
            let call = self.in_flight.get(&delivery.ticket);
            call.map_or((Uuid::nil(), Uuid::nil()), |call| (call.verification, call.attempt))
        };
        let (verifications, attempts): (Vec<Uuid>, Vec<Uuid>) = deliveries.iter().map(rows).unzip();
        let Ok(locked) = self.locked(&verifications, &attempts) else { return Err(deliveries) };
        let (mut aside, others): (Vec<Delivery>, Vec<Delivery>) = deliveries.into_iter().partition(|delivery| {
            let (verification, attempt) = rows(delivery);
            locked.contains(&verification) || locked.contains(&attempt)
        });
        if aside.is_empty() {
            return Err(others);
        }
        self.locked.deliveries.append(&mut aside);
        self.locked.again_at = Some(since_boot() + AGAIN_AFTER);
        Ok(others)
    }

    pub fn locked(&self, verifications: &[Uuid], attempts: &[Uuid]) -> Result<HashSet<Uuid>, Failure> {
        self.ledger.write(Durability::Lazy, |writer| writer.locked(verifications, attempts))
    }

    /// Those that are no longer locked have their turn. False: it is not yet time to look.
    pub fn retry_locked(&mut self) -> bool {
        if self.locked.again_at.is_none_or(|at| at > since_boot()) {
            return false;
        }
        self.locked.again_at = None;
        let orders = std::mem::take(&mut self.locked.orders);
        let needed: Vec<Option<Uuid>> = orders.iter().map(|(id, ..)| Some(*id)).collect();
        let mut ids: HashSet<Uuid> = needed.iter().copied().flatten().collect();
        let orders = orders.into_iter().map(|(_, ticket, order)| (ticket, order)).collect();
        let free = self.put_aside_orders(orders, &needed).unwrap_or_else(|all| all);
        let (waiting, overdue): (Vec<_>, Vec<_>) = std::mem::take(&mut self.locked.orders)
            .into_iter()
            .partition(|(_, ticket, order)| self.may_wait_on(*ticket, order));
        self.locked.orders = waiting;
        self.pending.extend(free.into_iter().map(|(ticket, order)| (ticket, Letter::Call(order))));
        drop(overdue);
        // What waits behind those has its turn after them.
        self.locked.orders.iter().for_each(|(id, ..)| {
            ids.remove(id);
        });
        ids.into_iter().for_each(|id| self.release(id));
        let deliveries = std::mem::take(&mut self.locked.deliveries);
        if !deliveries.is_empty() {
            let free = self.put_aside_deliveries(deliveries).unwrap_or_else(|all| all);
            self.unrecorded.extend(free);
        }
        true
    }

    /// For the last try.
    pub fn take_aside(&mut self) -> Vec<Delivery> {
        let orders = std::mem::take(&mut self.locked.orders);
        self.pending.extend(orders.into_iter().map(|(_, ticket, order)| (ticket, Letter::Call(order))));
        std::mem::take(&mut self.locked.deliveries)
    }
}

pub type Orders = Vec<(Ticket, Box<Order>)>;
