//! The key under which the worker seals: it is on record before anything is sealed under it.

use std::rc::Rc;

use crate::{
    crypto::{key_file, seal::Keys},
    error::Error,
    pg::{database, transaction},
    store::{
        sealing_key::check,
        transaction::{Durability, Failure},
    },
    worker::state::Worker,
};

impl Worker {
    /// Notes at the start where this database is, and, if anything was ever sealed here, the key that seals. What is
    /// wrong with the file itself the launcher has said.
    pub fn note_what_is_here(&mut self) {
        let noted = self.store.write(Durability::Deferred, |writer| writer.note_queue_home());
        self.failures.note("noting the cluster of the queue", noted.as_ref().err());
        if let Ok(true) = noted {
            pgrx::warning!(
                "otp_gateway: this server's data directory is a copy of another one, and nobody has promoted it: what \
                 was queued in database \"{}\" when the copy was made is not sent; what is queued from now on is",
                transaction::run(|| database::name_of(database::current())).unwrap_or_default()
            );
        }
        if !self.identities.known.is_empty()
            && let Err(error) = self.keys_to_seal()
            && key_file::keys().is_ok()
        {
            error.warn();
        }
    }

    /// Returns the keys of the file, if those that this database needs are among them; the first one seals.
    pub fn keys_to_seal(&mut self) -> Result<Rc<Keys>, Error> {
        let keys = key_file::keys()?;
        let first = keys.ids().next();
        // A key on record stays there. Should rows of another database be brought in, the sessions check their keys
        // first.
        if self.sealing_key == first {
            return Ok(keys);
        }
        let read = self.store.write(Durability::Flushed, |writer| {
            let needed = writer.sealing_keys()?;
            let checked = check(&keys, &needed);
            match &first {
                Some(first) if checked.is_ok() && needed != [first.as_str()] => writer.note_sealing_key(first)?,
                _ => {}
            }
            Ok(checked)
        });
        match read {
            Ok(checked) => checked?,
            Err(Failure::Busy) => {
                return Err(Error::lock_not_available(
                    "otp_gateway_internal.sealing_key is locked by another transaction; nothing was done",
                    "pg_locks tells by whom. Call again after its end.",
                ));
            }
            Err(Failure::NotInstalled) => return Err(Error::not_installed()),
            Err(Failure::Error(why)) => {
                pgrx::log!("otp_gateway: the key that seals could not be put on record: {why}");
                return Err(Error::internal("nothing can be sealed", "The server's log has the reason."));
            }
        }
        key_file::note_first_use(&keys)?;
        self.sealing_key = first;
        Ok(keys)
    }
}
