//! iServeU DMT Lite (docs/vendors/iserveu.md): Indian numbers, in two variants. Type 1 registers a customer, type 2
//! approves a transaction; the code goes with the business call that follows. A resend is a send like the first.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    call::{Call, FindBy, HttpRequest, Prepared, json_request},
    dialect::{Dialect, RESEND_AFTER},
    operation::Operation,
    outcome::Outcome,
    payload::{
        code::CodeForm,
        field::{BY_SMS, Field, Invalid},
        fill::{FilledPayload, code, no_operation, peek},
        phone_number::NumberingPlan,
        rule::{IDENTIFIER, Rule, TEXT},
    },
    response::{CallResult, DENIED, is_success, scalar, unlisted},
    secret::{Private, Secret},
    wording::{Verdict, spoken},
};

pub static DIALECT: Dialect = Dialect {
    name: "iserveu",
    base_url: Some("https://apidev.iserveu.online/common/dmt-lite/unified"),
    test_host: Some("apidev.iserveu.online"),
    // Of type 1 alone: `addressed` says that a code of type 2 has no documented life.
    code_lifetime: Some(Duration::from_secs(10 * 60)),
    code: CodeForm::Numeric,
    // For type 1 by the vendor's page; for type 2, of which it says nothing, the gateway's usual number.
    max_checks: 5,
    resend_after: RESEND_AFTER,
    is_found_by_reference: true,
    credential_sets: &[&["client_id", "client_secret"]],
    header_credentials: &["client_id", "client_secret"],
    server_options: &[],
    fields,
    recipient: |typed| Some(NumberingPlan::India.parse(typed)?.recipient()),
    set_members: &[],
    prepare,
    read,
    address_codes: &[],
    sensitive: &[
        "name",
        "mobileNumber",
        "customerMobileNumber",
        "beneMobileNumber",
        "customerName",
        "beneName",
        "accountNumber",
        "ovdData",
    ],
    opaque: &["parentTxnId"],
    description: None,
};

/// verify-bene moves money over IMPS, from bank to bank: a call that was cut off could move it, and nobody would know.
const VERIFY_BENE_TIMEOUT: Duration = Duration::from_secs(60);

const REFERENCE: Rule = Rule::Alphanumeric { min: 6, max: 22 };
const AADHAAR: Rule = Rule::Digits { min: 12, max: 12 };
const PINCODE: Rule = Rule::Digits { min: 6, max: 6 };
const AMOUNT: Rule = Rule::Digits { min: 1, max: 15 };

const OTP_TYPE: Field = Field::required("otp_type", "otpType", Rule::OneOf(&["1", "2"]))
    .fixed()
    .noted("1 registers a customer, 2 approves a transaction");
const MOBILE: Field = Field::required("mobile", "customerMobileNumber", Rule::IndianMobile).fixed().personal();
const USERNAME: Field = Field::required("username", "username", IDENTIFIER).fixed().like("agent1");
const LAT_LONG: Field = Field::optional("lat_long", "latLong", Rule::LatLong);
const PUBLIC_IP: Field = Field::optional("public_ip", "publicIP", Rule::IpAddress);
const PARAM_A: Field = Field::optional("param_a", "paramA", IDENTIFIER);
const PARAM_B: Field = Field::optional("param_b", "paramB", IDENTIFIER);
const PARAM_C: Field = Field::optional("param_c", "paramC", IDENTIFIER);

static SEND_1: &[Field] = &Field::of_variant(
    "otp_type 1",
    [
        MOBILE,
        Field::optional("reference", "externalRefNumber", REFERENCE).fixed().personal().like("REF0000042"),
        Field::optional("amount", "requestedAmount", AMOUNT).like("\"100\""),
        USERNAME,
        OTP_TYPE,
        LAT_LONG,
        PUBLIC_IP,
        Field::required("ovd_type", "ovdType", TEXT).like("Aadhaar Card"),
        Field::required("ovd_data", "ovdData", AADHAAR).secret().like("\"123456789012\"").noted("the Aadhaar number"),
        PARAM_A,
        PARAM_B,
        PARAM_C,
        BY_SMS,
        Field::extra(false),
    ],
);

