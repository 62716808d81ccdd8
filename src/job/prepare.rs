//! Makes a job that is ready to go of what a caller wants. A session does it for a call of its own, the worker for a
//! queued send whose turn has come.

use std::borrow::Cow;

use dialect::{Call, CodeForm, FindBy, Operation, Outcome, Prepared, Secret};
use policy::{LimitRules, Status, outcome_if_closed};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    crypto::seal::{Keys, Place},
    error::Error,
    job::{Account, Action, Answer, CountsFor, Flow, Job, OwnAnswer, Recorded, Route, Send, VendorCall},
    pg::clock::SinceBoot,
    provider::{Provider, candidates::Candidates, lookup::VENDOR_NOT_CHOSEN, option_value::micros},
    store::{identity::Identity, rows::IdempotencyHashes},
};

/// One operation as its caller means it.
#[derive(Clone, Copy)]
pub struct JobSpec<'a> {
    pub operation: Operation,
    pub attempt: Uuid,
    /// The id of a verification on record, or for a new one.
    pub verification: Uuid,
    pub recorded: Option<PriorState<'a>>,
    /// The role that wants the operation; below it, the role's name.
    pub role: u32,
    pub created_by: &'a str,
    pub code: Option<&'a Secret>,
    pub payload: &'a Map<String, Value>,
    /// The idempotency key of a send.
    pub idempotency: Option<&'a IdempotencyHashes>,
}

fn account(provider: &Provider) -> Account {
    Account {
        server: provider.server.to_u32(),
        mapping: provider.mapping.to_u32(),
        name: provider.account(),
        configuration: provider.configuration(),
        open_files: provider.open_files(),
    }
}

