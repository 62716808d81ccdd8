//! Statements, prepared once. Those that write take their rows as one array of the table's own row type: Postgres takes it
//! apart once, where an array for each column would be taken apart, stored and put together again.

pub type Statement = pgrx::spi::OwnedPreparedStatement;

/// `Statements`, one field for each: its name, the types of its parameters, its text.
macro_rules! statements {
    ($($name:ident ($($argument:expr),*) $sql:literal)*) => {
        pub struct Statements { $(pub $name: $crate::store::prepared::Statement,)* }

        impl Statements {
            pub fn prepare(client: &mut pgrx::spi::SpiClient) -> Result<Self, crate::store::transaction::Failure> {
                Ok(Self {
                    $($name: client.prepare_mut($sql, &[$(pgrx::pg_sys::PgOid::from($argument)),*])?.keep(),)*
                })
            }
        }
    };
}
pub(crate) use statements;
