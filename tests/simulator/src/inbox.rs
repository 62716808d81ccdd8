//! The people's phones: for each recipient the code that came last, and how many came.

use std::collections::HashMap;

use crate::vendor::Vendor;

pub struct Message {
    pub code: String,
    pub count: u64,
}

#[derive(Default)]
pub struct Inbox(HashMap<(Vendor, String), Message>);

impl Inbox {
    pub fn deliver(&mut self, vendor: Vendor, recipient: &str, code: String) {
        let message = self
            .0
            .entry((vendor, vendor.recipient_key(recipient)))
            .or_insert_with(|| Message { code: String::new(), count: 0 });
        message.code = code;
        message.count += 1;
    }

    pub fn latest(&self, vendor: Vendor, recipient: &str) -> Option<&Message> {
        self.0.get(&(vendor, vendor.recipient_key(recipient)))
    }
}