static SEND_2: &[Field] = &Field::of_variant(
    "otp_type 2",
    [
        MOBILE,
        Field::required("reference", "externalRefNumber", REFERENCE).fixed().personal().like("REF0000042"),
        Field::required("amount", "requestedAmount", AMOUNT).like("\"100\""),
        USERNAME,
        OTP_TYPE,
        LAT_LONG,
        PUBLIC_IP,
        Field::optional("ovd_type", "ovdType", TEXT).like("Aadhaar Card"),
        Field::optional("ovd_data", "ovdData", AADHAAR).secret().like("\"123456789012\"").noted("the Aadhaar number"),
        PARAM_A,
        PARAM_B,
        PARAM_C,
        BY_SMS,
        Field::extra(false),
    ],
);

/// The customer's registration, which carries the code.
static VERIFY_1: &[Field] = &Field::of_variant(
    "otp_type 1",
    [
        OTP_TYPE,
        Field::required("mobile", "mobileNumber", Rule::IndianMobile).fixed().personal(),
        Field::required("name", "name", TEXT).personal().like("Asha Rao"),
        USERNAME,
        // The vendor spells latlong with a lower-case l here, and only here.
        Field::required("lat_long", "latlong", Rule::LatLong),
        Field::required("public_ip", "publicIP", Rule::IpAddress),
        Field::optional("address", "address", TEXT).like("1 Park Road, Bhubaneswar"),
        Field::optional("pincode", "pincode", PINCODE).like("\"751001\""),
        Field::optional("ovd_type", "ovdType", TEXT).like("Aadhaar Card"),
        Field::optional("ovd_data", "ovdData", AADHAAR).secret().like("\"123456789012\"").noted("the Aadhaar number"),
        PARAM_A,
        PARAM_B,
        PARAM_C,
        Field::extra(true),
    ],
);

/// The transaction's beneficiary check, which carries the code.
static VERIFY_2: &[Field] = &Field::of_variant(
    "otp_type 2",
    [
        OTP_TYPE,
        Field::required("reference", "externalRefNumber", REFERENCE).fixed().personal().like("REF0000042"),
        Field::required("account_number", "accountNumber", Rule::Alphanumeric { min: 1, max: 34 })
            .secret()
            .like("\"00001234567890\""),
        Field::required("bene_bank_name", "beneBankName", TEXT).like("State Bank of India"),
        Field::required("bene_mobile", "beneMobileNumber", Rule::IndianMobile).personal(),
        Field::required("bene_name", "beneName", TEXT).personal().like("Ravi Das"),
        Field::required("bank_code", "bankCode", Rule::Alphanumeric { min: 1, max: 32 }).like("SBIN"),
        Field::required("bene_ifsc_code", "beneIfscCode", Rule::Alphanumeric { min: 1, max: 32 }).like("SBIN0000001"),
        Field::required("transaction_mode", "transactionMode", Rule::Text { min: 1, max: 16 }).like("IMPS"),
        Field::required("customer_name", "customerName", TEXT).personal().like("Asha Rao"),
        MOBILE,
        Field::required("pincode", "pincode", PINCODE).like("\"751001\""),
        Field::required("address", "address", TEXT).like("1 Park Road, Bhubaneswar"),
        Field::required("is_hold_transaction", "isHoldTransaction", Rule::Boolean),
        USERNAME,
        Field::required("lat_long", "latLong", Rule::LatLong),
        Field::required("customer_ip", "customerIP", Rule::IpAddress),
        Field::extra(true),
    ],
);

fn fields(operation: Operation) -> Option<Vec<&'static Field>> {
    match operation {
        Operation::Send | Operation::Resend => Some(SEND_1.iter().chain(SEND_2).collect()),
        Operation::Verify => Some(VERIFY_1.iter().chain(VERIFY_2).collect()),
        Operation::Cancel => None,
    }
}

#[derive(Clone, Copy)]
enum Variant {
    Registration,
    Transaction,
}

