"""The application's own tests, against the sandbox. TransactionTestCase: of a transaction that is never committed no code
leaves."""

import random
import re
from unittest import mock

from django.db import connection, transaction
from django.test import TransactionTestCase

from .models import Customer, VerifiedPhone

RIGHT, WRONG = "000000", "123456"


def number():
    return f"077{random.randrange(10**7):07}"


class SignUp(TransactionTestCase):
    def sign_up(self, phone=None):
        answer = self.client.post("/", {"phone": phone or number()}, follow=True)
        self.assertEqual(answer.status_code, 200)
        self.assertContains(answer, "We have sent you a code.")
        return Customer.objects.latest("pk")

    def enter(self, customer, code):
        return self.client.post(f"/code/{customer.pk}", {"code": code}, follow=True)

    def test_sign_up(self):
        customer = self.sign_up()
        self.assertContains(self.enter(customer, WRONG), "Tries left: 4")
        self.assertContains(self.enter(customer, " 000 000 "), f"Your number is {customer.phone}.")
        # A reload, a second click: nothing is compared any more, and nothing was lost.
        self.assertContains(self.enter(customer, WRONG), f"Your number is {customer.phone}.")

    def test_the_object_knows_its_verification(self):
        customer = Customer.objects.create(phone=number())
        self.assertIsNotNone(customer.verification_id)
        self.assertEqual(customer.code_sent(), "sent")

    def test_save_writes_every_column(self):
        """save() of an object that is older than its row takes neither the verification nor the proof away."""
        customer = self.sign_up()
        old = Customer.objects.get(pk=customer.pk)
        Customer.objects.filter(pk=customer.pk).update(phone=number())
        moved = Customer.objects.get(pk=customer.pk)
        self.assertNotEqual(moved.verification_id, old.verification_id)
        self.assertEqual(moved.code_sent(), "sent")
        old.phone, old.name = moved.phone, "Nimal"
        old.save()
        old.verification_id = None
        old.save()
        self.assertEqual(Customer.objects.get(pk=customer.pk).verification_id, moved.verification_id)
        self.assertContains(self.enter(customer, RIGHT), moved.phone)
        old.save()
        self.assertTrue(moved.is_verified())

    def test_another_phone_is_not_verified(self):
        customer = self.sign_up()
        self.enter(customer, RIGHT)
        customer.refresh_from_db()
        customer.phone = number()
        customer.save()
        self.assertFalse(customer.is_verified())
        self.assertContains(self.enter(customer, RIGHT), customer.phone)

    def test_a_number_that_is_none(self):
        answer = self.client.post("/", {"phone": "abc"})
        self.assertContains(answer, "Please look at the number.", status_code=422)
        self.assertFalse(Customer.objects.exists())

    def test_a_request_that_fails_sends_nothing(self):
        phone = number()
        with mock.patch("accounts.views.redirect", side_effect=ZeroDivisionError), self.assertRaises(ZeroDivisionError):
            self.client.post("/", {"phone": phone})
        self.assertFalse(Customer.objects.exists())
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM otp_gateway.verification WHERE recipient_masked LIKE %s", [f"%{phone[-4:]}"]
            )
            self.assertEqual(cursor.fetchone(), (0,))

    def test_a_rollback_gives_no_try_back(self):
        customer = self.sign_up()
        with mock.patch("accounts.views.render", side_effect=ZeroDivisionError), self.assertRaises(ZeroDivisionError):
            self.enter(customer, WRONG)
        self.assertContains(self.enter(customer, WRONG), "Tries left: 3")

    def test_a_rollback_after_the_right_code(self):
        """The request is retried, and the approval is on record."""
        customer = self.sign_up()
        with mock.patch("accounts.views.render", side_effect=ZeroDivisionError), self.assertRaises(ZeroDivisionError):
            self.enter(customer, RIGHT)
        self.assertFalse(VerifiedPhone.objects.exists())
        self.assertContains(self.enter(customer, RIGHT), f"Your number is {customer.phone}.")

    def test_no_wait_before_the_commit(self):
        with transaction.atomic():
            customer = Customer.objects.create(phone=number())
            with self.assertRaisesRegex(Exception, "before its COMMIT"), transaction.atomic():
                customer.code_sent()
        self.assertEqual(customer.code_sent(), "sent")

    def test_send_it_again(self):
        customer = self.sign_up()
        again = self.client.post(f"/again/{customer.pk}", follow=True)
        self.assertContains(again, "We have sent you a code.")
        self.assertEqual(Customer.objects.get(pk=customer.pk).verification_id, customer.verification_id)
        # Given up: another verification.
        with connection.cursor() as cursor:
            cursor.execute("SELECT outcome FROM otp.otp_cancel(%s::uuid)", [customer.verification_id])
        self.assertContains(self.client.post(f"/again/{customer.pk}", follow=True), "We have sent you a code.")
        self.assertNotEqual(Customer.objects.get(pk=customer.pk).verification_id, customer.verification_id)
        self.assertContains(self.enter(customer, RIGHT), "Your number is")

    def test_somebody_elses(self):
        customer = self.sign_up()
        self.client.session.flush()
        for path in (f"/code/{customer.pk}", "/code/0"):
            self.assertEqual(self.client.get(path).status_code, 404)
        self.assertEqual(self.client.post(f"/again/{customer.pk}").status_code, 404)

    def test_what_was_typed_is_in_no_report(self):
        customer = self.sign_up()
        self.client.raise_request_exception = False
        with (
            mock.patch("accounts.views.render", side_effect=ZeroDivisionError),
            self.assertLogs("django.request", "ERROR") as log,
        ):
            self.enter(customer, RIGHT)
        self.assertIsNone(re.search(RIGHT, log.output[0]))
