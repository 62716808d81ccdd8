//! What the worker knows of this database's providers without asking the record: their breakers, and the sends that
//! their provider_limit has counted. Changes by a transaction that fails are taken back.

use std::collections::{HashMap, VecDeque};

use policy::{Breaker, BreakerPermit, BreakerState, Limits, Micros, Timestamp};
use uuid::Uuid;

use crate::{
    job::Job,
    store::{StoreTransaction, breakers::OpenBreaker, identity::Identity, transaction::Failure},
    worker::state::range_state::RangeState,
};

/// How many breakers, and how many providers' sends, are remembered. Beyond that closed breakers are forgotten, and
/// sends are read from the record anew.
pub const MOST_BREAKERS: usize = 1024;
pub const MOST_PROVIDERS: usize = 256;
/// A clock that goes back by more was set: what was counted by it is read from the record anew.
const SET_BACK: Micros = 60_000_000;

/// Whose breaker it is: the OIDs of the foreign server and the user mapping. If one of these is made anew, the breaker
/// starts closed; a role with credentials of its own opens its own breaker alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BreakerKey {
    pub server: u32,
    pub mapping: u32,
}

impl BreakerKey {
    pub fn of(job: &Job) -> Self {
        job.account
            .as_ref()
            .map_or_else(Self::default, |account| Self { server: account.server, mapping: account.mapping })
    }
}

#[derive(Default)]
pub struct Breakers(HashMap<BreakerKey, AccountBreaker>);

/// The breaker of an account, and what its calls depended on when it was last asked.
#[derive(Clone, Default)]
pub struct AccountBreaker {
    pub breaker: Breaker,
    pub configuration: Vec<u8>,
    /// Since when the breaker is open.
    pub opened_at: Option<Timestamp>,
}

impl AccountBreaker {
    /// Returns whether what the account's calls depend on has changed; false without a key, since nobody can tell.
    fn is_of_another(&self, job: &Job) -> bool {
        !job.configuration.is_empty() && self.configuration != job.configuration
    }
}

/// A provider that is tried anew, because what its calls depend on has changed.
pub struct Mended {
    pub account: BreakerKey,
    pub provider: String,
    pub provider_id: Identity,
}

impl Breakers {
    /// Returns whether the breaker of the job's account is open; a breaker whose provider has been changed since does
    /// not count.
    pub fn is_open(&self, job: &Job, now: Timestamp) -> bool {
        let known = self.0.get(&BreakerKey::of(job)).filter(|known| !known.is_of_another(job));
        known.is_some_and(|known| known.breaker.clone().acquire(now).is_err())
    }

    pub fn get_mut(&mut self, account: BreakerKey) -> Option<&mut AccountBreaker> {
        self.0.get_mut(&account)
    }

    /// Restores a breaker as an earlier worker has put it on record.
    pub fn restore(&mut self, account: BreakerKey, open: OpenBreaker) {
        if self.0.len() < MOST_BREAKERS {
            let breaker = Breaker::opened(open.open_until, open.open_until.since(open.failed_at));
            let known = AccountBreaker { breaker, configuration: open.configuration, opened_at: Some(open.opened_at) };
            self.0.insert(account, known);
        }
    }
}

/// The sends through one provider that count: all of those within the window, in the order of their times.
pub struct SendsOfProvider {
    limits: Limits,
    sends: VecDeque<(Timestamp, Uuid)>,
    /// When somebody last looked, by the clock.
    looked_at: Timestamp,
}

#[derive(Default)]
pub struct ProviderSends(HashMap<Identity, SendsOfProvider>);

impl ProviderSends {
    /// Reads a provider's sends from the record, if they are not known yet; only the worker adds to them. Returns
    /// whether it did.
    fn load(
        &mut self,
        writer: &mut StoreTransaction,
        provider: Identity,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<bool, Failure> {
        if let Some(known) = self.0.get_mut(&provider)
            && known.limits == *limits
            && known.looked_at <= now + SET_BACK
        {
            known.looked_at = known.looked_at.max(now);
            return Ok(false);
        }
        let since = now - limits.reach();
        let mut sends: VecDeque<(Timestamp, Uuid)> =
            writer.provider_sends(provider, since, limits.most() as i64)?.into();
        sends.make_contiguous().sort_unstable();
        if self.0.len() >= MOST_PROVIDERS {
            self.0.clear();
        }
        self.0.insert(provider, SendsOfProvider { limits: limits.clone(), sends, looked_at: now });
        Ok(true)
    }

    /// Returns how much of each provider's limit is used, 1 being all.
    pub fn used(&self, now: Timestamp) -> impl Iterator<Item = (Identity, f64)> {
        self.0.iter().map(move |(provider, known)| (*provider, known.used(now)))
    }

    pub fn refusal(&mut self, provider: Identity, now: Timestamp) -> Option<(Micros, (Timestamp, Uuid))> {
        self.0.get_mut(&provider)?.refusal(now)
    }

    pub fn add(&mut self, provider: Identity, at: Timestamp, attempt: Uuid) {
        if let Some(known) = self.0.get_mut(&provider) {
            let place = known.sends.partition_point(|send| *send < (at, attempt));
            known.sends.insert(place, (at, attempt));
        }
    }

    /// Removes a send that turned out not to count.
    pub fn remove(&mut self, provider: Identity, attempt: Uuid) {
        let Some(known) = self.0.get_mut(&provider) else { return };
        // The send is one of the newest.
        if let Some(place) = known.sends.iter().rposition(|(_, id)| *id == attempt) {
            known.sends.remove(place);
        }
    }
}

impl SendsOfProvider {
    fn used(&self, now: Timestamp) -> f64 {
        self.limits.used(|since| self.sends.len() - self.sends.partition_point(|(at, _)| *at <= since), now)
    }

