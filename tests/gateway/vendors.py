"""What the tests know of each vendor, in one place: a new vendor is an entry of `TABLE`, and the tests that go by vendor run
for it."""

import dataclasses
import functools
import json
import pathlib
import secrets
import typing

from canaries import RUN

SERVICE = "VA" + secrets.token_hex(16)

# The description on the page, as `otp_rest` takes it.
VONAGE = json.loads(
    (pathlib.Path(__file__).resolve().parents[2] / "docs/vendors/vonage.md")
    .read_text()
    .split("```json\n")[1]
    .split("```")[0]
)


@dataclasses.dataclass
class Vendor:
    # The payload of a send to a recipient, as the simulator's inbox knows it, and of its verify.
    send: typing.Callable
    # A recipient: how many digits come after what.
    number: str
    credentials: tuple
    # By what otp_verify(provider, ...) finds a flow that was begun elsewhere: "reference", "number"; none: by the id alone.
    found_by: tuple
    # Of how many digits a code is at most, where its page says that it is of digits alone: what has a letter is then none.
    digits: int | None
    # The fields that no send does without.
    required: tuple
    # What a person types for the same recipient; {} is all of it, {national} what comes after a zero.
    spellings: tuple
    # Its answers: vendor_code of a send; whole ones to a send that went well, and to a wrong code.
    sent: str | None
    success: dict
    wrong: dict
    # docs/vendors: code_lifetime, max_checks, resend_after.
    page: tuple
    # The option `defaults`, the fields of a send that it makes superfluous, and what then stands in the body.
    defaults: tuple
    # Of `test_numbers`, and as people type it.
    test_number: tuple | None = None
    verify: dict = dataclasses.field(default_factory=dict)
    # Server options that it does not do without.
    options: dict = dataclasses.field(default_factory=dict)
    # The foreign data wrapper `otp_...`; of most their own.
    wrapper: str | None = None
    # The HTTP status of `success` and of `wrong`.
    statuses: tuple = (200, 200)
    # A resend repeats the code, which lives no longer for it.
    repeats_code: bool = False
    # Seconds for which the vendor refuses a second code to a person whose first is still good.
    one_at_a_time: int = 0
    # What it calls the code of a verify.
    code: str = "otp"
    cancels: bool = False


@functools.cache
def own(make, to):
    """What goes with a recipient, the same each time."""
    return make()


def order():
    return f"ORDER{secrets.token_hex(6)}"


def aadhaar():
    return RUN.number(12)


def token():
    return RUN.secret("token")


INDIAN = ("{}", "+91{}", "0{}", "+91 {}")
LANKAN = ("{}", "+94 {national}", "+94{national}")

