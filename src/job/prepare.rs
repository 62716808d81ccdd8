//! From what is wanted to a job that is ready to go. A session does it for a call of its own, the worker for a queued
//! send whose turn has come.

use std::borrow::Cow;

use dialect::{Call, CodeForm, Operation, Outcome, Prepared, Secret};
use policy::{Status, outcome_if_closed};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    crypto::seal::{Keys, Place},
    error::Error,
    job::{Job, Target, VendorCall},
    provider::{Provider, candidates::Candidates, lookup::VENDOR_NOT_CHOSEN, option_value::micros},
};

/// One operation as its caller means it.
#[derive(Clone, Copy)]
pub struct JobSpec<'a> {
    pub operation: Operation,
    pub attempt: Uuid,
    /// Of a verification on record, or for a new one.
    pub verification: Uuid,
    pub recorded: Option<PriorState<'a>>,
    /// Who wants it.
    pub role: u32,
    pub created_by: &'a str,
    pub code: Option<&'a Secret>,
    pub payload: &'a Map<String, Value>,
}

/// Without the fields that only other members of the route know.
fn payload_for<'p>(
    member: &Provider,
    candidates: &Candidates,
    payload: &'p Map<String, Value>,
) -> Cow<'p, Map<String, Value>> {
    if candidates.route.is_none() {
        return Cow::Borrowed(payload);
    }
    let knows = |provider: &Provider, name: &str| {
        (provider.dialect.fields)(Operation::Send)
            .is_some_and(|fields| fields.iter().any(|field| field.is_called(name)))
    };
    let is_for_others = |name: &str| !knows(member, name) && candidates.members.iter().any(|other| knows(other, name));
    let fields = payload.iter().filter(|(name, _)| !is_for_others(name));
    Cow::Owned(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn answer_of_test_number(operation: Operation, is_right: bool) -> Outcome {
    match operation {
        Operation::Send | Operation::Resend => Outcome::Sent,
        Operation::Verify if is_right => Outcome::Approved,
        Operation::Verify => Outcome::InvalidCode,
        Operation::Cancel => Outcome::Canceled,
    }
}

fn no_members() -> Error {
    Error::undefined_object("the route has no providers", "ALTER SERVER ... OPTIONS (SET providers '...').")
}

/// What is on record of the verification that an operation is about.
#[derive(Clone, Copy)]
pub struct PriorState<'a> {
    pub status: Status,
    pub reference: Option<&'a str>,
    pub sealed: Option<&'a [u8]>,
    pub send_count: u32,
}

