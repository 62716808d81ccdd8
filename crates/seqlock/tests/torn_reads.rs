//! Promise: what is read was there at one moment, however often it is written meanwhile; and nobody waits for a writer
//! that does not come to its end.

use std::{
    cell::Cell,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
};

use seqlock::{PATIENCE, Version};

/// As many numbers as a provider's slot has, about; the writer makes them all the same.
struct Slot {
    version: Version,
    numbers: [AtomicU64; 128],
}

impl Slot {
    fn new() -> Self {
        Self { version: Version::default(), numbers: [const { AtomicU64::new(0) }; 128] }
    }

    fn put(&self, number: u64) {
        self.version.write(|| self.numbers.iter().for_each(|of| of.store(number, Relaxed)));
    }

    fn look(&self) -> Vec<u64> {
        self.numbers.iter().map(|of| of.load(Relaxed)).collect()
    }
}

fn is_of_one_moment(seen: &[u64]) -> bool {
    seen.windows(2).all(|pair| pair[0] == pair[1])
}

/// The writer comes in between each time, at each place, and the reader looks anew.
#[test]
fn a_write_in_the_middle_of_a_look() {
    for place in 0..128 {
        let (slot, looks) = (Slot::new(), Cell::new(0));
        let seen = slot.version.read(|| {
            looks.set(looks.get() + 1);
            let look = |(at, of): (usize, &AtomicU64)| {
                if at == place && looks.get() < 4 {
                    slot.put(looks.get());
                }
                of.load(Relaxed)
            };
            slot.numbers.iter().enumerate().map(look).collect::<Vec<u64>>()
        });
        assert_eq!((seen, looks.get()), (vec![3; 128], 4), "{place}");
    }
}

#[test]
fn a_writer_that_does_not_end() {
    let (slot, looks) = (Slot::new(), Cell::new(0));
    slot.version.write(|| {
        slot.numbers[0].store(1, Relaxed);
        let half = slot.version.read(|| {
            looks.set(looks.get() + 1);
            slot.look()
        });
        assert!(!is_of_one_moment(&half));
        assert!(slot.version.try_read(|| ()).is_none());
    });
    assert_eq!(looks.get(), PATIENCE + 1);
    assert!(slot.version.try_read(|| ()).is_some());
}

/// Readers on other processors, while the writer never rests.
#[test]
fn many_readers() {
    const READS: u64 = 5000;
    let (slot, readers, reading) = (Slot::new(), 3, AtomicU64::new(3));
    thread::scope(|scope| {
        scope.spawn(|| (1..).take_while(|_| reading.load(SeqCst) > 0).for_each(|number| slot.put(number)));
        for _ in 0..readers {
            scope.spawn(|| {
                let (mut last, mut reads, mut torn) = (0, 0, 0);
                while slot.look()[0] == 0 {
                    thread::yield_now();
                }
                // Until the writer has come in between, too.
                while reads < READS || torn == 0 && reading.load(SeqCst) > 0 {
                    let seen = loop {
                        if let Some(seen) = slot.version.try_read(|| slot.look()) {
                            break seen;
                        }
                        torn += 1;
                        thread::yield_now();
                    };
                    // A failed assertion here would leave the writer writing.
                    if !is_of_one_moment(&seen) || seen[0] < last {
                        reading.store(0, SeqCst);
                        panic!("read {seen:?} after {last}");
                    }
                    (last, reads) = (seen[0], reads + 1);
                }
                let _ = reading.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            });
        }
    });
}
