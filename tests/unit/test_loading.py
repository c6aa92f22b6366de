"""The note that the application is being imported. Each docstring says how it was seen to fail."""

import pytest

from aserver.errors import AppLoadError
from aserver.loading import REMEDY, application_code, refuse_nested


def test_a_server_is_refused_only_while_a_module_of_the_user_is_imported() -> None:
    """Fails with a flag in place of the number, which the end of an inner import would take back."""
    refuse_nested("run()")
    with application_code():
        with pytest.raises(ZeroDivisionError), application_code():
            raise ZeroDivisionError
        with pytest.raises(AppLoadError) as caught:
            refuse_nested("run()")
    assert str(caught.value).startswith("run() is called while a server imports the module")
    assert str(caught.value).endswith(REMEDY)
    refuse_nested("run()")
