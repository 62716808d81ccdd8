//! Statements, prepared once.

use std::borrow::Cow;

use dialect::Outcome;
use policy::{Status, counts_as_sent};

pub type Statement = pgrx::spi::OwnedPreparedStatement;

/// The text with the policy's rules in it: `{terminal}` statuses, and outcomes of a send that count as `{sent}`.
pub fn with_rules(sql: &'static str) -> Cow<'static, str> {
    if !sql.contains('{') {
        return Cow::Borrowed(sql);
    }
    let list = |labels: &mut dyn Iterator<Item = &'static str>| {
        labels.map(|label| format!("'{label}'")).collect::<Vec<_>>().join(", ")
    };
    let terminal = list(&mut Status::ALL.into_iter().filter(|status| status.is_terminal()).map(Status::as_str));
    let sent = list(&mut Outcome::ALL.into_iter().filter(|outcome| counts_as_sent(*outcome)).map(Outcome::as_str));
    Cow::Owned(sql.replace("{terminal}", &terminal).replace("{sent}", &sent))
}

/// Defines `Statements`, with a field for each statement: its name, the types of its parameters, its text.
macro_rules! statements {
    ($($name:ident ($($argument:expr),*) $sql:literal)*) => {
        pub struct Statements { $(pub $name: $crate::store::prepared::Statement,)* }

        impl Statements {
            pub fn prepare(client: &mut pgrx::spi::SpiClient) -> Result<Self, crate::store::transaction::Failure> {
                Ok(Self {
                    $($name: client.prepare_mut(
                        &*$crate::store::prepared::with_rules($sql),
                        &[$(pgrx::pg_sys::PgOid::from($argument)),*],
                    )?.keep(),)*
                })
            }
        }
    };
}
pub(crate) use statements;
