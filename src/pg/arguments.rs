//! The arguments of a SQL function, read with errors that name the argument and never its value.

use dialect::Secret;
use pgrx::{FromDatum, pg_sys};
use policy::Micros;
use uuid::Uuid;

use crate::{error::Error, pg::fingerprint::FingerprintBuilder};

/// A value that a function takes.
pub trait Argument: Sized {
    /// As what it is declared.
    const TYPE: pg_sys::Oid;

    /// # Safety
    /// The datum is of this type; none: null.
    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error>;

    /// Into the fingerprint of the call.
    fn note(&self, print: &mut FingerprintBuilder);
}

/// A time span in microseconds, months taken for 30 days; not negative.
pub struct Interval(pub Micros);

impl Argument for String {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        let null = || Error::invalid_parameter(format!("{name} is null"), format!("Give {name} a value."));
        let datum = datum.ok_or_else(null)?;
        // SAFETY: as the caller promises, text.
        let bytes = unsafe {
            let varlena = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            pgrx::varlena_to_byte_slice(varlena)
        };
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
            Error::invalid_parameter(
                format!("{name} is not UTF-8"),
                "otp_gateway takes text in UTF-8: use a database of that encoding.",
            )
        })
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        print.add(Some(self.as_bytes()));
    }
}

/// One that may be null.
impl<T: Argument> Argument for Option<T> {
    const TYPE: pg_sys::Oid = T::TYPE;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        // SAFETY: as the caller promises.
        datum.map(|datum| unsafe { T::read(Some(datum), name) }).transpose()
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        match self {
            Some(value) => value.note(print),
            None => print.add(None),
        }
    }
}

impl Argument for Secret {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        // SAFETY: as the caller promises.
        unsafe { String::read(datum, name) }.map(Secret::new)
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        print.add(Some(self.reveal().as_bytes()));
    }
}

impl Argument for Uuid {
    const TYPE: pg_sys::Oid = pg_sys::UUIDOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        let datum = datum.ok_or_else(|| {
            Error::invalid_parameter(format!("{name} is null"), "Give the verification_id that otp_send returned.")
        })?;
        // SAFETY: as the caller promises, a uuid: sixteen bytes by reference.
        Ok(Self::from_bytes(unsafe { datum.cast_mut_ptr::<[u8; 16]>().read() }))
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        print.add(Some(self.as_bytes()));
    }
}

impl Argument for Interval {
    const TYPE: pg_sys::Oid = pg_sys::INTERVALOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        let refuse = |what: &str| {
            Error::invalid_parameter(
                format!("{name} {what}"),
                format!(
                    "For example: {name} => \
        '5s'."
                ),
            )
        };
        let datum = datum.ok_or_else(|| refuse("is null"))?;
        // SAFETY: as the caller promises, an interval, by reference.
        let interval = unsafe { &*datum.cast_mut_ptr::<pg_sys::Interval>() };
        const DAY: i64 = 86_400_000_000;
        let days = i64::from(interval.month) * 30 + i64::from(interval.day);
        let micros = days.saturating_mul(DAY).saturating_add(interval.time);
        if micros < 0 { Err(refuse("is negative")) } else { Ok(Self(micros)) }
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        print.add(Some(&self.0.to_le_bytes()));
    }
}

impl Argument for i32 {
    const TYPE: pg_sys::Oid = pg_sys::INT4OID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        let null = || Error::invalid_parameter(format!("{name} is null"), format!("Give {name} a value."));
        // SAFETY: as the caller promises, an integer: a number by value.
        unsafe { Self::from_datum(datum.ok_or_else(null)?, false) }.ok_or_else(null)
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        print.add(Some(&self.to_le_bytes()));
    }
}

impl Argument for pg_sys::Oid {
    const TYPE: pg_sys::Oid = pg_sys::OIDOID;

    unsafe fn read(datum: Option<pg_sys::Datum>, name: &str) -> Result<Self, Error> {
        let datum = datum.ok_or_else(|| {
            Error::invalid_parameter(
                format!("{name} is null"),
                format!(
                    "Give {name} a \
        value."
                ),
            )
        })?;
        // SAFETY: as the caller promises, an oid: a number by value.
        let oid = unsafe { pg_sys::Oid::from_datum(datum, false) };
        Ok(oid.unwrap_or(pg_sys::InvalidOid))
    }

    fn note(&self, print: &mut FingerprintBuilder) {
        print.add(Some(&self.to_u32().to_le_bytes()));
    }
}
