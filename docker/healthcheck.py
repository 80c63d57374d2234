"""Whether requests can be sent to the service in this container; the images have no curl."""

import os
import sys
import urllib.error
import urllib.request

_URL = f"http://127.0.0.1:{os.environ.get('SIDREC_PORT', '8000')}/readyz"

# Loopback needs no proxy, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with _opener.open(_URL, timeout=4) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read().decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{_URL}: {error}")
