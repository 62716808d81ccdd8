from functools import partial

from django import forms
from django.contrib import messages
from django.db import DataError, transaction
from django.http import Http404
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from .models import Customer

SENT, LATER = "We have sent you a code.", "Please try again later."
SAID = {"sent": SENT, "unknown": SENT, "queued": "Your code is on its way.", "blocked": LATER, "rate_limited": LATER}
SAID["invalid_code"] = "That is not the code. Tries left: {left}"


PhoneForm = forms.modelform_factory(Customer, fields=["phone"])


class CodeForm(forms.Form):
    code = forms.CharField(max_length=20)


def tell(request, outcome, left=None):
    messages.info(request, SAID.get(outcome, "Please ask for a new code.").format(left=left))


def tell_what_was_sent(request, customer):
    tell(request, customer.code_sent() or "queued")


# What was typed stays out of error reports.
@sensitive_post_parameters()
def sign_up(request):
    form = PhoneForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            # A savepoint: a number that is none (22023) ends it, and not the request's transaction.
            with transaction.atomic():
                customer = form.save()
        except DataError:
            form.add_error("phone", "Please look at the number.")
        else:
            # The code leaves with the request's COMMIT: nothing to wait for before it.
            transaction.on_commit(partial(tell_what_was_sent, request, customer), robust=True)
            request.session["customers"] = [*request.session.get("customers", []), customer.pk]
            return redirect("code", customer.pk)
    return render(request, "form.html", {"form": form}, status=422 if form.errors else 200)


def own(request, pk):
    """Whose code is checked stands in the address; the session says whose it may be."""
    if pk not in request.session.get("customers", []):
        raise Http404
    return Customer.objects.get(pk=pk)


@sensitive_post_parameters()
def code(request, pk):
    customer, form = own(request, pk), CodeForm(request.POST or None)
    # Once verified, no code is compared any more.
    verified = customer.is_verified()
    if request.method == "POST" and not verified and form.is_valid():
        outcome, left = customer.verify(form.cleaned_data["code"])
        verified = outcome == "approved"
        if not verified:
            tell(request, outcome, left)
    return render(request, "form.html", {"form": None if verified else form, "customer": customer})


@require_POST
def again(request, pk):
    customer = own(request, pk)
    outcome = customer.send_again()
    if outcome == "queued":
        transaction.on_commit(partial(tell_what_was_sent, request, customer), robust=True)
    else:
        tell(request, outcome)
    return redirect("code", pk)
