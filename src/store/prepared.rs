//! Statements, prepared once. Those that write take their rows as one array of the table's own row type: Postgres takes
//! it apart once, where an array for each column would be taken apart, stored and put together again.

use std::borrow::Cow;

use dialect::Outcome;
use policy::{Status, counts_as_sent, may_have_compared};

pub type Statement = pgrx::spi::OwnedPreparedStatement;

/// The text with the policy's rules in it: `{terminal}` statuses, outcomes of a send that count as `{sent}`, and those
/// of a check that is certainly `{uncompared}`.
pub fn with_rules(sql: &'static str) -> Cow<'static, str> {
    if !sql.contains('{') {
        return Cow::Borrowed(sql);
    }
    let list = |labels: &mut dyn Iterator<Item = &'static str>| {
        labels.map(|label| format!("'{label}'")).collect::<Vec<_>>().join(", ")
    };
    let outcomes = |counts: fn(Outcome) -> bool| {
        list(&mut Outcome::ALL.into_iter().filter(move |outcome| counts(*outcome)).map(Outcome::as_str))
    };
    let terminal = list(&mut Status::ALL.into_iter().filter(|status| status.is_terminal()).map(Status::as_str));
    let text = sql.replace("{terminal}", &terminal).replace("{sent}", &outcomes(counts_as_sent));
    Cow::Owned(text.replace("{uncompared}", &outcomes(|outcome| !may_have_compared(outcome))))
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
