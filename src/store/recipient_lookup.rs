//! Finding a recipient's verifications without storing the recipient: by keys that the caller never sees, and in a time
//! that does not tell of the rows of others. Not by SQL: to plan the view costs ten times what there is to read.

use std::{cmp::Reverse, collections::HashMap};

use pgrx::pg_sys;
use policy::Timestamp;
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{
        foreign_servers,
        roles::{current_user, has_privileges_of, name_of, reads_all_data},
        row::Row,
        scan::Key,
    },
    store::{
        columns::{identity, verification as column},
        identity::{Identity, Kind, home},
        scan::scan_as_statement,
    },
};

/// A verification as the view otp_gateway.verification shows it.
pub struct ShownVerification {
    pub id: Uuid,
    pub provider: Option<String>,
    pub vendor: Option<String>,
    pub status: Option<String>,
    pub recipient_masked: Option<String>,
    pub reference: Option<String>,
    pub created_by: String,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub approved_at: Option<Timestamp>,
    pub send_count: Option<i32>,
    pub check_count: Option<i32>,
    pub max_checks: Option<i32>,
    pub is_test: bool,
    pub route: Option<String>,
}

/// Whom the caller acts for, as the view has it, and what servers and roles are called.
struct Reader {
    /// All is shown to them.
    reads_all: bool,
    /// The servers that are asked about, of which the caller owns each; or the one that is named, whoever owns it.
    servers: Vec<Identity>,
    owns_named: bool,
    /// The roles whose rights they have.
    roles: Vec<Identity>,
    names: HashMap<Identity, String>,
}

impl Reader {
    /// `named`: the provider or route that is asked about; None: wherever.
    fn of(named: Option<pg_sys::Oid>) -> Result<Self, Error> {
        let user = current_user();
        let owns =
            |server: pg_sys::Oid| foreign_servers::owner_of(server).is_some_and(|owner| has_privileges_of(user, owner));
        // Of a role that was dropped nobody has the rights.
        let acts_for = |role: pg_sys::Oid| has_privileges_of(user, role) && name_of(role).is_some();
        let mut reader = Self {
            reads_all: reads_all_data(user),
            servers: Vec::new(),
            owns_named: named.is_some_and(owns),
            roles: Vec::new(),
            names: HashMap::new(),
        };
        scan_as_statement(c"identity", None, [], |row| {
            let Some(id) = row.get::<Identity>(identity::ID) else { return };
            let object = row.get::<pg_sys::Oid>(identity::OBJECT);
            if let Some(object) = object.filter(|_| row.get::<i64>(identity::HOME) == Some(home())) {
                match row.get::<String>(identity::KIND).and_then(|kind| Kind::from_label(&kind)) {
                    Some(Kind::Server) if named.map_or_else(|| owns(object), |named| named == object) => {
                        reader.servers.push(id);
                    }
                    Some(Kind::Role) if acts_for(object) => reader.roles.push(id),
                    _ => {}
                }
            }
            reader.names.extend(row.get::<String>(identity::NAME).map(|name| (id, name)));
        })?;
        Ok(reader)
    }

    /// What it is called now, or was last; else what it was called then.
    fn name(&self, row: Row, id: usize, then: usize) -> Option<String> {
        let now = row.get::<Identity>(id).and_then(|id| self.names.get(&id).cloned());
        now.or_else(|| row.get(then))
    }

    fn shown(&self, row: Row) -> Option<ShownVerification> {
        let role = row.get::<Identity>(column::ROLE_ID).and_then(|id| self.names.get(&id).cloned());
        Some(ShownVerification {
            id: row.uuid(column::ID)?,
            provider: self.name(row, column::PROVIDER_ID, column::PROVIDER),
            vendor: row.get(column::VENDOR),
            status: row.get(column::STATUS),
            recipient_masked: row.get(column::RECIPIENT_MASKED),
            reference: row.get(column::REFERENCE),
            created_by: role.or_else(|| row.name(column::CREATED_BY)).unwrap_or_default(),
            created_at: row.time(column::CREATED_AT),
            expires_at: row.time(column::EXPIRES_AT),
            approved_at: row.time(column::APPROVED_AT),
            send_count: row.get(column::SEND_COUNT),
            check_count: row.get(column::CHECK_COUNT),
            max_checks: row.get(column::MAX_CHECKS),
            is_test: row.get(column::IS_TEST).unwrap_or(false),
            route: self.name(row, column::ROUTE_ID, column::ROUTE),
        })
    }

    fn is_at_servers(&self, row: Row) -> bool {
        let is_one = |id: usize| row.get::<Identity>(id).is_some_and(|id| self.servers.contains(&id));
        is_one(column::PROVIDER_ID) || is_one(column::ROUTE_ID)
    }
}

/// The verifications of a recipient at a provider or route, or wherever, of those that the caller may see, the newest
/// first.
pub fn visible_verifications(
    named: Option<pg_sys::Oid>,
    recipient_keys: &[Vec<u8>],
) -> Result<Vec<ShownVerification>, Error> {
    let reader = Reader::of(named)?;
    let mut found: Vec<ShownVerification> = Vec::new();
    const INDEX: Option<&std::ffi::CStr> = Some(c"verification_recipient_key_idx");
    for key in recipient_keys {
        let of_recipient = || Key::Bytea(column::RECIPIENT_KEY, key);
        // Of whomever, where all that is found is shown: wherever, or at the caller's own servers, or the one named.
        if reader.reads_all || reader.owns_named || named.is_none() && !reader.servers.is_empty() {
            let sees_all = reader.reads_all && named.is_none();
            scan_as_statement(c"verification_record", INDEX, [of_recipient()], |row| {
                found.extend(
                    Some(row).filter(|row| sees_all || reader.is_at_servers(*row)).and_then(|row| reader.shown(row)),
                );
            })?;
        }
        if reader.reads_all || reader.owns_named {
            continue;
        }
        // By the index, in which the roles come before the provider: rows of others are not even passed.
        for role in &reader.roles {
            let keys = [of_recipient(), Key::Bigint(column::ROLE_ID, *role)];
            scan_as_statement(c"verification_record", INDEX, keys, |row| {
                let is_asked_for = named.is_none() || reader.is_at_servers(row);
                found.extend(Some(row).filter(|_| is_asked_for).and_then(|row| reader.shown(row)));
            })?;
        }
    }
    found.sort_unstable_by_key(|one| Reverse(one.id));
    found.dedup_by_key(|one| one.id);
    Ok(found)
}