/// Returns the payload without the fields that only other members of the route know.
fn payload_for<'p>(
    member: &Provider,
    candidates: &Candidates,
    payload: &'p Map<String, Value>,
) -> Cow<'p, Map<String, Value>> {
    if candidates.route.is_none() {
        return Cow::Borrowed(payload);
    }
    let knows = |provider: &Provider, name: &str| {
        provider.dialect.fields(Operation::Send).is_some_and(|fields| fields.iter().any(|field| field.is_called(name)))
    };
    let is_for_others = |name: &str| !knows(member, name) && candidates.members.iter().any(|other| knows(other, name));
    let fields = payload.iter().filter(|(name, _)| !is_for_others(name));
    Cow::Owned(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Returns who answers under the provider's rules: the gateway itself, or the vendor.
fn answer(provider: &Provider, prepared: Prepared, is_no_code: bool, rules: LimitRules) -> Answer {
    let own = if is_no_code { Some(OwnAnswer::NoCode) } else { prepared.local_outcome.map(OwnAnswer::Outcome) };
    match own {
        Some(answer) => Answer::Gateway { answer, rules, timeout: provider.timeout(prepared.timeout) },
        None => Answer::Vendor {
            call: VendorCall {
                request: prepared.request,
                cancel_first: prepared.cancel_first,
                endpoint: provider.endpoint(prepared.timeout),
                secrets: prepared.secrets,
                description: provider.dialect.description_text(),
            },
            rules,
        },
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
        let account = account(provider);
        // The record answers if the verification has ended, since what was sealed is erased then, or if it is queued,
        // since what is sealed is the send's payload then.
        let is_closed = |recorded: &PriorState| {
            recorded.status == Status::Queued || outcome_if_closed(self.operation, recorded.status).is_some()
        };
        if self.recorded.as_ref().is_some_and(is_closed) {
            let action = self.action(FindBy::Recipient, false, None);
            return Ok(self.answered_by(Answer::Record, action, &provider.name, provider.dialect.name, Some(account)));
        }
        let known = self.recorded.map_or_else(|| Ok(Map::new()), |recorded| self.known(&recorded, keys))?;
        let code = self.code.map(|typed| provider.dialect.code.read(typed.reveal()));
        let is_no_code = matches!(code, Some(None));
        let mut prepared = JobSpec { code: code.flatten().as_ref(), ..*self }.prepare(provider, &known)?;
        let documented = provider.dialect.code_lifetime.filter(|_| !prepared.has_no_life);
        let lifetime = prepared.code_lifetime.or(provider.options.code_lifetime).or(documented);
        let (code_lifetime, max_checks) =
            (lifetime.map(micros), prepared.max_checks.unwrap_or(provider.options.max_checks));
        let prepared_with = self.recorded.map(|recorded| (recorded.reference.map(str::to_owned), recorded.send_count));
        let action = self.action(prepared.find_by, prepared.keeps_code, prepared_with);
        // A cancel or a verify changes nothing about what is sealed already.
        let seals = self.recorded.is_none() || self.operation == Operation::Resend;
        let sealed = seals.then(|| keys.seal(&Place::Verification(self.verification), &prepared.retained));
        let recipient = prepared.recipient.take();
        let (recipient_masked, reference) = (prepared.recipient_masked.take(), prepared.reference.take());
        let answer = match self.answer_of_test_number(provider, recipient.as_ref()) {
            Some(answer) => Answer::TestNumber(answer),
            None => {
                let rules = provider.rules(recipient.as_ref().map(Secret::reveal), max_checks, code_lifetime);
                answer(provider, prepared, is_no_code, rules)
            }
        };
        Ok(Job {
            recipient_masked,
            recipient,
            reference,
            sealed,
            code_lifetime,
            max_checks,
            ..self.answered_by(answer, action, &provider.name, provider.dialect.name, Some(account))
        })
    }

    /// Returns the job of a check that nobody makes: by it the worker can be asked how many checks the limits leave.
    pub fn check_of(&self, provider: &Provider, max_checks: u32) -> Job {
        let lifetime = provider.options.code_lifetime.or(provider.dialect.code_lifetime).map(micros);
        let rules = provider.rules(None, max_checks, lifetime);
        let answer = Answer::Gateway { answer: OwnAnswer::NoCode, rules, timeout: provider.timeout(None) };
        let action = self.action(FindBy::Recipient, false, Some((None, 0)));
        let job = self.answered_by(answer, action, &provider.name, provider.dialect.name, Some(account(provider)));
        Job { code_lifetime: lifetime, max_checks, ..job }
    }

    /// Returns the job of an operation on a send that waits for its route: the record answers.
    pub fn answered_from_record(&self, route: &str, route_id: Identity) -> Job {
        let action = self.action(FindBy::Recipient, false, None);
        Job { provider_id: route_id, ..self.answered_by(Answer::Record, action, route, VENDOR_NOT_CHOSEN, None) }
    }

    /// Returns a job of which no more is known than who answers it.
    fn answered_by(
        &self,
        answer: Answer,
        action: Action,
        provider: &str,
        vendor: &str,
        account: Option<Account>,
    ) -> Job {
        Job {
            attempt: self.attempt,
            action,
            answer,
            provider: provider.to_owned(),
            provider_id: 0,
            vendor: vendor.to_owned(),
            account,
            role: self.role,
            created_by: self.created_by.to_owned(),
            role_id: 0,
            recipient_masked: None,
            recipient: None,
            reference: None,
            sealed: None,
            code_lifetime: None,
            max_checks: 0,
            recipient_keys: Vec::new(),
            account_keys: Vec::new(),
            configuration: Vec::new(),
            counts_for: CountsFor::default(),
            taken_at: SinceBoot::default(),
        }
    }

    fn action(&self, find_by: FindBy, keeps_code: bool, prepared_with: Option<(Option<String>, u32)>) -> Action {
        let flow = Recorded { id: self.verification, find_by, prepared_with };
        match self.operation {
            Operation::Send => Action::Send(Send {
                verification: self.verification,
                is_failover: false,
                idempotency: self.idempotency.cloned(),
                route: None,
                fallbacks: Vec::new(),
                queued: None,
            }),
            Operation::Verify if self.recorded.is_none() => {
                Action::Verify(Flow::Lookup { by: find_by, new: self.verification })
            }
            Operation::Verify => Action::Verify(Flow::Recorded(flow)),
            Operation::Resend => Action::Resend { flow, keeps_code },
            Operation::Cancel => Action::Cancel(flow),
        }
    }

    /// Returns what the record knows of the flow: its reference, and what was sealed of it.
    fn known(&self, recorded: &PriorState, keys: &Keys) -> Result<Map<String, Value>, Error> {
        let mut known = match recorded.sealed {
            Some(sealed) => keys.open(&Place::Verification(self.verification), sealed)?,
            None => Map::new(),
        };
        if let Some(reference) = recorded.reference {
            known.insert("reference".to_owned(), Value::String(reference.to_owned()));
        }
        Ok(known)
    }

    /// Returns the gateway's answer if the recipient is a test number. Its code may be one that the vendor could not
    /// have made.
    fn answer_of_test_number(&self, provider: &Provider, recipient: Option<&Secret>) -> Option<OwnAnswer> {
        let right = provider.options.test_numbers.as_ref()?.code_of(recipient?.reveal())?;
        let given = self.code.map(|typed| CodeForm::Numeric.read(typed.reveal()));
        Some(match (self.operation, given) {
            (_, Some(None)) => OwnAnswer::NoCode,
            (Operation::Send | Operation::Resend, _) => OwnAnswer::Outcome(Outcome::Sent),
            (Operation::Verify, Some(given)) if given == CodeForm::Numeric.read(right) => {
                OwnAnswer::Outcome(Outcome::Approved)
            }
            (Operation::Verify, _) => OwnAnswer::Outcome(Outcome::InvalidCode),
            (Operation::Cancel, _) => OwnAnswer::Outcome(Outcome::Canceled),
        })
    }

    /// Returns the send through whatever a name stands for; for a route, through each of its providers that can take
    /// the payload. A field that one member does not know is for the other members.
    pub fn send(&self, candidates: &Candidates, keys: &Keys) -> Result<Job, Error> {
        let mut jobs = Vec::new();
        let mut refusal = None;
        for member in &candidates.members {
            let payload = payload_for(member, candidates, self.payload);
            let attempt = if jobs.is_empty() { self.attempt } else { Uuid::now_v7() };
            match (JobSpec { payload: &payload, attempt, ..*self }).job(member, keys) {
                Ok(job) => jobs.push(job),
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        if jobs.is_empty() {
            return Err(refusal.unwrap_or_else(no_members));
        }
        let mut first = jobs.remove(0);
        for (job, is_failover) in std::iter::once((&mut first, false)).chain(jobs.iter_mut().map(|job| (job, true))) {
            if let Action::Send(send) = &mut job.action {
                let route = candidates.route.as_ref();
                send.route =
                    route.map(|route| Route { name: route.name.clone(), server: route.server.to_u32(), id: 0 });
                send.is_failover = is_failover;
            }
        }
        if let Action::Send(send) = &mut first.action {
            send.fallbacks = jobs;
        }
        Ok(first)
    }

    /// Checks whether the send can be made, and returns the provider that it would go through first.
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

    /// Returns the vendor's message; an error if the payload cannot be sent.
    pub fn prepare(&self, provider: &Provider, known: &Map<String, Value>) -> Result<Prepared, dialect::Invalid> {
        provider.dialect.prepare(&Call {
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
