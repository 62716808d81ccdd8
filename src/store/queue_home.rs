//! The cluster that queued sends of this database are sealed for: the one that the database was made in, wherever
//! pg_upgrade or a promotion has taken it since. A dump, a database made from a template and a copy of the data
//! directory belong to another cluster, and send nothing that was queued before.

use pgrx::pg_sys;
use ring::digest;

use crate::{
    error::Error,
    pg::{
        cluster, database,
        values::{argument, number},
    },
    store::{StoreTransaction, columns::queue_home as column, prepared::statements, scan::scan, transaction::Failure},
};

statements! {
    insert_home(pg_sys::OIDOID, pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::INT4OID, pg_sys::TEXTOID)
      "INSERT INTO otp_gateway_internal.queue_home (database, cluster, server, timeline, directory)
       VALUES ($1, $2, $3, $4, $5)"

    update_home(pg_sys::OIDOID, pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::INT4OID, pg_sys::TEXTOID, pg_sys::INT8OID)
      "UPDATE otp_gateway_internal.queue_home SET cluster = $2, server = $3, timeline = $4, directory = $5
       WHERE database OPERATOR(pg_catalog.=) $1 AND cluster OPERATOR(pg_catalog.=) $6"
}

/// Where a database is.
#[derive(PartialEq)]
struct Place {
    server: u64,
    timeline: u32,
    directory: Option<String>,
}

impl Place {
    fn here() -> Self {
        Self {
            server: cluster::system_identifier(),
            timeline: cluster::timeline(),
            directory: cluster::data_directory(),
        }
    }

    /// Returns whether `here` is in a copy of the data directory in which this place was noted. After pg_upgrade the
    /// server is another, and after a promotion or a recovery from an archive the timeline: such a directory takes the
    /// original's place, and is no copy. A copy of a file system's image cannot be told from its original: all of this
    /// is equal.
    fn was_copied_to(&self, here: &Self) -> bool {
        self.server == here.server
            && self.timeline == here.timeline
            && self.directory.is_some()
            && here.directory.is_some()
            && self.directory != here.directory
    }

    /// Returns the number that queued sends of a copy are sealed for.
    fn number_of_copy(&self) -> u64 {
        let name = format!("{} {}", self.server, self.directory.as_deref().unwrap_or_default());
        let digest = digest::digest(&digest::SHA256, name.as_bytes());
        digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// The home that is on record.
struct Home {
    cluster: u64,
    /// None: no worker has looked yet.
    place: Option<Place>,
}

impl Home {
    fn is_of(&self, here: &Place) -> bool {
        self.place.as_ref().map_or(self.cluster, |place| place.server) == here.server
    }

    fn is_copied(&self, here: &Place) -> bool {
        self.place.as_ref().is_some_and(|place| place.was_copied_to(here))
    }

    fn cluster(&self, here: &Place) -> u64 {
        if self.is_copied(here) { here.number_of_copy() } else { self.cluster }
    }
}

/// Returns the cluster that queued sends are sealed for. In a transaction that may write; also right before the worker
/// has noted where the database is.
pub fn queue_home() -> Result<u64, Error> {
    let here = Place::here();
    Ok(home(&here)?.map_or(here.server, |home| home.cluster(&here)))
}

/// Returns the home on record for this database. Replication may have brought rows of other clusters: the row of this
/// cluster comes first. Returns None for a database made from a template, which has the template's row alone.
fn home(here: &Place) -> Result<Option<Home>, Error> {
    let mut homes = Vec::new();
    scan(c"queue_home", None, [], |row| {
        let of = row.get::<pg_sys::Oid>(column::DATABASE);
        let Some(cluster) = row.get::<i64>(column::CLUSTER).filter(|_| of == Some(database::current())) else { return };
        let place = row.get::<i64>(column::SERVER).zip(row.get::<i32>(column::TIMELINE)).map(|(server, timeline)| {
            let directory = row.get::<String>(column::DIRECTORY);
            Place { server: server.cast_unsigned(), timeline: timeline.cast_unsigned(), directory }
        });
        homes.push(Home { cluster: cluster.cast_unsigned(), place });
    })?;
    let own = homes.iter().position(|home| home.is_of(here)).unwrap_or(0);
    Ok(homes.into_iter().nth(own))
}

impl StoreTransaction<'_, '_> {
    /// Notes where this database is. Returns true if it is in a copy of the data directory where it was before, so that
    /// nothing that was queued there is sent.
    pub fn note_queue_home(&mut self) -> Result<bool, Failure> {
        let here = Place::here();
        let home = home(&here).map_err(|error| Failure::Error(error.message().to_owned()))?;
        if home.as_ref().is_some_and(|home| home.place.as_ref() == Some(&here)) {
            return Ok(false);
        }
        let (is_copied, known) =
            home.as_ref().map_or((false, None), |home| (home.is_copied(&here), Some(home.cluster)));
        let cluster = home.as_ref().map_or(here.server, |home| home.cluster(&here));
        let arguments = [
            argument(database::current(), pg_sys::OIDOID),
            number(cluster.cast_signed()),
            number(here.server.cast_signed()),
            argument(here.timeline.cast_signed(), pg_sys::INT4OID),
            argument(here.directory, pg_sys::TEXTOID),
        ];
        match known {
            None => self.client.update(&self.store.queue_home.insert_home, None, &arguments)?,
            Some(known) => {
                let known = number(known.cast_signed());
                let arguments: Vec<_> = arguments.into_iter().chain([known]).collect();
                self.client.update(&self.store.queue_home.update_home, None, &arguments)?
            }
        };
        Ok(is_copied)
    }
}
