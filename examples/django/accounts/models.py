from django.db import connection, models
from django.db.models import F, Func


class Customer(models.Model):
    name = models.CharField(max_length=100, blank=True)
    phone = models.CharField(max_length=32)
    # The trigger's. db_default: INSERT leaves it out, and reads by RETURNING what the trigger has set.
    verification_id = models.UUIDField(null=True, unique=True, editable=False, db_default=None)

    def is_verified(self):
        return VerifiedPhone.objects.filter(customer=self, phone=self.phone).exists()

    def code_sent(self, seconds=5):
        """Waits for the code to leave, after the COMMIT of what saved the customer: its outcome, None if it has none."""
        return one_row(
            "SELECT outcome FROM otp_gateway.wait(%s::uuid, %s::interval)", [self.verification_id, f"{seconds}s"]
        )[0]

    def verify(self, code):
        """The outcome, and how many tries are left. A request that is rolled back gives no try back."""
        outcome, left = one_row(
            "SELECT CASE status WHEN 'queued' THEN status ELSE outcome END, attempts_left FROM otp.otp_verify(%s::uuid, %s)",
            [self.verification_id, code],
        )
        # By what is on record for this number: it outlives a rollback, and then the outcome is 'already_used'.
        if one_row("SELECT otp_gateway.is_approved(%s::uuid, %s)", [self.verification_id, self.phone])[0]:
            VerifiedPhone.objects.update_or_create(customer=self, defaults={"phone": self.phone})
            return "approved", left
        return outcome, left

    def send_again(self):
        """A new code after COMMIT if the verification is over ('queued'), else the outcome of sending it once more."""
        again = Func(F("verification_id"), function="otp_gateway.send_again")
        before, rows = self.verification_id, Customer.objects.filter(pk=self.pk)
        rows.update(verification_id=again)
        self.refresh_from_db(fields=["verification_id"])
        if self.verification_id != before:
            return "queued"
        return one_row("SELECT outcome FROM otp.otp_resend(%s::uuid)", [before])[0]


class VerifiedPhone(models.Model):
    """In a table of its own, so that no save() of an old Customer makes anybody unverified."""

    customer = models.OneToOneField(Customer, models.CASCADE, primary_key=True)
    phone = models.CharField(max_length=32)
    verified_at = models.DateTimeField(auto_now=True)


def one_row(statement, arguments):
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchone()
