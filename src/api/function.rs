//! The boundary to Postgres. A call is accepted only if the function is *declared* with the types that its body reads
//! and returns. The call itself says nothing of types: a function can be called by the protocol's own message, as a
//! trigger, a cast or an operator, or a superuser can declare it anew with other types, and each argument is a pointer
//! that the body would believe.

use std::ffi::{CStr, c_char};

use pgrx::{IntoDatum, pg_sys};

/// A call of a function that is declared as its body reads it.
pub struct Call {
    fcinfo: pg_sys::FunctionCallInfo,
    takes: &'static [pg_sys::Oid],
    /// How many arguments were read so far.
    read: usize,
}

impl Call {
    /// # Safety
    /// `fcinfo` is Postgres' own record of a call that is under way.
    pub unsafe fn of(
        fcinfo: pg_sys::FunctionCallInfo,
        takes: &'static [pg_sys::Oid],
        returns: pg_sys::Oid,
    ) -> Result<Self, Error> {
        // Checked first: in a database of another encoding no text could be read.
        utf8()?;
        // SAFETY: as the caller promises; C code that calls a function directly gives no flinfo.
        let fits = unsafe {
            let (count, flinfo) = ((*fcinfo).nargs, (*fcinfo).flinfo);
            usize::try_from(count) == Ok(takes.len())
                && !flinfo.is_null()
                && is_declared((*flinfo).fn_oid, takes, returns)
        };
        if fits { Ok(Self { fcinfo, takes, read: 0 }) } else { Err(declared_otherwise()) }
    }

    /// Reads the next argument.
    pub fn argument<T: Argument>(&mut self, name: &str) -> Result<T, Error> {
        assert!(self.takes.get(self.read) == Some(&T::TYPE), "arguments are read as they are declared");
        // SAFETY: there are as many arguments as `takes` has types, and this one is declared of T's.
        unsafe {
            let argument = &*(*self.fcinfo).args.as_ptr().add(self.read);
            self.read += 1;
            T::read(Unread::new((!argument.isnull).then_some(argument.value), T::TYPE), name)
        }
    }

    /// Returns the function's name in SQL, which may differ from its symbol's.
    pub fn function_name(&self) -> String {
        // SAFETY: a function whose row [`Call::of`] has found; the name is a palloc'ed copy, or null.
        unsafe {
            let name = pg_sys::get_func_name((*(*self.fcinfo).flinfo).fn_oid);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        }
    }

    /// Returns the row that the function is declared to return, with columns of these types.
    pub(super) fn returned_row(&self, types: &'static [pg_sys::Oid]) -> Result<ReturnedRow, Error> {
        // SAFETY: a call that is under way, as [`Call::of`] was promised.
        unsafe { ReturnedRow::of(self.fcinfo, types) }.ok_or_else(declared_otherwise)
    }
}

/// Fails if the texts of this database are not in UTF-8. Under pg_upgrade it does not fail: pg_upgrade carries over
/// what is there, and sends nothing.
fn utf8() -> Result<(), Error> {
    // SAFETY: variables of this session; the name is a C string.
    let (encoding, name, is_upgrade) = unsafe {
        let name = CStr::from_ptr(pg_sys::GetDatabaseEncodingName());
        (pg_sys::GetDatabaseEncoding(), name, pg_sys::IsBinaryUpgrade)
    };
    if encoding == pg_sys::pg_enc::PG_UTF8 as i32 || is_upgrade {
        return Ok(());
    }
    Err(Error::not_supported(
        format!("the encoding of this database is {}, and must be UTF8", name.to_string_lossy()),
        "Use a database of that encoding: CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8'; pg_dump and psql \
         convert what is moved there.",
    ))
}

