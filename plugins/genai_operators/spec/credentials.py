"""What looks like a credential where only plain settings belong: such text reaches records, logs and manifests."""

from __future__ import annotations

import re

#: A variable whose name has one of these words, or ends in ``KEY``, holds a credential.
_CREDENTIAL = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|APIKEY|CREDENTIALS?|AUTHORIZATION|CONNECTION_STRING"
    r"|ACCESS_KEY|AIRFLOW_CONN)(?:_|$)|(?:^|_)KEY$"
)
#: Such a variable names a file that holds one.
_FILE = re.compile(r"_(?:FILE|PATH|DIR)$|^GOOGLE_APPLICATION_CREDENTIALS$")
_PASSWORD_IN_URL = re.compile(r"://[^\s/@:]*:[^\s/@]+@")


def looks_like_credential(name: str, value: str) -> bool:
    """Whether an environment variable seems to hold a credential: by its name, or as its value is a URL with one."""
    variable = name.upper()
    named = _CREDENTIAL.search(variable) is not None and _FILE.search(variable) is None
    return named or _PASSWORD_IN_URL.search(value) is not None
