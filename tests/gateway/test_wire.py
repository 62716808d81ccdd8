"""Promise: what goes over the wire is what each vendor's page documents, to the letter (method, path, query, headers,
body), with `defaults` laid under the payload; and what comes back reaches the caller as it came."""

import base64
import json

import pytest

from canaries import RUN
from conftest import CREDENTIALS, FLOWS
from simulator import fields
from vendors import SERVICE, TABLE, VENDORS
from test_at_most_once import at

# What any HTTP client adds.
OF_HTTP = {"host", "content-length", "accept", "user-agent", "accept-encoding", "connection"}
JSON = {"content-type": "application/json"}
AADHAAR = "999941057058"


@pytest.fixture
def gateway(quick_gateway):
    return quick_gateway


FORM = {"content-type": "application/x-www-form-urlencoded"}


def basic(vendor):
    return "Basic " + base64.b64encode(":".join(CREDENTIALS[vendor].values()).encode()).decode()


HEADERS = {
    "iserveu": {**JSON, **CREDENTIALS["iserveu"]},
    "hyperverge": {
        **JSON,
        "appid": CREDENTIALS["hyperverge"]["app_id"],
        "appkey": CREDENTIALS["hyperverge"]["app_key"],
    },
    "paytm": {**JSON, "accept": "application/json", "authorization": basic("paytm")},
    "relid": {**JSON, "authorization": basic("relid")},
    "ideamart": {**JSON},
    "twilio": {**FORM, "authorization": basic("twilio")},
    "msg91": {"accept": "application/json", **CREDENTIALS["msg91"]},
}


def last(simulator, vendor, operation, path, body, query="", method="POST", **headers):
    """The latest request of that kind is exactly this one, and the vendor has nothing to complain of."""
    entry = simulator.log(vendor, operation)[-1]
    assert (entry["method"], entry["path"], entry["query"]) == (method, f"/{vendor}{path}", query)
    wanted = {**HEADERS[vendor], **headers}
    got = {name: value for name, value in entry["headers"].items() if name in wanted or name not in OF_HTTP}
    assert got == wanted
    # Types too: 6 and "6", true and "true" are not the same.
    assert json.dumps(fields(entry), sort_keys=True) == json.dumps(body, sort_keys=True)
    assert (entry["complaint"], entry["listener"]) == (None, "http")
    return entry


def send(gateway, provider, payload):
    row = gateway.row("SELECT * FROM otp_send(%s, %s::jsonb)", (provider, json.dumps(payload)))
    assert row["outcome"] == "sent", row
    return row


def resend(gateway, sent, **payload):
    return gateway.row("SELECT * FROM otp_resend(%s, %s::jsonb)", (sent["verification_id"], json.dumps(payload)))


def test_iserveu_registration(gateway, simulator):
    sent = send(
        gateway,
        "iserveu",
        {
            "mobile": "+91 98765 43210",
            "otp_type": 1,
            "username": "agent1",
            "ovd_type": "Aadhaar Card",
            "ovd_data": AADHAAR,
            "amount": 100,
            "lat_long": "20.29,85.82",
            "public_ip": "203.0.113.7",
            "param_a": "a",
            "param_b": "b",
            "param_c": "c",
        },
    )
    body = {
        "customerMobileNumber": "9876543210",
        "otpType": "1",
        "username": "agent1",
        "ovdType": "Aadhaar Card",
        "ovdData": AADHAAR,
        "requestedAmount": "100",
        "latLong": "20.29,85.82",
        "publicIP": "203.0.113.7",
        "paramA": "a",
        "paramB": "b",
        "paramC": "c",
    }
    last(simulator, "iserveu", "send", "/otp/send", body)
    assert resend(gateway, sent)["outcome"] == "sent"
    last(simulator, "iserveu", "send", "/otp/send", body)
    code = simulator.code("iserveu", "9876543210", atleast=2)
    right = gateway.verify(
        sent["verification_id"],
        code,
        name="Asha Rao",
        lat_long="20.29,85.82",
        public_ip="203.0.113.7",
        address="Street 1",
        pincode=751001,
    )
    assert right["outcome"] == "approved"
    entry = last(
        simulator,
        "iserveu",
        "verify",
        "/customer/process-customer-registration",
        {
            "mobileNumber": "9876543210",
            "name": "Asha Rao",
            "otp": code,
            "username": "agent1",
            "latlong": "20.29,85.82",
            "publicIP": "203.0.113.7",
            "address": "Street 1",
            "pincode": "751001",
            "ovdType": "Aadhaar Card",
            "ovdData": AADHAAR,
            "paramA": "a",
            "paramB": "b",
            "paramC": "c",
        },
    )
    assert entry["status"] == 200


