//! The identities of servers and roles, as the worker writes them; and what others have attached to the tables.

use pgrx::pg_sys;

use crate::{
    pg::row_array,
    pg::values::{number, numbers},
    store::{
        StoreTransaction,
        columns::identity,
        identity::{Identity, Kind, Subject, home},
        prepared::statements,
        transaction::Failure,
    },
};

statements! {
    insert_identities(row_array::rows_of(c"identity"))
      "INSERT INTO otp_gateway_internal.identity SELECT n.* FROM pg_catalog.unnest($1) AS n"

    select_foreign_triggers_and_grants()
      "WITH ours AS (
           SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_catalog.pg_class AS c
           JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
           WHERE n.nspname OPERATOR(pg_catalog.=) 'otp_gateway_internal' AND c.relkind OPERATOR(pg_catalog.=) 'r'
       )
       SELECT pg_catalog.format('trigger %I on %I', t.tgname, o.relname) FROM pg_catalog.pg_trigger AS t
       JOIN ours AS o ON o.oid OPERATOR(pg_catalog.=) t.tgrelid
       JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
       JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
       WHERE NOT t.tgisinternal AND n.nspname OPERATOR(pg_catalog.<>) 'otp_gateway_internal'
       UNION ALL
       SELECT pg_catalog.format('foreign key %I of %s on %I', k.conname, k.conrelid::pg_catalog.regclass, o.relname)
       FROM pg_catalog.pg_constraint AS k JOIN ours AS o ON o.oid OPERATOR(pg_catalog.=) k.confrelid
       UNION ALL
       SELECT pg_catalog.format('%s on %I to %s', pg_catalog.string_agg(a.privilege_type, ', '), o.relname,
                                CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                                     ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
       FROM ours AS o CROSS JOIN LATERAL pg_catalog.aclexplode(o.relacl) AS a
       WHERE a.grantee OPERATOR(pg_catalog.<>) o.relowner GROUP BY o.relname, a.grantee"

    select_identities(pg_sys::INT8OID)
      "SELECT id, kind, object FROM otp_gateway_internal.identity
       WHERE home OPERATOR(pg_catalog.=) $1 AND object IS NOT NULL ORDER BY id"

    select_missing_identities(pg_sys::INT8ARRAYOID)
      "SELECT i.id FROM otp_gateway_internal.identity AS i WHERE i.id OPERATOR(pg_catalog.=) ANY ($1) AND CASE i.kind
             WHEN 'server' THEN NOT EXISTS (
                 SELECT FROM pg_catalog.pg_foreign_server AS s WHERE s.oid OPERATOR(pg_catalog.=) i.object)
             ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) i.object) END"

    // For rows that no restored dump has brought, but pg_upgrade or logical replication.
    find_servers(pg_sys::INT8OID)
      "UPDATE otp_gateway_internal.identity AS i
       SET home = $1, object = CASE WHEN i.object IS NOT NULL THEN (
               SELECT s.oid FROM pg_catalog.pg_foreign_server AS s
               JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
               WHERE s.srvname::pg_catalog.text OPERATOR(pg_catalog.=) i.name
                 AND w.fdwname::pg_catalog.text OPERATOR(pg_catalog.=) ('otp_' OPERATOR(pg_catalog.||) i.vendor)
           ) END
       WHERE i.home OPERATOR(pg_catalog.<>) $1 AND i.kind OPERATOR(pg_catalog.=) 'server'"

    find_roles(pg_sys::INT8OID)
      "UPDATE otp_gateway_internal.identity AS i
       SET home = $1, object = CASE WHEN i.object IS NOT NULL THEN (
               SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname::pg_catalog.text OPERATOR(pg_catalog.=) i.name
           ) END
       WHERE i.home OPERATOR(pg_catalog.<>) $1 AND i.kind OPERATOR(pg_catalog.=) 'role'"

    name_servers()
      "UPDATE otp_gateway_internal.identity AS i SET name = s.srvname::pg_catalog.text
       FROM pg_catalog.pg_foreign_server AS s
       WHERE i.kind OPERATOR(pg_catalog.=) 'server' AND s.oid OPERATOR(pg_catalog.=) i.object
         AND i.name OPERATOR(pg_catalog.<>) s.srvname::pg_catalog.text"

    name_roles()
      "UPDATE otp_gateway_internal.identity AS i SET name = r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
       WHERE i.kind OPERATOR(pg_catalog.=) 'role' AND r.oid OPERATOR(pg_catalog.=) i.object
         AND i.name OPERATOR(pg_catalog.<>) r.rolname::pg_catalog.text"

    // The object is forgotten because its OID may come round again, and is another object's then.
    drop_identities(pg_sys::INT8ARRAYOID)
      "UPDATE otp_gateway_internal.identity AS i SET object = NULL
       WHERE i.object IS NOT NULL AND NOT i.id OPERATOR(pg_catalog.=) ANY ($1) AND CASE i.kind
             WHEN 'server' THEN NOT EXISTS (
                 SELECT FROM pg_catalog.pg_foreign_server AS s WHERE s.oid OPERATOR(pg_catalog.=) i.object)
             ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) i.object) END"
}

