"""PGHOST, PGPORT, PGUSER and PGDATABASE name the database (libpq reads them), OTP_PROVIDER the server."""

import os
import secrets

SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_hex()
# With DEBUG, Django keeps and shows each statement and what was typed: never where people sign up.
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "config.urls"
OTP_PROVIDER = os.environ.get("OTP_PROVIDER", "sandbox")

# No admin: whoever edits a phone there would have a code sent to it.
INSTALLED_APPS = ["django.contrib.sessions", "django.contrib.messages", "accounts"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
MESSAGES = "django.contrib.messages.context_processors.messages"
DTL = "django.template.backends.django.DjangoTemplates"
TEMPLATES = [{"BACKEND": DTL, "APP_DIRS": True, "OPTIONS": {"context_processors": [MESSAGES]}}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "postgres"),
        "ATOMIC_REQUESTS": True,
        # A database that has the extension and the provider: only a superuser can make those.
        "TEST": {"TEMPLATE": "template_otp"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
