from django.conf import settings
from django.db import migrations

SEND_CODE = """
CREATE TRIGGER send_code BEFORE INSERT OR UPDATE ON accounts_customer FOR EACH ROW
EXECUTE FUNCTION otp_gateway.send_after_commit(%s, '{"mobile": "phone"}', 'verification_id')
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [
        migrations.RunSQL([(SEND_CODE, [settings.OTP_PROVIDER])], "DROP TRIGGER send_code ON accounts_customer"),
    ]
