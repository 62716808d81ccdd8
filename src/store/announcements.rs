//! With otp_gateway.notify: NOTIFY of each change of status, on a channel of the role that began the verification. Any
//! role may listen on any channel, and send on it what it likes: so nobody must be able to guess a channel's name.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    crypto::{key_file, seal::Keys},
    gucs,
    pg::values::{argument, number, uuids},
    store::{StoreTransaction, identity::home, prepared::statements, transaction::Failure},
};

statements! {
    select_changes(pg_sys::UUIDARRAYOID, pg_sys::INT8OID)
      "SELECT r.object, pg_catalog.json_build_object(
              'id', v.id, 'provider', coalesce(i.name, v.provider), 'status', v.status)::text
       FROM otp_gateway_internal.verification_record AS v
       JOIN otp_gateway_internal.identity AS r ON r.id OPERATOR(pg_catalog.=) v.role_id
       LEFT JOIN otp_gateway_internal.identity AS i ON i.id OPERATOR(pg_catalog.=) v.provider_id
       WHERE v.id OPERATOR(pg_catalog.=) ANY ($1) AND r.home OPERATOR(pg_catalog.=) $2 AND r.object IS NOT NULL"

    announce(pg_sys::TEXTARRAYOID, pg_sys::TEXTARRAYOID)
      "SELECT pg_catalog.pg_notify(n.channel, n.payload)
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS n (channel, payload)"
}

/// Returns the channels of a role, one for each key: whoever asked for the name before a rotation goes on hearing.
pub fn channels(keys: &Keys, role: pg_sys::Oid) -> impl Iterator<Item = String> {
    let digests = keys.fingerprints("channel", &role.to_u32().to_string());
    digests.into_iter().map(|digest| format!("otp_gateway_{}", base16ct::lower::encode_string(&digest[..16])))
}

impl StoreTransaction<'_, '_> {
    /// Announces, at commit, the status of these verifications. Without the key file nothing is announced: whoever
    /// calls is told what is wrong with the file.
    pub fn announce(&mut self, changed: impl FnOnce() -> Vec<Uuid>) -> Result<(), Failure> {
        if !gucs::notify() {
            return Ok(());
        }
        let changed = changed();
        match key_file::keys() {
            Ok(keys) if !changed.is_empty() => self.announce_under(&keys, &changed),
            _ => Ok(()),
        }
    }

    fn announce_under(&mut self, keys: &Keys, changed: &[Uuid]) -> Result<(), Failure> {
        let statements = &self.store.announcements;
        let (mut names, mut payloads) = (Vec::new(), Vec::new());
        for row in self.client.update(&statements.select_changes, None, &[uuids(changed), number(home())])? {
            let (role, payload) = (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?.unwrap_or_default());
            for name in role.into_iter().flat_map(|role| channels(keys, role)) {
                names.push(name);
                payloads.push(payload.clone());
            }
        }
        let arguments = [names, payloads].map(|texts| argument(texts, pg_sys::TEXTARRAYOID));
        self.client.update(&self.store.announcements.announce, None, &arguments)?;
        Ok(())
    }
}
