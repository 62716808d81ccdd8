//! The jobs and completed calls that wait for a row that somebody has locked.

use http_client::CompletedCall;
use uuid::Uuid;

use crate::{ipc::worker::CallId, job::Job, pg::clock::SinceBoot};

#[derive(Default)]
pub struct WaitingForLocks {
    /// The jobs, each with the verification on record that it needs, which stays busy with it.
    pub jobs: Vec<(Uuid, CallId, Box<Job>)>,
    pub completed: Vec<CompletedCall>,
    pub again_at: Option<SinceBoot>,
}

impl WaitingForLocks {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.completed.is_empty()
    }

    pub fn next_due(&self) -> Option<SinceBoot> {
        self.again_at
    }
}
