from django.urls import path

from accounts import views

urlpatterns = [
    path("", views.sign_up, name="sign_up"),
    path("code/<int:pk>", views.code, name="code"),
    path("again/<int:pk>", views.again, name="again"),
]
