"""The instance metadata service of AWS, for a host whose spot instance ends: python -m tests.instance_metadata 60."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

TOKEN = "AQAEAKq"  # noqa: S105 - one that this server alone accepts


def service(address: tuple[str, int], end: datetime | None) -> HTTPServer:
    """A server that demands a session token, and announces an end, or none."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            lasts = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self._answer(200 if self.path == "/latest/api/token" and lasts else 400, TOKEN)

        def do_GET(self) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                self._answer(401, "")
            elif self.path != "/latest/meta-data/spot/instance-action" or end is None:
                self._answer(404, "")
            else:
                notice = {"action": "terminate", "time": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
                self._answer(200, json.dumps(notice))

        def _answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return HTTPServer(address, Handler)


if __name__ == "__main__":
    service(("169.254.169.254", 80), datetime.now(UTC) + timedelta(seconds=float(sys.argv[1]))).serve_forever()
