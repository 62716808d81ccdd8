//! Finds who has the record locked against its writers, without waiting for anybody.

use pgrx::{Spi, spi::SpiError};
use policy::Micros;

use crate::error::Error;

/// Selects the holders of locks on our tables or indexes that conflict with ROW EXCLUSIVE, and those who wait for such
/// a lock, behind whom all others wait. It runs with the caller's rights, since not everybody may see when another's
/// transaction began; and in the caller's search_path, so that each operator stands with its schema, and there is no
/// `IN`.
const SELECT: &str = "
    WITH ours AS (
        SELECT c.oid, c.relname FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) 'otp_gateway_internal'
    ), locks AS (
        SELECT l.pid, l.virtualtransaction AS holder, l.granted,
            pg_catalog.string_agg(DISTINCT l.mode, ', ') AS modes,
            pg_catalog.string_agg(DISTINCT o.relname::pg_catalog.text, ', ') AS tables
        FROM pg_catalog.pg_locks AS l JOIN ours AS o ON o.oid OPERATOR(pg_catalog.=) l.relation
        WHERE l.locktype OPERATOR(pg_catalog.=) 'relation'
            AND l.database OPERATOR(pg_catalog.=) (
                SELECT d.oid FROM pg_catalog.pg_database AS d
                WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
            )
            AND l.mode OPERATOR(pg_catalog.=) ANY (ARRAY[
                'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'
            ]::pg_catalog.text[])
        GROUP BY l.pid, l.virtualtransaction, l.granted
    )
    SELECT l.pid, l.granted, l.modes, l.tables, p.gid,
        (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()
            OPERATOR(pg_catalog.-) coalesce(a.xact_start, p.prepared)) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
        l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
    FROM locks AS l
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    LEFT JOIN (
        pg_catalog.pg_prepared_xacts AS p
        JOIN pg_catalog.pg_locks AS own ON own.transactionid OPERATOR(pg_catalog.=) p.transaction AND own.pid IS NULL
    ) ON l.pid IS NULL AND own.virtualtransaction OPERATOR(pg_catalog.=) l.holder
    ORDER BY l.granted DESC, 6 DESC";

/// Selects whether the caller may look. Everybody may, unless somebody has taken that from PUBLIC.
const MAY_LOOK: &str = "
    SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(view.name, 'SELECT'))
    FROM (VALUES ('pg_catalog.pg_locks'), ('pg_catalog.pg_stat_activity'), ('pg_catalog.pg_prepared_xacts'))
        AS view (name)";

/// Somebody who has such a lock, or waits for one.
pub struct LockHolder {
    /// None for a prepared transaction.
    pub pid: Option<i32>,
    /// The name of the prepared transaction.
    pub prepared: Option<String>,
    /// Whether the lock is held; else it is waited for.
    pub is_granted: bool,
    /// The lock's modes, as pg_locks names them.
    pub modes: String,
    pub tables: String,
    /// How long ago the holder's transaction began, in microseconds. None: the caller may not see that.
    pub since: Option<Micros>,
    /// Whether the holder is the caller.
    pub is_own: bool,
}

/// Returns the holders; None if the caller may not look.
pub fn holders() -> Result<Option<Vec<LockHolder>>, Error> {
    let found: Result<Option<Vec<LockHolder>>, SpiError> = Spi::connect(|client| {
        if client.select(MAY_LOOK, Some(1), &[])?.first().get::<bool>(1)? != Some(true) {
            return Ok(None);
        }
        let rows = client.select(SELECT, None, &[])?;
        rows.map(|row| {
            Ok(LockHolder {
                pid: row.get(1)?,
                is_granted: row.get(2)?.unwrap_or(false),
                modes: row.get(3)?.unwrap_or_default(),
                tables: row.get(4)?.unwrap_or_default(),
                prepared: row.get(5)?,
                since: row.get(6)?,
                is_own: row.get(7)?.unwrap_or(false),
            })
        })
        .collect::<Result<_, _>>()
        .map(Some)
    });
    found.map_err(|error| Error::internal(format!("pg_locks could not be read: {error}"), "Report it."))
}
