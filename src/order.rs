//! From what is wanted to a letter that is ready to go. A session does it for a call of its own, the worker for a queued
//! send whose turn has come.

use policy::{Status, from_record};
use serde_json::{Map, Value};
use uuid::Uuid;
use vendor::{Call, Operation, Outcome, Prepared, Secret};

use crate::{
    letter::{Order, Outgoing, Target},
    misuse::Misuse,
    provider::{Provider, micros},
    seal::Key,
};

/// One operation as its caller means it.
pub struct Wanted<'a> {
    pub operation: Operation,
    pub attempt: Uuid,
    /// Of a verification on record, or for a new one.
    pub verification: Uuid,
    pub recorded: Option<Recorded<'a>>,
    pub created_by: &'a str,
    pub code: Option<&'a Secret>,
    pub payload: &'a Map<String, Value>,
}

/// What is on record of the verification that an operation is about.
#[derive(Clone, Copy)]
pub struct Recorded<'a> {
    pub status: Status,
    pub reference: Option<&'a str>,
    pub sealed: Option<&'a [u8]>,
}

impl Wanted<'_> {
    pub fn order(&self, provider: &Provider, key: &Key) -> Result<Order, Misuse> {
        let mut order = Order {
            operation: self.operation,
            attempt: self.attempt,
            target: Target::Known(self.verification),
            provider: provider.name.clone(),
            vendor: provider.dialect.name.to_owned(),
            created_by: self.created_by.to_owned(),
            outgoing: None,
            recipient_masked: None,
            recipient_key: None,
            reference: None,
            sealed: None,
            code_lifetime: provider.options.code_lifetime.map(micros),
            max_checks: provider.options.max_checks,
            server: provider.server.to_u32(),
            rules: None,
            local: None,
            is_test: false,
            idempotency: None,
        };
        let mut known = Map::new();
        if let Some(recorded) = self.recorded {
            // What was sealed is erased at the end, and of a queued one it is the send's: the record answers.
            if recorded.status == Status::Queued || from_record(self.operation, recorded.status).is_some() {
                return Ok(order);
            }
            if let Some(sealed) = recorded.sealed {
                known = key.open(self.verification, sealed)?;
            }
            if let Some(reference) = recorded.reference {
                known.insert("reference".to_owned(), Value::String(reference.to_owned()));
            }
        }
        let prepared = self.prepare(provider, &known)?;
        if self.recorded.is_none() {
            order.target = match self.operation {
                Operation::Send => Target::New(self.verification),
                _ => Target::Find(prepared.find_by, self.verification),
            };
        }
        // A cancel or a verify of what is already sealed changes nothing about it.
        if self.recorded.is_none() || self.operation == Operation::Resend {
            order.sealed = Some(key.seal(self.verification, &prepared.keep));
        }
        order.recipient_key = prepared.recipient.as_ref().map(|recipient| key.recipient(recipient));
        order.recipient_masked = prepared.recipient_masked;
        order.reference = prepared.reference;
        order.code_lifetime = prepared.code_lifetime.map(micros).or(order.code_lifetime);
        order.max_checks = prepared.max_checks.unwrap_or(order.max_checks);
        let recipient = prepared.recipient.as_ref().map(Secret::reveal);
        let numbers = provider.options.test_numbers.as_ref();
        if let Some(code) = recipient.and_then(|recipient| numbers?.code_of(recipient)) {
            order.is_test = true;
            order.local = Some(self.answer_of_test_number(code));
            return Ok(order);
        }
        order.rules = Some(provider.rules(recipient, order.max_checks, order.code_lifetime));
        order.local = prepared.local;
        order.outgoing = Some(Outgoing {
            request: prepared.request,
            first: prepared.first,
            route: provider.route(),
            secrets: prepared.secrets,
        });
        Ok(order)
    }

    fn answer_of_test_number(&self, code: &str) -> Outcome {
        match self.operation {
            Operation::Send | Operation::Resend => Outcome::Sent,
            Operation::Verify if self.code.is_some_and(|given| given.reveal() == code) => Outcome::Approved,
            Operation::Verify => Outcome::InvalidCode,
            Operation::Cancel => Outcome::Canceled,
        }
    }

    /// The vendor's message; an error where the payload cannot be sent.
    pub fn prepare(&self, provider: &Provider, known: &Map<String, Value>) -> Result<Prepared, vendor::Invalid> {
        (provider.dialect.prepare)(&Call {
            operation: self.operation,
            payload: self.payload,
            defaults: &provider.options.defaults,
            known,
            credentials: &provider.credentials,
            code: self.code,
            verification_id: &self.verification.to_string(),
            attempt_id: &self.attempt.to_string(),
            code_lifetime: provider.options.code_lifetime,
        })
    }
}