fn variant(call: &Call) -> Result<Variant, Invalid> {
    match peek(&DIALECT, call, &OTP_TYPE).ok().flatten().as_ref().and_then(Value::as_str) {
        Some("1") => Ok(Variant::Registration),
        Some(_) => Ok(Variant::Transaction),
        None => Err(of_either(call)),
    }
}

/// Returns the faults that both variants share, where nobody can tell which variant is meant.
fn of_either(call: &Call) -> Invalid {
    let tables = if call.operation == Operation::Verify { [VERIFY_1, VERIFY_2] } else { [SEND_1, SEND_2] };
    let what = format!("a {}", call.operation.as_str());
    let [mut faults, others] = tables.map(|table| FilledPayload::gather(&DIALECT, call, table, &what).1);
    faults.retain(|fault| others.iter().any(|other| other.field == fault.field));
    let is_missing = |fault: &&mut Invalid| fault.field == OTP_TYPE.name && fault.message.contains(" is missing");
    if let Some(fault) = faults.iter_mut().find(is_missing) {
        fault.hint = "otp_type: 1 for a customer registration, 2 for a transaction".into();
    }
    let hint = format!("otp_type: {}", OTP_TYPE.rule.describe());
    // The otp_type that the verification knows may be neither: that is no fault of the payload's.
    let broken = || Invalid::new(OTP_TYPE.name, format!("{} does not follow its rule", OTP_TYPE.name), hint);
    Invalid::all(faults).err().unwrap_or_else(broken)
}

fn prepare(call: &Call) -> Result<Prepared, Invalid> {
    match call.operation {
        Operation::Send => send(call, |_, _| {}),
        Operation::Resend => resend(call),
        Operation::Verify => verify(call),
        Operation::Cancel => Err(no_operation(&DIALECT, call.operation)),
    }
}

fn send(call: &Call, together: impl FnOnce(&FilledPayload, &mut Vec<Invalid>)) -> Result<Prepared, Invalid> {
    let variant = variant(call)?;
    let (table, number) = match variant {
        Variant::Registration => (SEND_1, 1),
        Variant::Transaction => (SEND_2, 2),
    };
    let what = format!("a {} of otp_type {number}", call.operation.as_str());
    let filled = FilledPayload::checked(&DIALECT, call, table, &what, together)?;
    let mut body = Map::new();
    filled.write(
        &mut body,
        &[
            "mobile",
            "reference",
            "amount",
            "username",
            "otp_type",
            "lat_long",
            "public_ip",
            "ovd_type",
            "ovd_data",
            "param_a",
            "param_b",
            "param_c",
        ],
    );
    filled.lay_extra(&mut body)?;
    Ok(addressed(&filled, variant, post(call, "/otp/send", body)))
}

/// Prepares a resend. A transaction gets a new code only under a new reference (docs/vendors/iserveu.md).
fn resend(call: &Call) -> Result<Prepared, Invalid> {
    let Variant::Transaction = variant(call)? else {
        return send(call, |_, _| {});
    };
    let mut known = Private::from(call.retained_before.clone());
    let old = known.shift_remove("reference");
    send(&Call { retained_before: &known, ..*call }, |filled, faults| {
        let new = filled.get("reference");
        if new.is_some() && new == old.as_ref() {
            faults.push(new_reference("is that of the code before"));
        } else if !call.payload.contains_key("reference") && !call.payload.contains_key("externalRefNumber") {
            faults.retain(|fault| fault.field != "reference");
            faults.push(new_reference("is missing"));
        }
    })
}

fn new_reference(what: &str) -> Invalid {
    let message = format!("reference {what}: a new code of otp_type 2 needs a new one");
    Invalid::new("reference", message, format!("give a reference not used before: {}", REFERENCE.describe()))
}