    /// Returns how long the limit has to wait, and the send that decides; None if the limit allows a send.
    pub fn refusal(&mut self, now: Timestamp) -> Option<(Micros, (Timestamp, Uuid))> {
        let since = now - self.limits.reach();
        while self.sends.pop_front_if(|(at, _)| *at <= since).is_some() {}
        let newest = |nth: usize| self.sends.len().checked_sub(nth + 1).and_then(|index| self.sends.get(index));
        let refusal = self.limits.refusal_by(|nth| newest(nth).map(|(at, _)| *at), now)?;
        newest(refusal.limit.count() - 1).map(|send| (refusal.retry_after, *send))
    }
}

#[derive(Default)]
pub struct LimitState {
    pub breakers: Breakers,
    pub provider_sends: ProviderSends,
    pub ranges: RangeState,
    /// What the transaction under way has changed: the breakers that it asked, as they were before, and the sends that
    /// count.
    asked: Vec<(BreakerKey, Option<AccountBreaker>)>,
    mended: Vec<Mended>,
    added: Vec<(Identity, Uuid)>,
}

impl LimitState {
    pub fn acquire(&mut self, job: &Job, now: Timestamp) -> Result<BreakerPermit, Micros> {
        let account = BreakerKey::of(job);
        let breakers = &mut self.breakers.0;
        if breakers.len() >= MOST_BREAKERS && !breakers.contains_key(&account) {
            breakers.retain(|_, known| known.breaker.state(now) != BreakerState::Closed);
        }
        self.asked.push((account, breakers.get(&account).cloned()));
        let known = breakers.entry(account).or_default();
        if known.is_of_another(job) {
            if known.breaker.state(now) != BreakerState::Closed {
                let (provider, provider_id) = (job.provider.clone(), job.provider_id);
                self.mended.push(Mended { account, provider, provider_id });
            }
            known.breaker.reset();
            known.configuration.clone_from(&job.configuration);
        }
        known.breaker.acquire(now)
    }

    /// Reads a provider's sends from the record, if they are not known yet.
    pub fn load_sends(
        &mut self,
        writer: &mut StoreTransaction,
        provider: Identity,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), Failure> {
        if self.provider_sends.load(writer, provider, limits, now)? {
            // The record does not have those yet.
            for (_, attempt) in self.added.iter().filter(|(of, _)| *of == provider) {
                self.provider_sends.add(provider, now, *attempt);
            }
        }
        Ok(())
    }

    /// Returns how long the provider's limit has yet to wait; None if it allows a send. Before it has to wait, one look
    /// at the record tells whether the send that decides is still there: somebody may have changed the record by hand.
    pub fn wait(
        &mut self,
        writer: &mut StoreTransaction,
        provider: Identity,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Option<Micros>, Failure> {
        self.load_sends(writer, provider, limits, now)?;
        let Some((wait, (at, attempt))) = self.provider_sends.refusal(provider, now) else { return Ok(None) };
        let is_new = |id: Uuid| self.added.iter().any(|(_, added)| *added == id);
        if is_new(attempt) || writer.started_at(attempt)? == Some(at) {
            return Ok(Some(wait));
        }
        self.provider_sends.0.remove(&provider);
        self.load_sends(writer, provider, limits, now)?;
        Ok(self.provider_sends.refusal(provider, now).map(|(wait, _)| wait))
    }

    pub fn add(&mut self, job: &Job, now: Timestamp) {
        self.provider_sends.add(job.provider_id, now, job.attempt);
        self.added.push((job.provider_id, job.attempt));
    }

    /// Ends a transaction: takes back what it has changed, unless it was committed. Returns the providers that are
    /// tried anew.
    pub fn settle(&mut self, committed: bool) -> Vec<Mended> {
        let (asked, added) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.added));
        let mended = std::mem::take(&mut self.mended);
        if committed {
            return mended;
        }
        for (account, before) in asked.into_iter().rev() {
            match before {
                Some(breaker) => self.breakers.0.insert(account, breaker),
                None => self.breakers.0.remove(&account),
            };
        }
        added.into_iter().for_each(|(provider, attempt)| self.provider_sends.remove(provider, attempt));
        Vec::new()
    }
}
