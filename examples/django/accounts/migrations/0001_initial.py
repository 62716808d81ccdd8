import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Customer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(blank=True, max_length=100)),
                ("phone", models.CharField(max_length=32)),
                ("verification_id", models.UUIDField(db_default=None, editable=False, null=True, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name="VerifiedPhone",
            fields=[
                (
                    "customer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="accounts.customer",
                    ),
                ),
                ("phone", models.CharField(max_length=32)),
                ("verified_at", models.DateTimeField(auto_now=True)),
            ],
        ),
    ]
