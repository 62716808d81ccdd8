//! Finds the flow on record that a job names by reference or recipient, and decides whom the job counts for.

use std::collections::{HashMap, HashSet};

use dialect::FindBy;
use policy::{Status, Timestamp};
use uuid::Uuid;

use crate::{
    ipc::worker::CallId,
    job::{Action, CountsFor, Flow, Job},
    store::{StoreTransaction, identity::Identity, rows::StoredVerification, transaction::Failure},
};

/// How a verify names a flow that was begun elsewhere. A None in it: the job gives no such name, or no key of it is
/// known.
#[derive(PartialEq, Eq, Hash)]
pub enum FlowName {
    /// The vendor's reference, which belongs to the account: it is the same flow at any provider of that account.
    Reference { account: Vec<u8>, reference: Option<String> },
    /// The recipient of a flow that this role began at this provider.
    Recipient { provider: Identity, role: Identity, recipient: Option<Vec<u8>> },
}

impl FlowName {
    pub fn of(by: FindBy, job: &Job) -> Self {
        match by {
            FindBy::Reference => {
                Self::Reference { account: job.account_key().to_vec(), reference: job.reference.clone() }
            }
            FindBy::Recipient => Self::Recipient {
                provider: job.provider_id,
                role: job.role_id,
                recipient: job.recipient_key().map(<[u8]>::to_vec),
            },
        }
    }
}

/// The flows on record that jobs are about.
#[derive(Default)]
pub struct Flows {
    pub known: HashMap<Uuid, StoredVerification>,
    /// The flows that look-ups have found, by the job's attempt.
    pub found: HashMap<Uuid, StoredVerification>,
    /// The attempts of jobs that name another recipient than their flow's.
    pub of_another: HashSet<Uuid>,
}

impl Flows {
    /// Reads the flows, and has each job count for the recipient on record, whatever its payload says.
    pub fn read(
        writer: &mut StoreTransaction,
        jobs: &mut [(CallId, Box<Job>)],
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let ids: Vec<Uuid> = jobs.iter().filter_map(|(_, job)| job.action.on_record()).collect();
        let stored = writer.verifications(&ids)?;
        let mut flows =
            Self { known: stored.into_iter().map(|stored| (stored.id, stored)).collect(), ..Self::default() };
        for (_, job) in jobs {
            let found = match job.action {
                Action::Verify(Flow::Lookup { by, .. }) => {
                    let (reference, keys) = (job.reference.as_deref(), &job.recipient_keys);
                    let found = writer.latest(by, job.provider_id, &job.account_keys, reference, keys, job.role_id)?;
                    found.filter(|stored| is_the_same_flow(by, stored, now))
                }
                _ => None,
            };
            // A send always belongs to its flow: it begins the flow, or goes on with it at the next provider.
            if !matches!(job.action, Action::Send(_)) {
                let flow = found.as_ref().or_else(|| flows.known.get(&job.action.on_record()?));
                if !belongs(job, flow) {
                    flows.of_another.insert(job.attempt);
                }
            }
            flows.found.extend(found.map(|stored| (job.attempt, stored)));
        }
        Ok(flows)
    }
}

/// Has a job count for the recipient of the flow on record. Returns false if the job names another recipient.
pub fn belongs(job: &mut Job, flow: Option<&StoredVerification>) -> bool {
    let was_sent = flow.is_some_and(|flow| flow.state.send_count > 0);
    job.counts_for = CountsFor::Caller;
    if job.action.find_by() == FindBy::Reference && !was_sent {
        job.counts_for = CountsFor::Nobody;
        return true;
    }
    let Some(flow) = flow else { return true };
    // The flow was found by a session whose caller has the rights of the role that began it.
    let is_found = matches!(job.action, Action::Verify(Flow::Lookup { .. } | Flow::Found { .. }));
    if !is_found {
        job.counts_for = CountsFor::Role(flow.role_id);
    }
    let Some(key) = &flow.recipient_key else {
        job.recipient_keys.clear();
        return true;
    };
    if job.recipient_keys.contains(key) {
        return true;
    }
    let is_another = is_found && !job.recipient_keys.is_empty();
    // The flow may be on record under a key that the file has lost.
    job.recipient_keys.push(key.clone());
    !is_another
}

/// Returns whether the flow that a look-up found is the one meant. A reference names one flow for good. A recipient
/// means the latest flow, as long as it is open and its code not too old; a flow whose checks are spent is meant until
/// its code is too old, or a new flow would give new guesses.
pub fn is_the_same_flow(by: FindBy, stored: &StoredVerification, now: Timestamp) -> bool {
    by == FindBy::Reference
        || (stored.state.expires_at.is_none_or(|end| end > now)
            && (!stored.state.status.is_terminal() || stored.state.status == Status::MaxAttemptsReached))
}