fn verify(call: &Call) -> Result<Prepared, Invalid> {
    let variant = variant(call)?;
    let mut body = Map::new();
    let (filled, path) = match variant {
        Variant::Registration => {
            let filled = FilledPayload::new(&DIALECT, call, VERIFY_1, "a verify of otp_type 1")?;
            filled.write(&mut body, &["mobile", "name"]);
            body.insert("otp".into(), code(call));
            filled.write(&mut body, &["username", "lat_long", "public_ip", "address", "pincode", "ovd_type"]);
            filled.write(&mut body, &["ovd_data", "param_a", "param_b", "param_c"]);
            (filled, "/customer/process-customer-registration")
        }
        Variant::Transaction => {
            let filled = FilledPayload::new(&DIALECT, call, VERIFY_2, "a verify of otp_type 2")?;
            filled.write(&mut body, &["reference", "account_number", "bene_bank_name", "bene_mobile", "bene_name"]);
            filled.write(&mut body, &["bank_code", "bene_ifsc_code", "transaction_mode", "customer_name", "mobile"]);
            filled.write(&mut body, &["pincode", "address", "is_hold_transaction", "username", "lat_long"]);
            filled.write(&mut body, &["customer_ip"]);
            body.insert("otp".into(), code(call));
            (filled, "/transaction/verify-bene")
        }
    };
    filled.lay_extra(&mut body)?;
    let timeout = match variant {
        Variant::Registration => None,
        Variant::Transaction => Some(VERIFY_BENE_TIMEOUT),
    };
    Ok(Prepared { timeout, ..addressed(&filled, variant, post(call, path, body)) })
}

fn addressed(filled: &FilledPayload, variant: Variant, request: HttpRequest) -> Prepared {
    let mobile = filled.mobile(NumberingPlan::India);
    let (find_by, has_no_life) = match variant {
        Variant::Registration => (FindBy::Recipient, false),
        Variant::Transaction => (FindBy::Reference, true),
    };
    Prepared {
        recipient: mobile.as_ref().map(|mobile| mobile.recipient()),
        recipient_masked: mobile.as_ref().map(|mobile| mobile.masked()),
        reference: filled.reference("reference"),
        has_no_life,
        ..filled.prepared(request, find_by)
    }
}

fn post(call: &Call, path: &str, body: Map<String, Value>) -> HttpRequest {
    let credential = |name| call.credentials.get(name).cloned().unwrap_or_default();
    let headers = vec![
        ("Content-Type".into(), Secret::new("application/json")),
        ("client_id".into(), credential("client_id")),
        ("client_secret".into(), credential("client_secret")),
    ];
    json_request(path, headers, body)
}

/// Reads an answer by its `status`, not by its code: sibling calls answer SUCCESS with the codes 0, 1 and 2.
fn read(operation: Operation, status: u16, answer: &Value) -> Option<CallResult> {
    let verdict = scalar(answer.get("status"))?.to_ascii_uppercase();
    let code = scalar(answer.get("statusCode"));
    let words = ["statusDesc", "status-desc"].iter().find_map(|name| scalar(answer.get(*name)));
    match verdict.as_str() {
        "SUCCESS" if !is_success(status) => Some(CallResult::unknown(DENIED, code, words)),
        "SUCCESS" if operation == Operation::Verify => Some(CallResult::new(Outcome::Approved, code, words)),
        "SUCCESS" => Some(CallResult::new(Outcome::Sent, code, words)),
        "FAILED" => {
            let (outcome, is_guess) = match operation {
                Operation::Verify => by_words(status, words.as_deref().unwrap_or_default()),
                _ => (by_code(operation, status, code.as_deref()), false),
            };
            Some(CallResult { is_guess, ..CallResult::new(outcome, code, words) })
        }
        _ => None,
    }
}

fn by_code(operation: Operation, status: u16, code: Option<&str>) -> Outcome {
    match code {
        Some("-1") => Outcome::InvalidRequest,
        Some("1" | "4") => Outcome::ProviderError,
        _ => unlisted(operation, status),
    }
}

/// Returns the outcome by the words, and whether it is a guess: the page lists no code for a wrong OTP.
fn by_words(status: u16, words: &str) -> (Outcome, bool) {
    let has = |stem: &str| spoken(words).any(|word| word.starts_with(stem));
    match Verdict::read(words) {
        Some(Verdict::Expired) => (Outcome::Expired, true),
        Some(Verdict::Wrong) => (Outcome::InvalidCode, true),
        None if has("attempt") || has("limit") => (Outcome::MaxAttemptsReached, true),
        None => (unlisted(Operation::Verify, status), false),
    }
}
