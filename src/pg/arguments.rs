//! Reads the arguments of a SQL function. Errors name the argument and never its value.

use std::ffi::CStr;

use dialect::Secret;
use pgrx::{FromDatum, PgList, pg_sys};
use policy::Micros;
use uuid::Uuid;

use crate::{
    error::Error,
    pg::{fingerprint::FingerprintBuilder, foreign_servers},
};

/// An argument of a known type that is not read yet.
pub struct Unread {
    datum: Option<pg_sys::Datum>,
    of: pg_sys::Oid,
}

impl Unread {
    /// # Safety
    /// The datum is of this type, and lives as long as the statement runs; None stands for NULL.
    pub unsafe fn new(datum: Option<pg_sys::Datum>, of: pg_sys::Oid) -> Self {
        Self { datum, of }
    }

    pub fn is_null(&self) -> bool {
        self.datum.is_none()
    }

    fn of(&self, of: pg_sys::Oid) -> Option<pg_sys::Datum> {
        assert!(self.of == of, "an argument is read as it is declared");
        self.datum
    }

    /// Returns how many bytes a text or a jsonb has before it is unpacked; 0 for NULL.
    pub fn size(&self) -> usize {
        let Some(datum) = self.datum else { return 0 };
        assert!([pg_sys::TEXTOID, pg_sys::JSONBOID].contains(&self.of), "a text or a jsonb has a size");
        // SAFETY: a value of variable length, as new() was promised.
        unsafe { pg_sys::toast_raw_datum_size(datum) }
    }

    fn text(&self) -> Option<&[u8]> {
        // SAFETY: a text, as new() was promised; a copy where it is packed.
        self.of(pg_sys::TEXTOID).map(|datum| unsafe {
            let varlena = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            pgrx::varlena_to_byte_slice(varlena)
        })
    }

    /// Returns a jsonb as text.
    pub fn json(&self) -> Option<&CStr> {
        let datum = self.of(pg_sys::JSONBOID)?;
        // SAFETY: a jsonb, as new() was promised; what is returned is a copy.
        unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)]) }
    }

    fn uuid(&self) -> Option<Uuid> {
        // SAFETY: a uuid, as new() was promised: sixteen bytes by reference.
        self.of(pg_sys::UUIDOID).map(|datum| Uuid::from_bytes(unsafe { datum.cast_mut_ptr::<[u8; 16]>().read() }))
    }

    fn interval(&self) -> Option<pg_sys::Interval> {
        // SAFETY: an interval, as new() was promised, by reference.
        self.of(pg_sys::INTERVALOID).map(|datum| unsafe { datum.cast_mut_ptr::<pg_sys::Interval>().read() })
    }

    fn integer(&self) -> Option<i32> {
        let datum = self.of(pg_sys::INT4OID)?;
        // SAFETY: an integer, as new() was promised: a number by value.
        unsafe { i32::from_datum(datum, false) }
    }

    fn oid(&self) -> Option<pg_sys::Oid> {
        let datum = self.of(pg_sys::OIDOID)?;
        // SAFETY: an oid, as new() was promised: a number by value.
        unsafe { pg_sys::Oid::from_datum(datum, false) }
    }

    /// Reads a text[] of `name=value`. For an element that is NULL, Postgres raises an error; Err: an element has no
    /// value.
    pub fn options(&self) -> Option<Result<Vec<(String, String)>, ()>> {
        let datum = self.of(pg_sys::TEXTARRAYOID)?;
        // SAFETY: a text[], as new() was promised; a list of DefElem, each with a text or none. Elements without a
        // value are looked for first: the error that Postgres itself raises for such an element quotes its name.
        Some(unsafe {
            let list = pg_sys::untransformRelOptions(datum);
            let have_values = PgList::<pg_sys::DefElem>::from_pg(list).iter_ptr().all(|one| !(*one).arg.is_null());
            if have_values { Ok(foreign_servers::options(list)) } else { Err(()) }
        })
    }
}

/// A value that a function takes.
pub trait Argument: Sized {
    /// The type that the function declares for the argument.
    const TYPE: pg_sys::Oid;

    fn read(value: Unread, name: &str) -> Result<Self, Error>;

    /// Adds the value to the fingerprint of the call.
    fn note(&self, fingerprint: &mut FingerprintBuilder);
}

/// A time span in microseconds, not negative. A month counts as 30 days.
pub struct Interval(pub Micros);

impl Argument for String {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        let null = || Error::invalid_parameter(format!("{name} is null"), format!("Give {name} a value."));
        let bytes = value.text().ok_or_else(null)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
            Error::invalid_parameter(
                format!("{name} is not UTF-8"),
                "otp_gateway takes text in UTF-8: use a database of that encoding.",
            )
        })
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        fingerprint.add(Some(self.as_bytes()));
    }
}

/// An argument that may be null.
impl<T: Argument> Argument for Option<T> {
    const TYPE: pg_sys::Oid = T::TYPE;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        if value.is_null() { Ok(None) } else { T::read(value, name).map(Some) }
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        match self {
            Some(value) => value.note(fingerprint),
            None => fingerprint.add(None),
        }
    }
}

impl Argument for Secret {
    const TYPE: pg_sys::Oid = pg_sys::TEXTOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        String::read(value, name).map(Secret::new)
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        fingerprint.add(Some(self.reveal().as_bytes()));
    }
}

impl Argument for Uuid {
    const TYPE: pg_sys::Oid = pg_sys::UUIDOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        value.uuid().ok_or_else(|| {
            Error::invalid_parameter(format!("{name} is null"), "Give the verification_id that otp_send returned.")
        })
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        fingerprint.add(Some(self.as_bytes()));
    }
}

impl Argument for Interval {
    const TYPE: pg_sys::Oid = pg_sys::INTERVALOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        let refuse =
            |what: &str| Error::invalid_parameter(format!("{name} {what}"), format!("For example: {name} => '5s'."));
        let interval = value.interval().ok_or_else(|| refuse("is null"))?;
        const DAY: i64 = 86_400_000_000;
        let days = i64::from(interval.month) * 30 + i64::from(interval.day);
        let micros = days.saturating_mul(DAY).saturating_add(interval.time);
        if micros < 0 { Err(refuse("is negative")) } else { Ok(Self(micros)) }
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        fingerprint.add(Some(&self.0.to_le_bytes()));
    }
}

impl Argument for i32 {
    const TYPE: pg_sys::Oid = pg_sys::INT4OID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        let null = || Error::invalid_parameter(format!("{name} is null"), format!("Give {name} a value."));
        value.integer().ok_or_else(null)
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        fingerprint.add(Some(&self.to_le_bytes()));
    }
}

impl Argument for pg_sys::Oid {
    const TYPE: pg_sys::Oid = pg_sys::OIDOID;

    fn read(value: Unread, name: &str) -> Result<Self, Error> {
        let null = || Error::invalid_parameter(format!("{name} is null"), format!("Give {name} a value."));
        value.oid().ok_or_else(null)
    }

    fn note(&self, fingerprint: &mut FingerprintBuilder) {
        fingerprint.add(Some(&self.to_u32().to_le_bytes()));
    }
}
