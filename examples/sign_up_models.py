"""The tables of sign_up.sql as Django's models. The application connects as registration_app; the tables were made by
sign_up.sql, not by `migrate`: whoever owns a table may do anything with it, whatever is granted."""

from django.db import connection, models
from django.db.models import F


class Customer(models.Model):
    phone = models.TextField()
    # The trigger's: after create() it is None here, until refresh_from_db(). Written as it is by save(), which does no
    # harm: NULL, or an older id, changes nothing.
    verification_id = models.UUIDField(null=True, editable=False)

    class Meta:
        managed = False
        db_table = "customer"

    @classmethod
    def verified(cls):
        return cls.objects.filter(verifiedphone__phone=F("phone"))

    def is_verified(self):
        return VerifiedPhone.objects.filter(customer=self, phone=self.phone).exists()

    def code_sent(self, seconds=10):
        """Waits for the code to leave, after the transaction that created or changed the customer: the outcome, None if it
        has none yet; how many tries the code has, 0 if the number is locked by wrong codes before it; and how long to wait
        before sending again."""
        return one_row(
            "SELECT w.outcome, w.attempts_left, w.retry_after"
            " FROM public.customer AS c, otp_gateway.wait(c.verification_id, %s) AS w WHERE c.id = %s",
            [f"{seconds}s", self.pk],
        )

    def verify(self, code):
        """The outcome, 'approved' or what to tell the user; how many tries are left; how long to wait, where it says to. A
        rollback of the request makes no wrong code undone."""
        return one_row(
            "SELECT outcome, attempts_left, retry_after FROM public.verify_customer(%s, %s)", [self.pk, code]
        )

    def send_code_again(self):
        """What came of it: 'queued', a code leaves with COMMIT or is on its way: code_sent() waits for it; the outcome of
        having the open code sent once more; 'max_attempts_reached', locked; 'verified'. And how long to wait."""
        return one_row("SELECT outcome, retry_after FROM public.send_code_again(%s)", [self.pk])


class VerifiedPhone(models.Model):
    """Read-only: to write it permission is denied."""

    customer = models.OneToOneField(Customer, models.DO_NOTHING, primary_key=True)
    phone = models.TextField(editable=False)
    verification_id = models.UUIDField(editable=False)
    verified_at = models.DateTimeField(editable=False)

    class Meta:
        managed = False
        db_table = "verified_phone"


def one_row(statement, arguments):
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchone()