def test_iserveu_transaction(gateway, simulator):
    common = {"otp_type": "2", "username": "agent1"}
    sent = send(gateway, "iserveu", {**common, "mobile": "9876543211", "reference": "REF0001", "amount": "250"})
    last(
        simulator,
        "iserveu",
        "send",
        "/otp/send",
        {
            "customerMobileNumber": "9876543211",
            "otpType": "2",
            "username": "agent1",
            "externalRefNumber": "REF0001",
            "requestedAmount": "250",
        },
    )
    # A new code takes a new reference.
    again = resend(gateway, sent, reference="REF0002")
    assert again["outcome"] == "sent"
    assert simulator.log("iserveu", "send")[-1]["body"]["externalRefNumber"] == "REF0002"
    code = simulator.code("iserveu", "9876543211", atleast=2)
    right = gateway.verify(
        sent["verification_id"],
        code,
        account_number="12345678901",
        bene_bank_name="State Bank",
        bene_mobile="9876500001",
        bene_name="B Rao",
        bank_code="SBIN",
        bene_ifsc_code="SBIN0000001",
        transaction_mode="IMPS",
        customer_name="A Rao",
        pincode="751001",
        address="Street 1",
        is_hold_transaction="false",
        lat_long="20.29,85.82",
        customer_ip="203.0.113.7",
    )
    assert right["outcome"] == "approved", right
    last(
        simulator,
        "iserveu",
        "verify",
        "/transaction/verify-bene",
        {
            "externalRefNumber": "REF0002",
            "accountNumber": "12345678901",
            "beneBankName": "State Bank",
            "beneMobileNumber": "9876500001",
            "beneName": "B Rao",
            "bankCode": "SBIN",
            "beneIfscCode": "SBIN0000001",
            "transactionMode": "IMPS",
            "customerName": "A Rao",
            "customerMobileNumber": "9876543211",
            "pincode": "751001",
            "address": "Street 1",
            "isHoldTransaction": False,
            "username": "agent1",
            "latLong": "20.29,85.82",
            "customerIP": "203.0.113.7",
            "otp": code,
        },
    )


def test_hyperverge(gateway, simulator):
    sent = send(
        gateway,
        "hyperverge",
        {
            "mobile": 9876543210,
            "templateId": "tpl-9",
            "otp_length": 6,
            "otpExpiry": "10",
            "time": "10",
            "time_format": "min",
            "show_last_four_digits": True,
        },
    )
    journey = str(sent["verification_id"])
    last(
        simulator,
        "hyperverge",
        "send",
        "/v1/verifyMobileSendOtp",
        {
            "templateId": "tpl-9",
            "mobileNumber": "9876543210",
            "otpLength": "6",
            "otpExpiry": "10",
            "time": "10",
            "timeFormat": "min",
            "showLastFourDigits": "yes",
        },
        transactionid=journey,
    )
    for payload, kind in [({}, "text"), ({"channel": "voice"}, "voice")]:
        assert resend(gateway, sent, **payload)["outcome"] == "sent"
        last(
            simulator,
            "hyperverge",
            "resend",
            "/v1/resendOtp",
            {"mobileNumber": "9876543210", "retryType": kind},
            transactionid=journey,
        )
    code = simulator.code("hyperverge", "9876543210", atleast=3)
    assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"
    last(
        simulator,
        "hyperverge",
        "verify",
        "/v1/verifyMobileOtp",
        {"mobileNumber": "9876543210", "otp": code},
        transactionid=journey,
    )
    # The application's own journey id goes through the whole journey.
    sent = send(gateway, "hyperverge", {"mobile": "9876543212", "template_id": "t", "transaction_id": "mine-1"})
    last(
        simulator,
        "hyperverge",
        "send",
        "/v1/verifyMobileSendOtp",
        {"templateId": "t", "mobileNumber": "9876543212"},
        transactionid="mine-1",
    )
    gateway.verify(sent["verification_id"], "0000")
    assert simulator.log("hyperverge", "verify")[-1]["headers"]["transactionid"] == "mine-1"