/// Returns whether a function has exactly this declaration, and is a plain function: a window function would get its
/// arguments elsewhere.
fn is_declared(function: pg_sys::Oid, takes: &[pg_sys::Oid], returns: pg_sys::Oid) -> bool {
    const CACHE: i32 = pg_sys::SysCacheIdentifier::PROCOID as i32;
    // SAFETY: a look-up by the cache's key, released after the row is read; proargtypes has pronargs elements.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(CACHE, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return false;
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let fits = row.prokind == pg_sys::PROKIND_FUNCTION as c_char
            && !row.proretset
            && row.provariadic == pg_sys::InvalidOid
            && row.prorettype == returns
            && usize::try_from(row.pronargs) == Ok(takes.len())
            && row.proargtypes.values.as_slice(takes.len()) == takes;
        pg_sys::ReleaseSysCache(tuple);
        fits
    }
}

pub(super) fn declared_otherwise() -> Error {
    Error::not_in_prerequisite_state(
        "the function is not declared as this version of the library has it",
        "After installing a new version: ALTER EXTENSION otp_gateway UPDATE. A declaration of your own calls nothing \
        here.",
    )
}

/// The result of a SQL function, and what the frame does for functions with this result.
pub trait Returned: Sized {
    /// The type that the function must be declared to return.
    fn declared() -> pg_sys::Oid;

    /// Runs before anything else.
    fn begin() {
        emit_log::mark_statement();
    }

    /// Runs the body and returns its result as a datum; `fingerprint` is that of the call.
    fn answer(
        call: &Call,
        fingerprint: Fingerprint,
        body: impl FnOnce() -> Result<Self, Error>,
    ) -> Result<pg_sys::Datum, Error>;
}

pub fn datum<T: IntoDatum>(value: T) -> pg_sys::Datum {
    value.into_datum().unwrap_or(pg_sys::Datum::from(0))
}

macro_rules! plain {
    ($($of:ty: $type:ident),* $(,)?) => {$(
        impl Returned for $of {
            fn declared() -> pg_sys::Oid {
                pg_sys::$type
            }

            fn answer(
                _call: &Call,
                _fingerprint: Fingerprint,
                body: impl FnOnce() -> Result<Self, Error>,
            ) -> Result<pg_sys::Datum, Error> {
                segment::check()?;
                body().map(datum)
            }
        }
    )*};
}

plain! {
    bool: BOOLOID,
    pgrx::datum::Uuid: UUIDOID,
    i64: INT8OID,
    Vec<pgrx::datum::Uuid>: UUIDARRAYOID,
}

/// The result of a validator: options are checked also if the library is not preloaded.
impl Returned for () {
    fn declared() -> pg_sys::Oid {
        pg_sys::VOIDOID
    }

    fn answer(_: &Call, _: Fingerprint, body: impl FnOnce() -> Result<Self, Error>) -> Result<pg_sys::Datum, Error> {
        body().map(|()| pg_sys::Datum::from(0))
    }
}

/// The result of a function that tells a version, also if the library is not preloaded.
impl Returned for String {
    fn declared() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }

    fn begin() {}

    fn answer(_: &Call, _: Fingerprint, body: impl FnOnce() -> Result<Self, Error>) -> Result<pg_sys::Datum, Error> {
        body().map(datum)
    }
}

/// The result of a function for a view. It takes no secret, so statements that call it are logged as ever.
impl Returned for pgrx::JsonB {
    fn declared() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }

    fn begin() {}

    fn answer(_: &Call, _: Fingerprint, body: impl FnOnce() -> Result<Self, Error>) -> Result<pg_sys::Datum, Error> {
        body().map(datum)
    }
}