TABLE = {
    "iserveu": Vendor(
        send=lambda to: {
            "mobile": to,
            "otp_type": "1",
            "username": "agent1",
            "ovd_type": "Aadhaar Card",
            "ovd_data": own(aadhaar, to),
        },
        verify={"name": "Asha Rao", "lat_long": "20.29,85.82", "public_ip": "203.0.113.7"},
        number="98{:08d}",
        credentials=("client_id", "client_secret"),
        found_by=(),
        digits=None,
        required=("mobile", "username", "otp_type"),
        spellings=INDIAN,
        sent="0",
        success={"status": "SUCCESS", "statusCode": "0", "statusDesc": "ok"},
        wrong={"status": "FAILED", "statusCode": "3", "statusDesc": "Invalid OTP"},
        page=("10min", "5", "30s"),
        defaults=(
            {"username": "house", "otp_type": "1", "ovdType": "Aadhaar Card"},
            ["username", "otp_type", "ovd_type"],
            {"username": "house", "otpType": "1", "ovdType": "Aadhaar Card"},
        ),
        test_number=("+919999900001", "9999900001"),
    ),
    "hyperverge": Vendor(
        send=lambda to: {"mobile": to, "template_id": "tpl-1"},
        number="97{:08d}",
        credentials=("app_id", "app_key"),
        found_by=("number",),
        digits=9,
        required=("template_id", "mobile"),
        spellings=INDIAN,
        sent="200",
        success={"status": "success", "statusCode": 200, "metaData": {"requestId": "r-1"}},
        wrong={"status": "failure", "statusCode": 200, "error": {"message": "OTP not match", "type": "error"}},
        page=("1d", "5", "30s"),
        defaults=(
            {"template_id": "house", "otp_length": 6, "otpExpiry": "10"},
            ["template_id"],
            {"templateId": "house", "otpLength": "6", "otpExpiry": "10"},
        ),
        test_number=("+919999900001", "+91 99999-00001"),
        repeats_code=True,
    ),
    "paytm": Vendor(
        send=lambda to: {"mobile": to, "mid": "MID01", "order_id": own(order, to), "token": own(token, to)},
        number="96{:08d}",
        credentials=("username", "password"),
        found_by=("reference",),
        digits=None,
        required=("mid", "order_id", "token", "mobile"),
        spellings=INDIAN,
        sent="0000",
        success={"head": {}, "body": {"resultInfo": {"resultStatus": "S", "resultCode": "0000", "resultMsg": "ok"}}},
        wrong={
            "head": {},
            "body": {"resultInfo": {"resultStatus": "F", "resultCode": "403", "resultMsg": "Invalid OTP"}},
        },
        page=(None, "5", "30s"),
        defaults=({"mid": "HOUSE", "token_type": "SSO"}, ["mid"], {}),
        test_number=("+919999900001", "09999900001"),
    ),
    "relid": Vendor(
        send=lambda to: {
            "user_id": to,
            "enterprise_id": "bank",
            "expires_in": 120,
            "msg": [{"lng": "English", "subject": "Log-in", "message": "Your code is $$OTP$$", "label": {}}],
            "notification_msg": {"subject": "Log-in", "message": "A code for you"},
        },
        number="user{:08d}",
        credentials=("username", "password"),
        found_by=("reference",),
        digits=None,
        required=("enterprise_id", "user_id", "msg"),
        spellings=("{}",),
        sent="0",
        success={"response_code": 0, "notification_uuid": "03f67f9e-ec4f-11e6-b006-92361f002671", "msg_id": "m"},
        wrong={"response_code": 0, "otp_validation_status": "FAILED"},
        page=(None, "3", "30s"),
        defaults=(
            {"enterprise_id": "house", "msg": [{"lng": "en", "subject": "s", "message": "$$OTP$$", "label": {}}]},
            ["enterprise_id", "msg"],
            {"enterprise_id": "house"},
        ),
        cancels=True,
    ),
    "ideamart": Vendor(
        send=lambda to: {"mobile": to},
        number="07{:08d}",
        credentials=("application_id", "password"),
        found_by=("reference",),
        digits=None,
        required=("mobile",),
        spellings=(*LANKAN, "tel:94{national}"),
        sent="S1000",
        success={"statusCode": "S1000", "statusDetail": "ok", "referenceNo": "r-1"},
        wrong={"version": "1.0", "statusCode": "E1850", "statusDetail": "Invalid OTP"},
        page=("1h", "3", "30s"),
        defaults=({"metadata": {"client": "house"}}, [], {"applicationMetaData": {"client": "house"}}),
        test_number=("+94770009999", "077 000 9999"),
    ),
    "twilio": Vendor(
        send=lambda to: {"mobile": to},
        number="07{:08d}",
        credentials=("api_key", "api_secret"),
        found_by=("reference", "number"),
        digits=None,
        required=("mobile",),
        options={"service_sid": SERVICE},
        spellings=LANKAN,
        sent="pending",
        success={"sid": "VE" + "0b" * 16, "status": "pending", "valid": False},
        wrong={"sid": "VE" + "0a" * 16, "status": "pending", "valid": False},
        page=("10min", "5", "30s"),
        defaults=({"channel": "whatsapp", "locale": "en"}, [], {"Channel": "whatsapp", "Locale": "en"}),
        test_number=("+94770009999", "077 000 9999"),
        repeats_code=True,
        code="Code",
        cancels=True,
    ),
    "msg91": Vendor(
        send=lambda to: {"mobile": to, "template_id": "0123456789abcdef01234567"},
        number="95{:08d}",
        credentials=("authkey",),
        found_by=("number",),
        digits=9,
        required=("mobile", "template_id"),
        spellings=INDIAN,
        sent=None,
        success={"type": "success", "request_id": "0123456789abcdef01234567"},
        wrong={"type": "error", "message": "OTP not match"},
        page=("1d", "5", "30s"),
        defaults=(
            {"template_id": "house", "otp_length": 6},
            ["template_id"],
            {"template_id": "house", "otp_length": 6},
        ),
        test_number=("+919999900001", "09999900001"),
        repeats_code=True,
    ),
    # Described, not programmed.
    "vonage": Vendor(
        send=lambda to: {"mobile": to, "brand": "Example"},
        number="07{:08d}",
        credentials=("api_key", "api_secret"),
        found_by=("reference",),
        digits=10,
        required=("mobile", "brand"),
        wrapper="rest",
        options={"description": json.dumps(VONAGE).replace("'", "''")},
        spellings=LANKAN,
        sent=None,
        success={"request_id": "c11236f4-00bf-4b89-84ba-88b25df97315"},
        wrong={"title": "Invalid Code", "type": "https://developer.vonage.com/api-errors/verify-v2#invalid-code"},
        statuses=(202, 400),
        page=("3min", "3", "30s"),
        defaults=({"brand": "house", "code_length": 6}, ["brand"], {"brand": "house", "code_length": 6}),
        test_number=("+94770009999", "077 000 9999"),
        one_at_a_time=180,
        code="code",
        cancels=True,
    ),
}

VENDORS = tuple(TABLE)
FLOWS = {
    name: {"send": vendor.send, "verify": vendor.verify, "number": vendor.number} for name, vendor in TABLE.items()
}
CREDENTIALS = {name: {option: RUN.secret(option) for option in vendor.credentials} for name, vendor in TABLE.items()}


def wrapper(vendor):
    """`otp_rest` for one that is described; a vendor without an entry is its own, as the sandbox is."""
    return f"otp_{(TABLE[vendor].wrapper if vendor in TABLE else None) or vendor}"


def spelled(vendor, to):
    """All the ways in which people type this recipient."""
    return [form.format(to, national=to.lstrip("0")) for form in TABLE[vendor].spellings]