def test_paytm(gateway, simulator):
    # What a URL cannot hold as it is.
    query = "mid=MID+%26%3D%2F01&orderId=%C3%96RDER%3F1%23"
    sent = send(
        gateway,
        "paytm",
        {
            "mobile": "09876543210",
            "mid": "MID &=/01",
            "order_id": "ÖRDER?1#",
            "token": 'tök"en',
            "request_timestamp": 1763776800,
            "auto_read_hash": "hash",
        },
    )
    entry = last(
        simulator,
        "paytm",
        "send",
        "/aoa-pay-option-service/v2/otp/generate",
        {
            "head": {"requestTimeStamp": "1763776800", "tokenType": "TXN_TOKEN", "token": 'tök"en'},
            "body": {"mobileNumber": "9876543210", "autoReadHash": "hash"},
        },
        query=simulator.log("paytm", "send")[-1]["query"],
    )
    assert entry["query"].replace("%20", "+") == query
    code = simulator.code("paytm", "9876543210")
    right = gateway.verify(sent["verification_id"], code, channel_id="app", remember_me="true")
    assert right["outcome"] == "approved", right
    entry = last(
        simulator,
        "paytm",
        "verify",
        "/aoa-pay-option-service/v2/otp/verify",
        {
            "head": {"version": "v1", "channelId": "APP", "tokenType": "TXN_TOKEN", "token": 'tök"en'},
            "body": {"otp": code, "rememberMe": True},
        },
        query=simulator.log("paytm", "verify")[-1]["query"],
    )
    assert entry["query"].replace("%20", "+") == query


def test_paytm_without_credentials(gateway, simulator):
    gateway.execute("DROP USER MAPPING FOR PUBLIC SERVER paytm")
    gateway.send("paytm")
    (entry,) = simulator.log("paytm")
    assert "authorization" not in entry["headers"] and entry["complaint"] is None


def test_relid(gateway, simulator):
    msg = [{"lng": "English", "subject": "Log-in", "message": "Your code\nis $$OTP$$", "label": {"a": "b"}}]
    controls = {"otp": {"attempts": 4, "hash_spec": "h", "otp_spec": "LN-8"}}
    payload = {
        "user_id": "asha",
        "enterprise_id": "bank",
        "user_type": "userid",
        "expires_in": "120",
        "msg": msg,
        "notification_msg": {"message": "m", "subject": "s"},
        "actions": [{"label": "ok", "action": "ok", "authlevel": 1}],
        "ds_required": False,
        "controls": controls,
    }
    sent = send(gateway, "relid", payload)
    assert sent["attempts_left"] == 4
    body = {
        "msg_type": "OTP",
        "msg_id": str(sent["verification_id"]),
        "enterprise_id": "bank",
        "user_id": "asha",
        "user_type": "userId",
        "expires_in": 120,
        "msg": msg,
        "notification_msg": {"message": "m", "subject": "s"},
        "actions": [{"label": "ok", "action": "ok", "authlevel": 1}],
        "ds_required": False,
        "controls": controls,
    }
    last(simulator, "relid", "send", "/generateRVN.htm", body)
    old = sent["reference"]
    again = resend(gateway, sent)
    assert again["outcome"] == "sent" and again["reference"] not in (None, old)
    last(simulator, "relid", "cancel", "/cancelRVN.htm", {"notification_uuid": old})
    last(simulator, "relid", "send", "/generateRVN.htm", {**body, "msg_id": str(again["attempt_id"])})
    code = simulator.code("relid", "asha", atleast=2)
    assert len(code) == 8
    assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"
    last(simulator, "relid", "verify", "/validateOTP.htm", {"notification_uuid": again["reference"], "otp_value": code})
    # With nothing but what is needed.
    small = {
        "user_id": "b",
        "enterprise_id": "bank",
        "expires_in": 60,
        "notification_msg": {"message": "m"},
        "msg": [{"lng": "en", "subject": "s", "message": "$$OTP$$", "label": "l"}],
    }
    sent = send(gateway, "relid", small)
    last(
        simulator,
        "relid",
        "send",
        "/generateRVN.htm",
        {**small, "msg_type": "OTP", "msg_id": str(sent["verification_id"]), "actions": []},
    )
    assert gateway.row("SELECT * FROM otp_cancel(%s)", (sent["verification_id"],))["outcome"] == "canceled"
    last(simulator, "relid", "cancel", "/cancelRVN.htm", {"notification_uuid": sent["reference"]})


