//! What arrived: counts and keys, which are cheap and always on, and a log of whole requests, which a benchmark turns
//! off.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::dialect::Operation;
use crate::http::{Line, Request};
use crate::vendor::Vendor;

type PerOperation = [u64; Operation::ALL.len()];

#[derive(Default)]
pub struct Log {
    totals: [PerOperation; Vendor::ALL.len()],
    by_recipient: HashMap<(Vendor, String), PerOperation>,
    keys: Vec<(Vendor, Operation, Box<str>)>,
    entries: Vec<Entry>,
}

/// One request, kept as it came: it is made JSON of only when somebody asks.
pub struct Entry {
    vendor: Vendor,
    operation: Operation,
    line: Line,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    at_ms: u64,
    pub recipient: Option<String>,
    pub reference: Option<String>,
    pub fault: Option<&'static str>,
    pub complaint: Option<String>,
    /// HTTP status of what the vendor would answer, were it not for a fault.
    pub status: Option<u16>,
}

impl Entry {
    pub fn new(vendor: Vendor, operation: Operation, request: &Request<'_>, line: Line, at_ms: u64) -> Self {
        Entry {
            vendor,
            operation,
            line,
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            query: request.query.to_owned(),
            headers: request
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).into_owned();
                    (header.name.to_ascii_lowercase(), value)
                })
                .collect(),
            body: request.body.to_vec(),
            at_ms,
            recipient: None,
            reference: None,
            fault: None,
            complaint: None,
            status: None,
        }
    }

    fn to_json(&self, n: usize) -> Value {
        let headers: Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let body =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&self.body)));
        json!({
            "n": n,
            "vendor": self.vendor.name(),
            "operation": self.operation.name(),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": headers,
            "body": body,
            "recipient": self.recipient,
            "reference": self.reference,
            "listener": self.line.listener,
            "connection": self.line.connection,
            "fault": self.fault,
            "complaint": self.complaint,
            "status": self.status,
            "at_ms": self.at_ms,
        })
    }
}

/// Which requests are asked for; None is all.
#[derive(Default, Clone)]
pub struct Filter {
    pub vendor: Option<Vendor>,
    pub operation: Option<Operation>,
    pub recipient: Option<String>,
}

impl Filter {
    fn takes(&self, vendor: Vendor, operation: Operation) -> bool {
        self.vendor.is_none_or(|wanted| wanted == vendor) && self.operation.is_none_or(|wanted| wanted == operation)
    }
}

impl Log {
    pub fn count(&mut self, vendor: Vendor, operation: Operation, recipient: Option<String>, key: Option<&str>) {
        self.totals[vendor as usize][operation as usize] += 1;
        if let Some(recipient) = recipient {
            let counts = self.by_recipient.entry((vendor, recipient)).or_default();
            counts[operation as usize] += 1;
        }
        if let Some(key) = key {
            self.keys.push((vendor, operation, key.into()));
        }
    }

    pub fn keep(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub fn counted(&self, filter: &Filter) -> u64 {
        let mut sum = 0;
        for vendor in Vendor::ALL.iter().copied() {
            let counts = match &filter.recipient {
                None => Some(&self.totals[vendor as usize]),
                Some(recipient) => self.by_recipient.get(&(vendor, vendor.recipient_key(recipient))),
            };
            let Some(counts) = counts else { continue };
            for operation in Operation::ALL {
                if filter.takes(vendor, operation) {
                    sum += counts[operation as usize];
                }
            }
        }
        sum
    }

    pub fn keys(&self, filter: &Filter) -> Value {
        self.keys
            .iter()
            .filter(|(vendor, operation, _)| filter.takes(*vendor, *operation))
            .map(|(.., key)| Value::from(&**key))
            .collect()
    }

    pub fn entries(&self, filter: &Filter) -> Value {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| filter.takes(entry.vendor, entry.operation))
            .filter(|(_, entry)| {
                filter.recipient.as_deref().is_none_or(|wanted| {
                    entry.recipient.as_deref().is_some_and(|recipient| {
                        entry.vendor.recipient_key(recipient) == entry.vendor.recipient_key(wanted)
                    })
                })
            })
            .map(|(at, entry)| entry.to_json(at + 1))
            .collect()
    }
}
