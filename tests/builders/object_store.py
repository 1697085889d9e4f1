"""A real S3 server on this machine, spoken to as any other is."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def server():
    """Where the store is, in the variables that every S3 library reads."""
    s3fs, moto = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    served = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    served.start()
    host, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
    s3fs.S3FileSystem.clear_instance_cache()
    served.stop()


@pytest.fixture
def store(server, request):  # noqa: ARG001 (the client finds it)
    """An empty bucket, and a client of one's own."""
    import s3fs

    client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    bucket = "".join(c for c in request.node.name.lower() if c.isalnum())[:50]
    client.mkdir(bucket)

    def put(directory, name):
        client.put(f"{directory}/", f"{bucket}/{name}/", recursive=True)
        return f"s3://{bucket}/{name}"

    def tree(name=""):
        root = f"{bucket}/{name}".rstrip("/") + "/"
        return {path.removeprefix(root): client.cat(path) for path in client.find(root)}

    return SimpleNamespace(client=client, url=f"s3://{bucket}", put=put, tree=tree)