@pytest.mark.parametrize(
    "spelled",
    ["tel:94771234567", "+94771234567", "94771234567", "0094771234567", "0771234567", "771234567", "077-123 4567"],
)
def test_ideamart(gateway, simulator, spelled):
    sent = send(
        gateway,
        "ideamart",
        {
            "mobile": spelled,
            "metadata": {"client": "MOBILEAPP", "device": "Pixel", "os": "android", "app_code": "https://a.example"},
        },
    )
    account = {
        "applicationId": CREDENTIALS["ideamart"]["application_id"],
        "password": CREDENTIALS["ideamart"]["password"],
    }
    meta = {"client": "MOBILEAPP", "device": "Pixel", "os": "android", "appCode": "https://a.example"}
    last(
        simulator,
        "ideamart",
        "send",
        "/subscription/otp/request",
        {
            **account,
            "subscriberId": "tel:94771234567",
            "applicationHash": str(sent["verification_id"]),
            "applicationMetaData": meta,
        },
    )
    again = resend(gateway, sent)
    assert again["outcome"] == "sent"
    last(
        simulator,
        "ideamart",
        "send",
        "/subscription/otp/request",
        {
            **account,
            "subscriberId": "tel:94771234567",
            "applicationHash": str(again["attempt_id"]),
            "applicationMetaData": meta,
        },
    )
    code = simulator.code("ideamart", "0771234567", atleast=2)
    right = gateway.verify(sent["verification_id"], code)
    assert right["outcome"] == "approved"
    last(
        simulator,
        "ideamart",
        "verify",
        "/subscription/otp/verify",
        {**account, "referenceNo": again["reference"], "otp": code},
    )


def test_twilio(gateway, simulator):
    base = f"/v2/Services/{SERVICE}"
    sent = send(
        gateway,
        "twilio",
        {
            "mobile": "077 123 4567",
            "channel": "whatsapp",
            "locale": "si",
            "substitutions": {"name": "Ann & Bob"},
            "tags": {"a": "ü"},
            "amount": 39,
            "payee": "A Shop",
        },
    )
    form = {
        "To": "+94771234567",
        "Locale": "si",
        "TemplateCustomSubstitutions": '{"name":"Ann & Bob"}',
        "Tags": '{"a":"ü"}',
        "Amount": "39",
        "Payee": "A Shop",
    }
    last(simulator, "twilio", "send", f"{base}/Verifications", {**form, "Channel": "whatsapp"})
    for payload, channel in [({}, "whatsapp"), ({"channel": "voice"}, "call"), ({}, "call")]:
        again = resend(gateway, sent, **payload)
        # The same verification, and the same code, which lives no longer for it.
        assert (again["outcome"], again["reference"], again["expires_at"]) == (
            "sent",
            sent["reference"],
            sent["expires_at"],
        )
        last(simulator, "twilio", "send", f"{base}/Verifications", {**form, "Channel": channel})
    code = simulator.code("twilio", "0771234567", atleast=4)
    assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"
    last(
        simulator,
        "twilio",
        "verify",
        f"{base}/VerificationCheck",
        {"VerificationSid": sent["reference"], "Amount": "39", "Payee": "A Shop", "Code": code},
    )
    # The other way to log in, and a cancel.
    pair = CREDENTIALS["twilio"]
    by_account = {"account_sid_file": RUN.in_file(pair["api_key"]), "auth_token_file": RUN.in_file(pair["api_secret"])}
    gateway.create_provider("by_account", "twilio", by_account)
    sent = send(gateway, "by_account", {"mobile": "+442079460958"})
    last(simulator, "twilio", "send", f"{base}/Verifications", {"To": "+442079460958", "Channel": "sms"})
    assert gateway.row("SELECT * FROM otp_cancel(%s)", (sent["verification_id"],))["outcome"] == "canceled"
    last(simulator, "twilio", "cancel", f"{base}/Verifications/{sent['reference']}", {"Status": "canceled"})


