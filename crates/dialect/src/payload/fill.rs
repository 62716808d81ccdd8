use serde_json::{Map, Value};

use crate::{
    call::{Call, FindBy, HttpRequest, Prepared},
    dialect::Dialect,
    operation::Operation,
    payload::{
        email_address::EmailAddress,
        extra,
        field::{AnyField, Invalid, plain},
        phone_number::{NumberingPlan, PhoneNumber},
        rule::{Rule, twice},
        suggest::nearest,
    },
    redact,
    secret::{Private, Secret},
};

/// The values for one call's table of fields, from payload, verification and defaults, in this order of weight.
pub(crate) struct FilledPayload<'a> {
    dialect: &'a Dialect,
    call: &'a Call<'a>,
    table: &'a [AnyField<'a>],
    /// The values under our names, in the form in which they are sent.
    values: Private<Map<String, Value>>,
    /// The values that the caller gave with this call.
    given: Private<Map<String, Value>>,
}

impl<'a> FilledPayload<'a> {
    /// Fills the table. `what` names the call in messages: `a verify of otp_type 1`.
    pub(crate) fn new(
        dialect: &'a Dialect,
        call: &'a Call<'a>,
        table: &'a [AnyField<'a>],
        what: &str,
    ) -> Result<Self, Invalid> {
        Self::checked(dialect, call, table, what, |_, _| {})
    }

    /// Fills the table as [`Self::new`] does; `together` adds the faults of fields that depend on each other.
    pub(crate) fn checked(
        dialect: &'a Dialect,
        call: &'a Call<'a>,
        table: &'a [AnyField<'a>],
        what: &str,
        together: impl FnOnce(&Self, &mut Vec<Invalid>),
    ) -> Result<Self, Invalid> {
        let (filled, mut faults) = Self::gather(dialect, call, table, what);
        together(&filled, &mut faults);
        Invalid::all(faults)?;
        Ok(filled)
    }

    /// Fills the table as far as it goes, and returns all that is wrong.
    pub(crate) fn gather(
        dialect: &'a Dialect,
        call: &'a Call<'a>,
        table: &'a [AnyField<'a>],
        what: &str,
    ) -> (Self, Vec<Invalid>) {
        let what = format!("{what} through {}", dialect.name);
        let strays: Vec<&String> =
            call.payload.keys().filter(|key| !table.iter().any(|field| field.is_called(key))).collect();
        let mut faults: Vec<Invalid> = strays.iter().map(|key| unknown_field(dialect, table, &what, key)).collect();
        let spellings = || table.iter().flat_map(|field| [field.name, field.wire]);
        // A misspelt field is not reported as missing, too.
        let is_meant = |field: &AnyField| {
            strays.iter().filter_map(|key| nearest(key, spellings())).any(|spelling| field.is_called(spelling))
        };
        let mut filled = Self { dialect, call, table, values: Private::default(), given: Private::default() };
        for field in table {
            match filled.value_of(dialect, field) {
                Ok(Some(value)) => drop(filled.values.insert(field.name.into(), value)),
                Ok(None) if field.required && is_meant(field) => {}
                Ok(None) if field.required => faults.push(Invalid::missing(field, &what)),
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
        faults.extend(extra::faults(dialect, table, "extra", filled.get("extra")));
        (filled, faults)
    }

    /// Returns a field's value from the payload, the verification or the defaults.
    fn value_of(&mut self, dialect: &Dialect, field: &AnyField) -> Result<Option<Value>, Invalid> {
        let call = self.call;
        let given = find(call.payload, field)?.map(|value| field.rule.normalise(field.name, value)).transpose()?;
        // A reference that the vendor gave is passed on as it is, whatever the page says of a reference's form.
        let known = call.retained_before.get(field.name).filter(|value| !value.is_null() && !field.once);
        let known = known.map(|value| field.rule.normalise(field.name, value).unwrap_or_else(|_| value.clone()));
        if field.fixed && known.is_some() && given.is_some() && given != known {
            return Err(Invalid::of_fields(
                field.name,
                format!("{} belongs to the verification and cannot change", field.name),
                "leave it out",
            ));
        }
        let is_extra = matches!(field.rule, Rule::Extra);
        let given = if is_extra { over(known.as_ref(), given) } else { given };
        if let Some(value) = &given {
            self.given.insert(field.name.into(), value.clone());
        }
        match given.or(known) {
            Some(value) if !is_extra => Ok(Some(value)),
            value => {
                let default = default_of(dialect, call.defaults, field)?;
                Ok(over(default.as_ref(), value))
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Gives a field without a value its documented default.
    pub(crate) fn or_default(&mut self, name: &str, value: impl Into<Value>) {
        if !self.values.contains_key(name) {
            self.values.insert(name.into(), value.into());
        }
    }

    /// Removes a field's value if it comes from the option `defaults`, where that default is not for this call.
    pub(crate) fn drop_default(&mut self, name: &str) {
        if self.is_default(name) {
            self.values.shift_remove(name);
        }
    }

    /// Returns whether neither this call nor the verification gave the field, so that a value is of the option
    /// `defaults`.
    pub(crate) fn is_default(&self, name: &str) -> bool {
        !self.given.contains_key(name) && !self.call.retained_before.contains_key(name)
    }

    /// Writes the named fields, those that have a value, under the vendor's names and in this order.
    pub(crate) fn write(&self, body: &mut Map<String, Value>, names: &[&str]) {
        for name in names {
            let field = self.table.iter().find(|field| field.name == *name);
            if let (Some(field), Some(value)) = (field, self.values.get(*name)) {
                body.insert(field.wire.into(), value.clone());
            }
        }
    }

    /// Adds the members of `extra` to a body that is complete otherwise.
    pub(crate) fn lay_extra(&self, body: &mut Map<String, Value>) -> Result<(), Invalid> {
        self.get("extra").and_then(Value::as_object).map_or(Ok(()), |members| extra::lay(body, "extra", members))
    }

    /// Returns the number that the code goes to, from this call or from the verification's send.
    pub(crate) fn mobile(&self, country: NumberingPlan) -> Option<PhoneNumber> {
        let value = self.get("mobile").or_else(|| self.call.retained_before.get("mobile"));
        value.and_then(|value| country.parse_value(value))
    }

    /// Returns whom the code goes to: a number, or an e-mail address in its place.
    pub(crate) fn number_or_address(&self) -> Option<Recipient> {
        let number = self.mobile(NumberingPlan::Any).map(Recipient::from);
        number.or_else(|| self.email().map(Recipient::from))
    }

    pub(crate) fn email(&self) -> Option<EmailAddress> {
        let value = self.get("mobile").or_else(|| self.call.retained_before.get("mobile"));
        value.and_then(EmailAddress::parse_value)
    }

    pub(crate) fn reference(&self, name: &str) -> Option<String> {
        let value = self.get(name).or_else(|| self.call.retained_before.get(name));
        value.and_then(Value::as_str).map(str::to_owned)
    }

    /// Returns what all vendors' calls have in common; the dialect fills in the rest.
    pub(crate) fn prepared(&self, request: HttpRequest, find_by: FindBy) -> Prepared {
        Prepared {
            request,
            cancel_first: None,
            recipient: None,
            recipient_masked: None,
            reference: None,
            find_by,
            retained: self.retained(),
            secrets: self.secrets(),
            code_lifetime: None,
            has_no_life: false,
            timeout: None,
            keeps_code: false,
            max_checks: None,
            local_outcome: None,
        }
    }

    /// Returns what the next call of this verification needs. A default is not kept, because it is the provider's and
    /// may change; but a `fixed` field stays as it was sent, wherever its value came from.
    fn retained(&self) -> Private<Map<String, Value>> {
        let mut keep = Private::from(self.call.retained_before.clone());
        if self.call.operation == Operation::Resend {
            // A resend gets a reference of its own.
            keep.shift_remove("reference");
        }
        let begins = matches!(self.call.operation, Operation::Send | Operation::Resend);
        for field in self.table.iter().filter(|field| !field.once) {
            let value = match field.fixed {
                true => self.values.get(field.name),
                false if begins => self.given.get(field.name),
                false => None,
            };
            if let Some(value) = value {
                keep.insert(field.name.into(), value.clone());
            }
        }
        keep
    }

    fn secrets(&self) -> Vec<Secret> {
        let mut secrets = redact::Secrets::default();
        if let Some(code) = self.call.code {
            secrets.add(code.reveal());
        }
        for credential in self.call.credentials.values() {
            secrets.add(credential.reveal());
        }
        // Some pairs of credentials are the user and the password of `Basic`, in whichever vendor's words.
        let proxys: &[&str] = &["proxy_user", "proxy_password"];
        for pair in self.dialect.credential_sets.iter().copied().chain([proxys]) {
            let [name, secret] = pair else { continue };
            if let (Some(name), Some(secret)) = (self.call.credentials.get(*name), self.call.credentials.get(*secret)) {
                secrets.add(Secret::basic(name, secret).reveal());
            }
        }
        for field in self.table {
            let value = self.values.get(field.name);
            let typed = find(self.call.payload, field).ok().flatten();
            match field.rule {
                Rule::IndianMobile => secrets.add_mobile(NumberingPlan::India, value, typed),
                Rule::SriLankanMobile => secrets.add_mobile(NumberingPlan::SriLanka, value, typed),
                Rule::PhoneNumber | Rule::PhoneOrEmail => {
                    secrets.add_mobile(NumberingPlan::Any, value, typed);
                    secrets.add_values([value, typed]);
                }
                _ if field.secret => secrets.add_values([value, typed]),
                // A person's name: an answer that is a page about the request may show it.
                Rule::Text { .. } if field.personal => secrets.add_values([value, typed]),
                _ => {}
            }
        }
        // A verify may take neither the number nor other secrets of the send, and its answer may still repeat them.
        let fields = all_fields(self.dialect);
        for (name, value) in self.call.retained_before {
            match name.as_str() {
                "mobile" => {
                    secrets.add_values([Some(value)]);
                    for country in [NumberingPlan::India, NumberingPlan::SriLanka, NumberingPlan::Any] {
                        secrets.add_mobile(country, Some(value), None);
                    }
                }
                name if fields.iter().any(|field| field.name == name && field.secret) => {
                    secrets.add_values([Some(value)])
                }
                _ => {}
            }
        }
        secrets.into_vec()
    }
}

/// Whom a code goes to.
pub(crate) struct Recipient {
    /// The number or address in its one form, however it was typed.
    pub recipient: Secret,
    pub masked: String,
}

impl Recipient {
    pub(crate) fn parse(typed: &str) -> Option<Self> {
        let number = NumberingPlan::Any.parse(typed).map(Self::from);
        number.or_else(|| EmailAddress::parse(typed).map(Self::from))
    }
}

impl From<PhoneNumber> for Recipient {
    fn from(number: PhoneNumber) -> Self {
        Self { recipient: number.recipient(), masked: number.masked() }
    }
}

impl From<EmailAddress> for Recipient {
    fn from(address: EmailAddress) -> Self {
        Self { recipient: address.recipient(), masked: address.masked() }
    }
}

/// Returns the user's code, as [`Dialect::code`] reads it; an empty text if there is none.
pub(crate) fn code(call: &Call) -> Value {
    call.code.map(Secret::reveal).unwrap_or_default().into()
}

/// Lays the members of one object over those of another; of other values the upper one counts.
fn over(below: Option<&Value>, above: Option<Value>) -> Option<Value> {
    match (below, above) {
        (Some(Value::Object(below)), Some(Value::Object(above))) => {
            let mut members = below.clone();
            members.extend(above);
            Some(Value::Object(members))
        }
        (below, above) => above.or_else(|| below.cloned()),
    }
}

/// Returns the error about an operation that the vendor does not have.
pub fn no_operation(dialect: &Dialect, operation: Operation) -> Invalid {
    let others: Vec<&str> =
        Operation::ALL.iter().filter(|other| dialect.fields(**other).is_some()).map(|other| other.as_str()).collect();
    Invalid::of_fields(
        "operation",
        format!("{} has no {}", dialect.name, operation.as_str()),
        format!("{} has: {}. {}", dialect.name, others.join(", "), without(operation)),
    )
}

/// Says what to do in place of an operation that a vendor does not have.
fn without(operation: Operation) -> &'static str {
    match operation {
        Operation::Cancel => {
            "A code that was sent stays good until expires_at, or until it is approved; a queued send can be canceled."
        }
        Operation::Resend => "Have otp_send send a new one.",
        Operation::Send | Operation::Verify => "Use a provider of another vendor.",
    }
}

/// Checks the server option `defaults`: fields of any operation of this vendor, each by its rule, and no field of one
/// person or one journey, since options are stored in the clear.
pub fn check_defaults(dialect: &Dialect, defaults: &Map<String, Value>) -> Result<(), Invalid> {
    let fields = all_fields(dialect);
    let place = format!("the option defaults of {}", dialect.name);
    let mut faults = Vec::new();
    for (key, value) in defaults {
        let fault = default_fault(&fields, &place, defaults, key, value);
        // A field that is given under two names is met twice.
        faults.extend(fault.filter(|fault| faults.iter().all(|other: &Invalid| other.field != fault.field)));
    }
    faults.extend(extra::faults(dialect, &fields, "extra", defaults.get("extra")));
    Invalid::all(faults)
}

fn default_fault(
    fields: &[AnyField],
    place: &str,
    defaults: &Map<String, Value>,
    key: &str,
    value: &Value,
) -> Option<Invalid> {
    let Some(first) = fields.iter().find(|field| field.is_called(key)) else {
        return Some(match is_code(key) {
            true => code_in(key, place),
            false => Invalid::unknown_key(place, "", key, lasting(fields).into_iter()),
        });
    };
    if first.personal {
        return Some(Invalid::new(
            first.name,
            format!("{} does not belong in {place}", first.name),
            "it is of one person or one journey, and options are stored in the clear: give it in the payload",
        ));
    }
    // The vendor has several names for one field (latLong, latlong), and a rule for each call.
    fields.iter().filter(|field| field.name == first.name).find_map(|field| {
        let other = [field.name, field.wire].into_iter().find(|name| *name != key && defaults.contains_key(*name));
        match other {
            Some(other) => Some(twice(first.name, key, other)),
            None => field.rule.normalise(field.name, value).err(),
        }
    })
}

/// Reads one field before its table is known, because the field selects the table (iServeU's `otp_type`).
pub(crate) fn peek(dialect: &Dialect, call: &Call, field: &AnyField) -> Result<Option<Value>, Invalid> {
    if let Some(value) = find(call.payload, field)? {
        return field.rule.normalise(field.name, value).map(Some);
    }
    match call.retained_before.get(field.name).filter(|value| !value.is_null()) {
        Some(value) => field.rule.normalise(field.name, value).map(Some),
        None => default_of(dialect, call.defaults, field),
    }
}

fn find<'m>(map: &'m Map<String, Value>, field: &AnyField) -> Result<Option<&'m Value>, Invalid> {
    match (map.get(field.name), map.get(field.wire)) {
        (Some(_), Some(_)) if field.name != field.wire => Err(twice(field.name, field.name, field.wire)),
        (ours, theirs) => Ok(ours.or(theirs)),
    }
}

/// Returns a field's default, under any of the vendor's names for the field: defaults serve all operations.
fn default_of(dialect: &Dialect, defaults: &Map<String, Value>, field: &AnyField) -> Result<Option<Value>, Invalid> {
    if field.personal || defaults.is_empty() {
        return Ok(None);
    }
    let mut found = find(defaults, field)?;
    if found.is_none() {
        let others = all_fields(dialect).into_iter().filter(|other| other.name == field.name);
        found = others.filter_map(|other| defaults.get(other.wire)).next();
    }
    found.map(|value| field.rule.normalise(field.name, value)).transpose()
}

/// Says why a key of the payload has no place in this call.
fn unknown_field(dialect: &Dialect, table: &[AnyField], what: &str, key: &str) -> Invalid {
    if is_code(key) {
        return code_in(key, "the payload");
    }
    let takers: Vec<&str> = Operation::ALL
        .iter()
        .filter(|operation| {
            dialect.fields(**operation).is_some_and(|fields| fields.iter().any(|field| field.is_called(key)))
        })
        .map(|operation| operation.as_str())
        .collect();
    if takers.is_empty() {
        let mut unknown = Invalid::unknown_key(what, "", key, table.iter());
        if is_country_code(key) && table.iter().any(|field| field.name == "mobile") {
            unknown.hint = format!("put it into mobile, + and the country before the number; {}", unknown.hint);
        }
        return unknown;
    }
    let names: Vec<&str> = table.iter().map(|field| field.name).collect();
    Invalid::of_fields(
        key,
        format!("{key} does not belong to {what}"),
        format!("{key} is a field of: {}; this call takes: {}", takers.join(", "), names.join(", ")),
    )
}

/// Returns whether a key names the country's code, which other interfaces take apart from the number.
fn is_country_code(key: &str) -> bool {
    key.len() <= 63 && ["countrycode", "isdcode", "isd", "dialcode", "diallingcode"].contains(&plain(key).as_str())
}

/// Returns whether a key names a code. Under whatever name, a code in a payload would be kept and logged like a field.
pub(crate) fn is_code(key: &str) -> bool {
    let plain: String = key.chars().take(64).filter(|c| *c != '_').collect();
    key.len() <= 63 && ["otp", "otpvalue", "otpcode", "code", "pin"].contains(&plain.to_ascii_lowercase().as_str())
}

pub(crate) fn code_in(key: &str, place: &str) -> Invalid {
    Invalid::of_fields(
        key,
        format!("{key} does not belong in {place}: the code is never a field"),
        "the user's code is the argument otp of otp_verify",
    )
}

fn all_fields(dialect: &Dialect) -> Vec<AnyField<'_>> {
    Operation::ALL.iter().filter_map(|operation| dialect.fields(*operation)).flatten().collect()
}

/// Returns the fields that may be constant for an account, each name once.
fn lasting<'a>(fields: &'a [AnyField<'a>]) -> Vec<&'a AnyField<'a>> {
    let mut lasting: Vec<&AnyField> = Vec::new();
    for field in fields {
        if !field.personal && !lasting.iter().any(|other| other.name == field.name) {
            lasting.push(field);
        }
    }
    lasting
}