/// The frame of every function that [`sql_function`] makes.
///
/// # Safety
/// `fcinfo` is Postgres' own record of a call that is under way.
pub unsafe fn frame<R: Returned, B: FnOnce() -> Result<R, Error>>(
    fcinfo: pg_sys::FunctionCallInfo,
    takes: &'static [pg_sys::Oid],
    name: &str,
    read: impl FnOnce(&mut Call, &mut FingerprintBuilder) -> Result<B, Error>,
) -> pg_sys::Datum {
    R::begin();
    // SAFETY: as the caller promises.
    let answer = unsafe { Call::of(fcinfo, takes, R::declared()) }.and_then(|mut call| {
        let mut fingerprint = FingerprintBuilder::of(name);
        // A SECURITY DEFINER function calls for its owner: what that call returned is not for its caller's own call.
        fingerprint.add(Some(&current_user().to_u32().to_le_bytes()));
        let body = read(&mut call, &mut fingerprint)?;
        R::answer(&call, fingerprint.finish(), body)
    });
    answer.unwrap_or_else(|error| error.raise())
}

/// The frame of every function that [`trigger_function`] makes; `begin` runs before anything else.
///
/// # Safety
/// `fcinfo` is Postgres' own record of a call that is under way.
pub unsafe fn trigger_frame(
    fcinfo: pg_sys::FunctionCallInfo,
    begin: fn(),
    body: fn(Result<RowTrigger, NoRowTrigger>) -> Result<pg_sys::Datum, Error>,
) -> pg_sys::Datum {
    begin();
    // SAFETY: as the caller promises.
    let answer = unsafe { Call::of(fcinfo, &[], pg_sys::TRIGGEROID).and_then(|_| body(RowTrigger::of(fcinfo))) };
    answer.unwrap_or_else(|error| error.raise())
}

/// Exports a symbol in Postgres' calling convention, version 1, with its info record.
macro_rules! symbol {
    ($name:ident, $body:expr) => {
        #[pgrx::pg_guard]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            let body: fn(pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum = $body;
            body(fcinfo)
        }

        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn info() -> &'static pgrx::pg_sys::Pg_finfo_record {
                static RECORD: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &RECORD
            }
        };
    };
}
pub(crate) use symbol;

/// Defines a trigger function: its symbol, what runs first, and its body.
macro_rules! trigger_function {
    ($name:ident, $begin:expr, $body:expr) => {
        $crate::api::function::symbol!($name, |fcinfo| {
            // SAFETY: Postgres calls this symbol, with its own record of the call.
            unsafe { $crate::api::function::trigger_frame(fcinfo, $begin, $body) }
        });
    };
}
pub(crate) use trigger_function;

/// Defines a SQL function: its symbol, and the types that it takes and returns, which its declaration in SQL must have.
/// `fn otp_cancel(verification_id: Uuid) -> ResultRow { ... }` is `otp_cancel(uuid) RETURNS otp_gateway.result`; the
/// body returns a `Result`. Where one symbol serves several functions, `fn symbol[name](...)` has the name of the
/// called one.
macro_rules! sql_function {
    (fn $name:ident$([$called:ident])?($($argument:ident: $of:ty),* $(,)?) -> $returned:ty $body:block) => {
        $crate::api::function::symbol!($name, |fcinfo| {
            let read = |_call: &mut $crate::api::function::Call,
                        _fingerprint: &mut $crate::pg::fingerprint::FingerprintBuilder| {
                $(
                    let $argument: $of = _call.argument(stringify!($argument))?;
                    $crate::pg::arguments::Argument::note(&$argument, _fingerprint);
                )*
                $(let $called = _call.function_name();)?
                Ok(move || -> Result<$returned, $crate::error::Error> { $body })
            };
            let takes = &[$(<$of as $crate::pg::arguments::Argument>::TYPE),*];
            // SAFETY: Postgres calls this symbol, with its own record of the call.
            unsafe { $crate::api::function::frame::<$returned, _>(fcinfo, takes, stringify!($name), read) }
        });
    };
}
pub(crate) use sql_function;

use crate::{
    error::Error,
    hooks::emit_log,
    ipc::segment,
    pg::{
        arguments::{Argument, Unread},
        fingerprint::{Fingerprint, FingerprintBuilder},
        roles::current_user,
        row_array::ReturnedRow,
        row_trigger::{NoRowTrigger, RowTrigger},
    },
};