def test_msg91(gateway, simulator):
    sent = send(
        gateway,
        "msg91",
        {
            "mobile": "+91 98765 43210",
            "template_id": "0a1b2c3d4e5f0a1b2c3d4e5f",
            "otp_length": "6",
            "otp_expiry": 10,
            "unicode": 1,
            "userip": "203.0.113.7",
            "variables": {"name": "Asha"},
        },
    )
    last(
        simulator,
        "msg91",
        "send",
        "/api/v5/otp",
        {
            "mobile": "919876543210",
            "template_id": "0a1b2c3d4e5f0a1b2c3d4e5f",
            "otp_length": 6,
            "otp_expiry": 10,
            "unicode": 1,
            "userip": "203.0.113.7",
            "name": "Asha",
        },
        **JSON,
    )
    assert sent["reference"] is not None
    for payload, kind in [({}, "text"), ({"channel": "voice"}, "voice"), ({"channel": "sms"}, "text")]:
        again = resend(gateway, sent, **payload)
        assert (again["outcome"], again["expires_at"]) == ("sent", sent["expires_at"])
        last(simulator, "msg91", "resend", "/api/v5/otp/retry", {"mobile": "919876543210", "retrytype": kind}, **FORM)
    code = simulator.code("msg91", "9876543210", atleast=4)
    assert len(code) == 6
    assert gateway.verify(sent["verification_id"], code)["outcome"] == "approved"
    last(simulator, "msg91", "verify", "/api/v5/otp/verify", {"mobile": "919876543210", "otp": code}, **FORM)


def test_vendors_own_names(gateway, simulator):
    """A body copied from the vendor's page works."""
    send(
        gateway,
        "ideamart",
        {
            "subscriberId": "tel:94771234567",
            "applicationHash": "abcdefgh",
            "applicationMetaData": {"client": "WebSite", "appCode": "x"},
        },
    )
    assert simulator.log("ideamart")[-1]["body"]["applicationHash"] == "abcdefgh"
    send(
        gateway,
        "hyperverge",
        {"mobileNumber": "9876543210", "templateId": "t", "otpLength": "6", "transactionId": "j1"},
    )
    send(
        gateway,
        "iserveu",
        {
            "customerMobileNumber": "9876543210",
            "otpType": "1",
            "username": "u",
            "ovdType": "Aadhaar Card",
            "ovdData": AADHAAR,
        },
    )
    send(
        gateway, "paytm", {"mobileNumber": "9876543210", "mid": "M", "orderId": "O1", "token": "t", "tokenType": "SSO"}
    )
    assert simulator.log("paytm")[-1]["body"]["head"]["tokenType"] == "SSO"
    assert [entry["complaint"] for entry in simulator.log()] == [None] * 4


@pytest.mark.parametrize("code", ["0012", "000000", "12ab", "12 34", "O'Neil\"\\"])
def test_code_goes_as_it_was_typed(gateway, simulator, code):
    """But for what test_typed_codes.py names."""
    sent = gateway.send("relid")
    gateway.verify(sent["verification_id"], code)
    assert simulator.log("relid", "verify")[-1]["body"]["otp_value"] == code


def test_path_of_base_url_is_kept(gateway, simulator):
    for ending in ("", "/", "//"):
        at(gateway, "ideamart", base_url=simulator.url("ideamart") + ending)
        assert gateway.send()["outcome"] == "sent"
    assert {entry["path"] for entry in simulator.log()} == {"/ideamart/subscription/otp/request"}