impl JobSpec<'_> {
    pub fn job(&self, provider: &Provider, keys: &Keys) -> Result<Job, Error> {
        let mut job = Job {
            vendor: provider.dialect.name.to_owned(),
            max_checks: provider.options.max_checks,
            server: provider.server.to_u32(),
            mapping: provider.mapping.to_u32(),
            account: Some(provider.account()),
            ..self.answered_from_record(self.verification, &provider.name)
        };
        let mut known = Map::new();
        if let Some(recorded) = self.recorded {
            // What was sealed is erased at the end, and of a queued one it is the send's: the record answers.
            if recorded.status == Status::Queued || outcome_if_closed(self.operation, recorded.status).is_some() {
                return Ok(job);
            }
            if let Some(sealed) = recorded.sealed {
                known = keys.open(&Place::Verification(self.verification), sealed)?;
            }
            job.prepared_with = Some((recorded.reference.map(str::to_owned), recorded.send_count));
            if let Some(reference) = recorded.reference {
                known.insert("reference".to_owned(), Value::String(reference.to_owned()));
            }
        }
        let code = self.code.map(|typed| provider.dialect.code.read(typed.reveal()));
        job.is_no_code = matches!(code, Some(None));
        let code = code.flatten();
        let prepared = JobSpec { code: code.as_ref(), ..*self }.prepare(provider, &known)?;
        if self.recorded.is_none() {
            job.target = match self.operation {
                Operation::Send => Target::New(self.verification),
                _ => Target::Lookup(prepared.find_by, self.verification),
            };
        }
        // A cancel or a verify of what is already sealed changes nothing about it.
        if self.recorded.is_none() || self.operation == Operation::Resend {
            job.sealed = Some(keys.seal(&Place::Verification(self.verification), &prepared.retained));
        }
        job.find_by = prepared.find_by;
        job.recipient_masked = prepared.recipient_masked;
        job.reference = prepared.reference;
        let documented = provider.dialect.code_lifetime.filter(|_| !prepared.has_no_life);
        let lifetime = prepared.code_lifetime.or(provider.options.code_lifetime).or(documented);
        job.code_lifetime = lifetime.map(micros);
        job.max_checks = prepared.max_checks.unwrap_or(job.max_checks);
        job.keeps_code = prepared.keeps_code;
        job.recipient = prepared.recipient;
        let recipient = job.recipient.as_ref().map(Secret::reveal);
        let numbers = provider.options.test_numbers.as_ref();
        if let Some(right) = recipient.and_then(|recipient| numbers?.code_of(recipient)) {
            // Its code need be none that the vendor could have made.
            let read = |typed: &str| CodeForm::Numeric.read(typed);
            let given = self.code.and_then(|typed| read(typed.reveal()));
            job.is_no_code = self.code.is_some() && given.is_none();
            let is_right = given.is_some() && given == read(right);
            job.is_test = true;
            job.local_outcome = Some(answer_of_test_number(self.operation, is_right));
            return Ok(job);
        }
        job.rules = Some(provider.rules(recipient, job.max_checks, job.code_lifetime));
        job.local_outcome = prepared.local_outcome;
        job.vendor_call = Some(VendorCall {
            request: prepared.request,
            cancel_first: prepared.cancel_first,
            endpoint: provider.endpoint(prepared.timeout),
            secrets: prepared.secrets,
        });
        Ok(job)
    }

    /// An operation on a send that waits for its route: it answers from the record.
    pub fn answered_from_record(&self, verification: Uuid, route: &str) -> Job {
        Job {
            operation: self.operation,
            attempt: self.attempt,
            target: Target::Existing(verification),
            provider: route.to_owned(),
            provider_id: 0,
            vendor: VENDOR_NOT_CHOSEN.to_owned(),
            role: self.role,
            role_id: 0,
            created_by: self.created_by.to_owned(),
            vendor_call: None,
            recipient_masked: None,
            recipient: None,
            recipient_keys: Vec::new(),
            reference: None,
            sealed: None,
            code_lifetime: None,
            max_checks: 0,
            server: 0,
            mapping: 0,
            account: None,
            account_keys: Vec::new(),
            find_by: dialect::FindBy::Recipient,
            sender: None,
            prepared_with: None,
            is_found: false,
            is_claim: false,
            rules: None,
            local_outcome: None,
            is_no_code: false,
            keeps_code: false,
            is_test: false,
            idempotency: None,
            route: None,
            route_id: None,
            fallbacks: Vec::new(),
            taken_at: 0,
            queued: None,
        }
    }

    /// The send through whatever a name stands for: of a route through each of its providers that can take the
    /// payload. A field that one of them does not know is for the others.
    pub fn send(&self, candidates: &Candidates, keys: &Keys) -> Result<Job, Error> {
        let mut jobs = Vec::new();
        let mut refusal = None;
        for member in &candidates.members {
            let payload = payload_for(member, candidates, self.payload);
            let attempt = if jobs.is_empty() { self.attempt } else { Uuid::now_v7() };
            match (JobSpec { payload: &payload, attempt, ..*self }).job(member, keys) {
                Ok(mut job) => {
                    job.route = candidates.route.as_ref().map(|route| (route.name.clone(), route.server.to_u32()));
                    jobs.push(job);
                }
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        let mut jobs = jobs.into_iter();
        let Some(mut first) = jobs.next() else { return Err(refusal.unwrap_or_else(no_members)) };
        first.fallbacks = jobs.map(|job| Job { target: Target::Failover(self.verification), ..job }).collect();
        Ok(first)
    }

    /// The same, no further than to see whether it can be sent, and through which provider first.
    pub fn check<'p>(&self, candidates: &'p Candidates) -> Result<(&'p Provider, Prepared), Error> {
        let mut refusal = None;
        for member in &candidates.members {
            let payload = payload_for(member, candidates, self.payload);
            match (JobSpec { payload: &payload, ..*self }).prepare(member, &Map::new()) {
                Ok(prepared) => return Ok((member, prepared)),
                Err(invalid) => drop(refusal.get_or_insert_with(|| invalid.into())),
            }
        }
        Err(refusal.unwrap_or_else(no_members))
    }

    /// The vendor's message; an error where the payload cannot be sent.
    pub fn prepare(&self, provider: &Provider, known: &Map<String, Value>) -> Result<Prepared, dialect::Invalid> {
        (provider.dialect.prepare)(&Call {
            operation: self.operation,
            payload: self.payload,
            defaults: &provider.options.defaults,
            retained_before: known,
            options: &provider.options.vendors_own,
            credentials: &provider.credentials,
            code: self.code,
            verification_id: &self.verification.to_string(),
            attempt_id: &self.attempt.to_string(),
            code_lifetime: provider.options.code_lifetime,
        })
    }
}
