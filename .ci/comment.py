"""Creates or updates the one comment that carries the comparison; standard library alone."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MARKER = "<!-- pipeline compare -->"


def call(method: str, address: str, headers: dict[str, str], content: dict[str, str] | None = None) -> Any:
    """The JSON answer of a forge."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, data, {**headers, "Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main(path: str) -> int:
    """Posts the file; 1 with one line where the forge refuses."""
    body, given = Path(path).read_text(encoding="utf-8"), os.environ
    if "GITHUB_REPOSITORY" in given:
        root = f"{given.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{given['GITHUB_REPOSITORY']}/issues"
        comments, headers = f"{root}/{given['NUMBER']}/comments", {"Authorization": f"Bearer {given['GH_TOKEN']}"}
        update, method = f"{root}/comments", "PATCH"
    elif "CI_MERGE_REQUEST_IID" in given and given.get("COMMENT_TOKEN"):
        root = f"{given['CI_API_V4_URL']}/projects/{given['CI_PROJECT_ID']}"
        comments = update = f"{root}/merge_requests/{given['CI_MERGE_REQUEST_IID']}/notes"
        headers, method = {"PRIVATE-TOKEN": given["COMMENT_TOKEN"]}, "PUT"
    else:
        print("no pull request to comment on (or no COMMENT_TOKEN): the comparison is in build/")
        return 0
    try:
        earlier, page = None, 1
        while earlier is None and (found := call("GET", f"{comments}?per_page=100&page={page}", headers)):
            earlier = next((one["id"] for one in found if str(one["body"]).startswith(MARKER)), None)
            page += 1
        if earlier is None:
            call("POST", comments, headers, {"body": body})
        else:
            call(method, f"{update}/{earlier}", headers, {"body": body})
    except (urllib.error.URLError, TimeoutError) as error:
        print(
            f"error: the comment was not posted ({error}); fix: give the job's token the right to write",
            file=sys.stderr,
        )
        return 1
    print("comment updated" if earlier else "comment posted")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
