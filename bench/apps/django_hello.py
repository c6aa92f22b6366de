"""A Django app of one file: a view behind the usual middleware."""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)


async def hello(request: HttpRequest) -> HttpResponse:
    del request
    return HttpResponse("Hello, world!", content_type="text/plain")


urlpatterns = [path("", hello)]
app = get_asgi_application()
