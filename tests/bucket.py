"""A bucket on this machine, for tests: `with bucket(folder):` lets gs://bucket be read and written
by every process.

The server is gcp-storage-emulator, in a process of its own, with what it lacks of the real thing
and what orbax and we build on: a write or a removal for one generation of an object alone
(`ifGenerationMatch`, 0: none yet) fails for another, a download tells its generation, objects can
be moved, and bytes are kept as they come. `python -m tests.bucket PORT` is that server.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from http import HTTPStatus
from http.server import HTTPServer

import pytest

NAME = "gs://bucket"
# What tells a process where the bucket is.
SETTINGS = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL", "BLT_JAX_CACHE")


@contextlib.contextmanager
def bucket(folder):
    """Yields "gs://bucket", empty. `folder`: where copies and drafts of ours lie, on the disk."""
    for needed in ("gcp_storage_emulator", "gcsfs"):
        pytest.importorskip(needed)
    from blt_jax import storage

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    settings = dict(zip(SETTINGS, (url, url, str(folder)), strict=True))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bucket", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setattr(storage, "CACHE", folder)
            _forget()
            until = time.monotonic() + 60
            while server.poll() is None and time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
                    break
                time.sleep(0.1)
            yield NAME
    finally:
        server.kill()
        server.wait()
        _forget()


def _forget():
    """No file system made before knows where the bucket is now."""
    from gcsfs import GCSFileSystem

    from blt_jax import storage

    storage.forget()
    GCSFileSystem.clear_instance_cache()


def serve(port):
    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    read_data = server._read_data

    def read_exactly(handler, query):
        kind = handler.headers.get("Content-Type") or ""
        if not kind.startswith("multipart/related"):
            return read_data(handler, query)
        raw = server._decode_raw_data(server._read_raw_data(handler), handler)
        mark = b"--" + re.search('boundary="?([^";]+)', kind)[1].encode()
        described, rest = raw[raw.index(mark) + len(mark) :].split(mark, 1)
        meta = json.loads(re.split(rb"\r?\n\r?\n", described, maxsplit=1)[1])
        head, content = re.split(rb"\r?\n\r?\n", rest, maxsplit=1)
        newline = b"\r\n" if b"\r\n" in head else b"\n"
        content = content[: content.rindex(newline + mark)]
        return {"meta": meta, "content": content, "content-type": "application/octet-stream"}

    def generation(storage, bucket, name):
        try:
            return storage.get_file_obj(bucket, name)["generation"]
        except NotFound:
            return "0"

    def if_it_matches(upload):
        def checked(request, response, storage):
            meta = (
                request.data["meta"]
                if isinstance(request.data, dict) and "meta" in request.data
                else {}
            )
            name = request.query["name"][0] if "name" in request.query else meta.get("name")
            wanted = (
                request.query.get("ifGenerationMatch") if "upload_id" not in request.query else None
            )
            if wanted and wanted != [generation(storage, request.params["bucket_name"], name)]:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return None
            return upload(request, response, storage)

        return checked

    def delete_if_it_matches(request, response, storage):
        bucket, name = request.params["bucket_name"], request.params["object_id"]
        if request.query.get("ifGenerationMatch", [was := generation(storage, bucket, name)]) == [
            was
        ]:
            return objects.delete(request, response, storage)
        response.status = HTTPStatus.PRECONDITION_FAILED

    def told(download):
        def with_generation(request, response, storage):
            response["x-goog-generation"] = generation(
                storage, request.params["bucket_name"], request.params["object_id"]
            )
            return download(request, response, storage)

        return with_generation

    def move(request, response, storage):
        bucket, name, to = (request.params[key] for key in ("bucket_name", "object_id", "to"))
        if generation(storage, bucket, name) == "0":
            response.status = HTTPStatus.NOT_FOUND
            return
        response.json(objects._copy(request.base_url, storage, bucket, name, bucket, to))
        storage.delete_file(bucket, name)

    class Waiting(HTTPServer):
        request_queue_size = 1024  # a checkpoint comes as hundreds of connections

    server.server.HTTPServer = Waiting
    server._read_data = read_exactly
    for name in ("_media_upload", "_multipart_upload", "_create_resumable_upload"):
        setattr(objects, name, if_it_matches(getattr(objects, name)))
    objects.download = told(objects.download)
    for _, handlers in server.HANDLERS:
        if handlers.get("DELETE") is objects.delete:
            handlers["DELETE"] = delete_if_it_matches
    moved = r"^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.*)/moveTo/o/(?P<to>.*)$"
    server.HANDLERS = [(moved, {"POST": move}), *server.HANDLERS]
    server.create_server("localhost", port, in_memory=True, default_bucket="bucket").run()


if __name__ == "__main__":
    os.environ.pop("STORAGE_EMULATOR_HOST", None)
    serve(int(sys.argv[1]))