impl StoreTransaction<'_, '_> {
    pub fn insert_identities(&mut self, rows: &[(Identity, Subject)]) -> Result<(), Failure> {
        self.run(&self.store.identities.insert_identities, &self.store.identity, rows, |(id, subject), columns| {
            columns.bigint(identity::ID, Some(*id));
            columns.text(identity::KIND, Some(subject.kind.as_str()));
            columns.oid(identity::OBJECT, subject.object);
            columns.bigint(identity::HOME, Some(home()));
            columns.text(identity::NAME, Some(&subject.name));
            columns.text(identity::VENDOR, subject.vendor.as_deref());
        })
    }

    /// Returns the triggers, foreign keys and rights on the tables that are not the extension's own.
    pub fn foreign_triggers_and_grants(&mut self) -> Result<Vec<String>, Failure> {
        let table = self.client.update(&self.store.identities.select_foreign_triggers_and_grants, None, &[])?;
        table.map(|row| Ok(row.get::<String>(1)?.unwrap_or_default())).collect()
    }

    /// Returns all identities that have an object here, in the order of their numbers.
    pub fn identities(&mut self) -> Result<Vec<(Identity, Kind, u32)>, Failure> {
        let arguments = [number(home())];
        let table = self.client.update(&self.store.identities.select_identities, None, &arguments)?;
        let rows = table.map(|row| {
            let kind = row.get::<String>(2)?.and_then(|label| Kind::from_label(&label));
            let object = row.get::<pg_sys::Oid>(3)?.map(|object| object.to_u32());
            Ok::<_, Failure>((row.get::<Identity>(1)?, kind, object))
        });
        rows.map(|row| row.map(|(id, kind, object)| Some((id?, kind?, object?))))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Returns those of these identities whose server or role does not exist: not yet, or no more.
    pub fn missing_identities(&mut self, ids: &[Identity]) -> Result<Vec<Identity>, Failure> {
        let table = self.client.update(&self.store.identities.select_missing_identities, None, &[numbers(ids)])?;
        table.map(|row| Ok(row.get::<Identity>(1)?.unwrap_or(0))).collect()
    }

    /// Updates what is known of servers and roles: those that another cluster wrote are found by name, all get their
    /// present name, and those that are gone lose their object. The `new` ones keep theirs: an open transaction may be
    /// making it.
    pub fn update_identities(&mut self, new: &[Identity]) -> Result<(), Failure> {
        let statements = &self.store.identities;
        for find in [&statements.find_servers, &statements.find_roles] {
            self.client.update(find, None, &[number(home())])?;
        }
        for name in [&statements.name_servers, &statements.name_roles] {
            self.client.update(name, None, &[])?;
        }
        self.client.update(&statements.drop_identities, None, &[numbers(new)])?;
        Ok(())
    }
}