@pytest.mark.parametrize("vendor", VENDORS)
def test_defaults(gateway, simulator, vendor):
    defaults, left_out, wire = TABLE[vendor].defaults
    at(gateway, vendor, defaults=json.dumps(defaults))
    to = gateway.number(vendor)
    payload = {name: value for name, value in FLOWS[vendor]["send"](to).items() if name not in left_out}
    sent = send(gateway, vendor, payload)
    entry = simulator.log(vendor, "send")[-1]
    assert {name: fields(entry)[name] for name in wire} == wire
    assert entry["complaint"] is None
    if vendor == "paytm":
        assert entry["query"].startswith("mid=HOUSE&") and entry["body"]["head"]["tokenType"] == "SSO"
    right = gateway.verify(sent["verification_id"], simulator.code(vendor, to), **FLOWS[vendor]["verify"])
    assert right["outcome"] == "approved", right
    assert simulator.log(vendor, "verify")[-1]["complaint"] is None
    # The payload lies on top.
    if vendor == "hyperverge":
        send(gateway, vendor, {**payload, "mobile": gateway.number(vendor), "templateId": "mine", "otpLength": 4})
        body = simulator.log(vendor, "send")[-1]["body"]
        assert (body["templateId"], body["otpLength"], body["otpExpiry"]) == ("mine", "4", "10")


# What comes back


def test_paytm_pay_options_come_unaltered(gateway, simulator):
    to = gateway.number("paytm")
    sent = gateway.send("paytm", to)
    options = {
        "card": {
            "number": "4111 11XX XXXX 1111",
            "mobile": to,
            "list": [{"n": n, "ключ": "значение 😀"} for n in range(3000)],
        },
        "": None,
        "nested": [[[{"a": [True, False, None, -1, 0.1, 1e-7]}]]],
        "token": "tok",
        "otp": "1234",
    }
    answer = {
        "head": {"responseTimestamp": "1763776800"},
        "body": {
            "resultInfo": {"resultStatus": "S", "resultCode": "0000", "resultMsg": "Success"},
            "authenticated": True,
            "payOptionsInfo": options,
        },
    }
    simulator.fault("reply", "paytm", "verify", times=1, body=answer)
    row = gateway.verify(sent["verification_id"], "1234")
    assert row["outcome"] == "approved"
    assert row["response"] == answer
    # What is kept of it is another matter.
    kept = gateway.row("SELECT response FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))["response"]
    assert to not in json.dumps(kept) and "responseTimestamp" in json.dumps(kept)


def test_numbers_come_unaltered(gateway, simulator):
    """Amounts and long ids are numbers, and a double would round them."""
    sent = gateway.send("paytm")
    text = '{"amount": 12345678901234567890.12, "id": 98765432109876543210987, "share": 0.1234567890123456789, "price": 1234.10}'
    body = (
        '{"body":{"resultInfo":{"resultStatus":"S","resultCode":"0000"},"authenticated":true,"payOptionsInfo":%s}}'
        % text
    )
    simulator.fault("reply", "paytm", "verify", times=1, body=body)
    gateway.execute("CREATE TEMP TABLE heard (response jsonb)")
    gateway.execute("INSERT INTO heard SELECT response FROM otp_verify(%s::uuid, '1234')", (sent["verification_id"],))
    ((heard, wanted, same),) = gateway.execute(
        "SELECT response->'body'->>'payOptionsInfo', %s::jsonb::text, response->'body'->'payOptionsInfo' = %s::jsonb FROM heard",
        (text, text),
    )
    assert same, f"{heard} is not {wanted}"


def test_ideamart_subscriber_id_comes_unaltered(gateway, simulator):
    masked = "tel:B%3C4mTHsFd8Y1WfKQJ0vU5Zt2bGx7Rn9aLpEoNiSyCq"
    to = gateway.number()
    sent = gateway.send(to=to)
    answer = {
        "version": "1.0",
        "statusCode": "S1000",
        "statusDetail": "Success",
        "subscriptionStatus": "INITIAL CHARGING PENDING",
        "subscriberId": masked,
    }
    simulator.fault("reply", "ideamart", "verify", times=1, body=answer)
    row = gateway.verify(sent["verification_id"], "123456")
    assert (row["outcome"], row["response"]) == ("approved", answer)
    # The application may find it on record, too: it names nobody.
    assert (
        gateway.row("SELECT response FROM otp_gateway.attempt WHERE id = %s", (row["attempt_id"],))["response"]
        == answer
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_simulators_answer_reaches_the_caller(gateway, simulator, vendor):
    row = gateway.send(vendor)
    assert row["outcome"] == "sent" and isinstance(row["response"], dict) and row["response"]
    assert row["vendor_code"] == TABLE[vendor].sent
