//! Ranges of numbers: counts calls that have ended, writes the counts to the record, and reads them back.

use dialect::{Operation, Outcome};
use policy::{Micros, NumberRange, counts_as_sent};

use crate::{
    pg::clock::clock,
    store::{
        StoreTransaction,
        glance::{self, IsLocked},
        identity::Identity,
        transaction::{Durability, Failure},
    },
    worker::state::{
        InFlight, Worker,
        range_state::{Send, Unwritten},
    },
};

/// A range to which nothing has gone for this time is forgotten.
const DAY: Micros = 86_400_000_000;

impl Worker {
    /// Counts a call that has ended and is on record.
    pub fn count_for_range(&mut self, call: &InFlight, outcome: Outcome) {
        let now = clock();
        let send = |at| Some(Send { provider: call.provider_id, range: call.range.clone()?, at });
        match call.operation {
            Operation::Send if counts_as_sent(outcome) => {
                if let Some(send) = send(now) {
                    self.limits.ranges.sent(send, &call.provider, call.verification, call.range_pass);
                }
            }
            Operation::Verify if outcome == Outcome::Approved => {
                // No send of a flow that was begun elsewhere was counted.
                let begun = send(call.cohort.begun_at).filter(|_| call.state.send_count > 0);
                self.limits.ranges.converted(call.verification, begun, now);
            }
            _ => {}
        }
    }

    /// Writes the changes, in a transaction of their own: whoever has locked these rows holds up no outcome. Returns
    /// false if it is not time to.
    pub fn write_ranges(&mut self) -> bool {
        let now = clock();
        let Some(unwritten) = self.limits.ranges.unwritten(now, false) else { return false };
        if let Err(Failure::NotInstalled) = self.write_unwritten(unwritten) {
            self.extension_dropped();
        }
        true
    }

    /// Writes the changes when the worker leaves.
    pub fn write_ranges_at_once(&mut self) {
        if let Some(unwritten) = self.limits.ranges.unwritten(clock(), true).filter(|_| !self.is_extension_dropped) {
            // There is nobody to tell of a failure: what is not written is counted anew.
            drop(self.write_unwritten(unwritten));
        }
    }

    /// Opens a range again for a session; that is on record when this returns. Returns at how many of the providers the
    /// range was held back.
    pub fn release_range(&mut self, providers: &[Identity], range: &NumberRange) -> Result<u64, Failure> {
        let now = clock();
        let released = providers.iter().filter(|provider| self.limits.ranges.release(**provider, range, now)).count();
        if released > 0 {
            let unwritten = self.limits.ranges.unwritten(now, true);
            unwritten.map_or(Ok(()), |unwritten| self.write_unwritten(unwritten))?;
        }
        Ok(released as u64)
    }

    fn write_unwritten(&mut self, unwritten: Unwritten) -> Result<(), Failure> {
        let now = clock();
        let written = self.store.write(Durability::Deferred, |writer| write(writer, &unwritten, now - DAY));
        self.failures.note("counting by ranges of numbers", written.as_ref().err());
        self.limits.ranges.settle(unwritten, written.is_ok(), now);
        written
    }

    /// Reads the ranges as the worker before this one has put them on record.
    pub fn read_ranges(&mut self) -> Result<(), Failure> {
        let now = clock();
        let (counts, low) = self.store.write(Durability::Deferred, |writer| {
            writer.forget_ranges(now - DAY)?;
            writer.end_past_low_conversions()?;
            let low = glance::low_conversions(now).map_err(|IsLocked| Failure::Busy)?;
            Ok((writer.ranges()?, low))
        })?;
        self.limits.ranges.restore(counts, low, now);
        Ok(())
    }
}

fn write(writer: &mut StoreTransaction, unwritten: &Unwritten, before: policy::Timestamp) -> Result<(), Failure> {
    unwritten.counts.iter().try_for_each(|counted| writer.count_range(counted))?;
    unwritten.low.iter().try_for_each(|low| writer.set_low_conversion(low))?;
    unwritten.ended.iter().try_for_each(|(provider, range)| writer.end_low_conversion(*provider, range))?;
    writer.forget_ranges(before)
}
